"""Prints as fast as it is read, then exits 0: 1 GiB in lines of 100 bytes, or as many bytes as argv[1] says.

The last line, "prints_gigabyte: done", comes on top.
"""

import os
import sys

LINE = b"x" * 99 + b"\n"
BLOCK = LINE * 10_000

left = int(sys.argv[1]) if len(sys.argv) > 1 else 2**30
while left > 0:
    left -= os.write(1, BLOCK[:left])
print("\nprints_gigabyte: done", flush=True)
