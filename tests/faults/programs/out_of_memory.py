"""Runs into a memory limit of its own (the machine keeps its memory): MemoryError, a traceback, exit code 1."""

import resource

MIB = 2**20
resource.setrlimit(resource.RLIMIT_AS, (512 * MIB, 512 * MIB))

kept = []
while True:
    kept.append(bytearray(16 * MIB))
