"""Never gets to its first step: alive, silent, not using the processor. `hangs.py 5` reports five steps first."""

import sys
import threading
import time

from edgecloud import worker

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 0
for step in range(1, steps + 1):
    time.sleep(0.02)
    worker.report(step=step, total_steps=1000)

print(f"hangs: stuck after step {steps}", flush=True)
lock = threading.Lock()
lock.acquire()
lock.acquire()  # nobody is left to release it
