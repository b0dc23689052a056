"""What a training script may say to EdgeCloud, and ask it: progress, and whether it is time to stop.

    from edgecloud import worker

    for step in range(start, total):
        loss = train_one_step()
        worker.report(step=step + 1, total_steps=total, loss=loss)
        if agreed_stop():                     # see below
            save(worker.checkpoint_dir, step + 1)
            sys.exit(143)

It is optional: a script without it runs as well, but shows no progress, and gets a SIGTERM when it is to stop (as does
one that never calls `should_stop` on any rank). Outside a job all of it does nothing, so the same script runs alone. No
call waits for anything, and none raises.

**Stopping is agreed.** `should_stop()` may turn true on one rank a step before it does on another. A rank that left by
itself would leave the others waiting in their next collective, so all ranks first agree, with one number:

    def agreed_stop() -> bool:
        flag = torch.tensor(float(worker.should_stop()), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

All ranks then leave at the same step: rank 0 saves a checkpoint, every rank waits for it (`dist.barrier()`), and all
call `sys.exit(143)`. That exit code says "stopped on request, will go on from the checkpoint": no failure, no restart
counted. Exit code 0 says that the training is complete. To save the collective, ask at every tenth step, the same ones
on all ranks. A script that trains in one process asks `should_stop()` directly.

Every rank may simply call it. Where one alone does, and tells the others, that is as good: as soon as any rank of the
job has asked, none gets a SIGTERM but those that are still there 5 s before `stopGraceSeconds` are over (half of them,
if they are less than 10) and do not ask themselves. Who asks may save until they are over; then comes SIGKILL, for all.

This module imports neither torch nor anything else outside the standard library.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

from edgecloud.launcher import progress
from edgecloud.launcher.channel import ProcessEnd, pid_namespace

__all__ = ["checkpoint_dir", "publish", "report", "results_dir", "should_stop"]

checkpoint_dir: Path = Path(os.environ.get("EDGECLOUD_CHECKPOINT_DIR") or "checkpoints")
"""Where checkpoints belong: what is here when a job is stopped is here again when it goes on. Make it before use."""

results_dir: Path = Path(os.environ.get("EDGECLOUD_RESULTS_DIR") or "results")
"""Where the outcome of the training belongs (the final model, its evaluation). Make it before use."""


def report(
    *,
    step: SupportsFloat,
    total_steps: SupportsFloat | None = None,
    epoch: SupportsFloat | None = None,
    loss: SupportsFloat | None = None,
    accuracy: SupportsFloat | None = None,
    samples_per_second: SupportsFloat | None = None,
    checkpoint_step: SupportsFloat | None = None,
    **metrics: SupportsFloat,
) -> None:
    """Say how far the training is. As often as you like: the job shows the newest values, about once a second.

    Takes whatever `float()` takes, so also scalars of numpy and torch (one on a GPU is waited for by `float()` itself).
    What is no finite number, or out of its range, is left out. A value that a later report leaves out keeps standing.

    Args:
        step: steps done so far, over the whole training (not since the last restart).
        total_steps: steps in all; with it the job shows per cent and the time that is left.
        epoch: epochs done, may be a fraction.
        loss: the training loss.
        accuracy: a fraction from 0 to 1.
        samples_per_second: of all ranks together.
        checkpoint_step: the step of the newest complete checkpoint. When it advances, the job's restart budget is new.
        metrics: up to 32 numbers of your own, with names of up to 63 characters.
    """
    _process.report(
        {
            "step": step,
            "totalSteps": total_steps,
            "epoch": epoch,
            "loss": loss,
            "accuracy": accuracy,
            "samplesPerSecond": samples_per_second,
            "checkpointStep": checkpoint_step,
            "metrics": metrics,
        }
    )


def publish(
    *,
    checkpoint: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    performance: Mapping[str, Any] | None = None,
    exports: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Put results into the job's status: small JSON objects, shown from the next report on. After the first `report`.

    Each holds about 2 KiB, at most 8 levels deep. What is no JSON or deeper is left out, and of a larger one the
    largest entries are; a line on standard error names them once. They belong into a file in results_dir.

    Args:
        checkpoint: step, path (in the job's storage), weightsSha256.
        evaluation: accuracy (0 to 1), correct, total, and whatever else describes it.
        performance: samplesPerSecond and whatever else describes it.
        exports: of each converted model format, path, bytes, sha256, accuracy, parity, latency and gate.
    """
    if isinstance(exports, Sequence):
        exports = [dict(one) if isinstance(one, Mapping) else one for one in exports]
    documents = {
        "checkpoint": checkpoint,
        "evaluation": evaluation,
        "performance": performance,
        "exports": None if exports is None else {"exports": exports},
    }
    said = {name: value for name, value in documents.items() if value is not None}
    kept = {name: progress.fitted(value) for name, value in said.items()}
    _process.report(kept)
    for name, value in said.items():
        if gone := progress.left_out(value, kept[name]) or ([] if isinstance(value, Mapping) else ["all of it"]):
            _process.complain(name, gone)


