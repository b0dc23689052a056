"""Pretends to train, without torch: counts.py STEPS [SECONDS_PER_STEP] counts to STEPS (default 100), 20 ms a step.

For each rank by itself, as there is no collective:
- checkpoint_dir/counts-RANK.json holds the last step done, {"step": 7}; a restarted process goes on from there.
- checkpoint_dir/counts.jsonl gets a line for every step that ran, from all ranks and rounds together:
  {"step": 7, "rank": 0, "world_size": 2, "round": 1, "pid": 4711, "time": 1700000000.0}. The line comes before the
  checkpoint: a process killed between the two does that step again, and none is ever left out.
- when asked to stop it exits with 143, its checkpoint written; after the last step with 0.
"""

import json
import os
import sys
import time

from edgecloud import worker


def append(path, record):
    """One write, so that lines of several processes never mix."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, (json.dumps(record) + "\n").encode())
    finally:
        os.close(file)


def main():
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.02
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    who = {
        "rank": rank,
        "world_size": world_size,
        "round": int(os.environ.get("EDGECLOUD_ROUND", "0")),
        "pid": os.getpid(),
    }

    worker.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = worker.checkpoint_dir / f"counts-{rank}.json"
    trace = worker.checkpoint_dir / "counts.jsonl"
    step = json.loads(checkpoint.read_text())["step"] if checkpoint.exists() else 0
    print(f"counts: rank {rank} of {world_size} goes on after step {step} of {total}", flush=True)

    while step < total:
        time.sleep(seconds)
        step += 1
        append(trace, {"step": step, **who, "time": time.time()})
        beside = checkpoint.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps({"step": step}))
        beside.replace(checkpoint)
        worker.report(step=step, total_steps=total, loss=1 / step, samples_per_second=1 / seconds, checkpoint_step=step)
        if worker.should_stop():
            print(f"counts: rank {rank} stops after step {step}", flush=True)
            sys.exit(143)
    print(f"counts: rank {rank} is done", flush=True)


if __name__ == "__main__":
    main()
