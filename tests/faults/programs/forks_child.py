"""Leaves a daemon behind and exits 0 at once.

The daemon has its own session and no living parent, keeps stdout and stderr open, ignores SIGTERM and SIGHUP, and
sleeps for an hour. Its process id stands in checkpoint_dir/daemon-RANK.pid.
"""

import os
import signal
import time

from edgecloud import worker

worker.checkpoint_dir.mkdir(parents=True, exist_ok=True)
pid_file = worker.checkpoint_dir / f"daemon-{os.environ.get('RANK', '0')}.pid"

if middle := os.fork():
    os.waitpid(middle, 0)
    print(f"forks_child: left {pid_file.read_text().strip()} behind", flush=True)
    os._exit(0)

os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if daemon := os.fork():
    pid_file.write_text(f"{daemon}\n")
    os._exit(0)
time.sleep(3600)
