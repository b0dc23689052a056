"""Will not stop: it ignores SIGTERM and worker.should_stop() and reports steps for ever. Only SIGKILL ends it."""

import itertools
import signal
import time

from edgecloud import worker

signal.signal(signal.SIGTERM, signal.SIG_IGN)
for step in itertools.count(1):
    time.sleep(0.02)
    worker.report(step=step, total_steps=10**6)