def should_stop() -> bool:
    """Whether this process has been asked to save a checkpoint and leave with exit code 143. Costs under a microsecond.

    True on one rank does not mean true on all: see the module's text for how they agree. Once true, it stays true.
    """
    return _process.should_stop()


def told_to_end() -> bool:
    """Whether the launcher is ending this process, because another rank has failed or the job is over.

    For what can't wait for the SIGTERM that comes with it, as Python's handlers wait for a call into a library to
    return. SIGKILL follows in seconds.
    """
    return _process.told_to_end()


class _Process:
    """This process's end of the channel to its launcher, opened at the first call; without a launcher, nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened = False
        self._pid: int | None = None
        self._end: ProcessEnd | None = None
        self._values: dict[str, Any] = {}
        self._metrics: dict[str, float] = {}
        self._complained: set[str] = set()

    def should_stop(self) -> bool:
        end = self._open()
        if end is None:
            return False
        # Only now: a script that reports but never asks needs a SIGTERM to learn that it is to stop. And each time, for
        # another process of this rank may have asked since, and be gone.
        if self._pid is None:
            self._pid = _pid_for_launcher()
        end.attach(self._pid)
        return end.stop_asked()

    def told_to_end(self) -> bool:
        end = self._open()
        return end is not None and end.end_told()

    def report(self, raw: dict[str, Any]) -> None:
        end = self._open()
        # Never for long: another thread holds it for microseconds; a signal handler inside report() gives up.
        if end is None or not self._lock.acquire(timeout=0.05):
            return
        try:
            values = progress.clean(raw)
            for name, value in values.pop("metrics", {}).items():
                if name in self._metrics or len(self._metrics) < progress.MAX_METRICS:
                    self._metrics[name] = value
            self._values.update(values)
            if "step" not in self._values:
                return
            whole = {**self._values, "reportedAt": time.time()}
            if self._metrics:
                whole["metrics"] = self._metrics
            end.write(whole)
        finally:
            self._lock.release()

    def complain(self, name: str, gone: list[str]) -> None:
        """Say, once for each document, what of it the job will not show."""
        if self._open() is None or name in self._complained:
            return
        self._complained.add(name)
        with contextlib.suppress(Exception):
            sys.stderr.write(
                f"edgecloud.worker.publish: {name}: left out: {', '.join(gone)[:500]}. The job shows JSON of at most "
                f"{progress.MAX_DEPTH} levels and {progress.MAX_DOCUMENT} bytes; write it into a file in results_dir\n"
            )

    def after_fork(self) -> None:
        """A child (a data loader's worker) must not wait for a lock that a thread of its parent held."""
        self._lock = threading.Lock()
        self._pid = None

    def _open(self) -> ProcessEnd | None:
        if not self._opened:
            self._opened = True
            path = os.environ.get("EDGECLOUD_CHANNEL")
            if path:
                with contextlib.suppress(OSError, ValueError):
                    self._end = ProcessEnd(path)
        return self._end


def _pid_for_launcher() -> int:
    """This process's id; 0 in a container within the worker's own, where the launcher would look for another one."""
    told, own = os.environ.get("EDGECLOUD_PID_NAMESPACE"), pid_namespace()
    return 0 if told and own and told != own else os.getpid()


_process = _Process()
os.register_at_fork(after_in_child=_process.after_fork)
