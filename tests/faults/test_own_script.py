"""An ordinary DDP script whose processes and workers are killed in turn: it goes on from its own checkpoint."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.e2e.jobs import own_script
from tests.e2e.local import Run, run, wait_for

EVERY = 25
"""Steps between two checkpoints of the script."""


def step(job: Run) -> int:
    progress = job.status.progress
    return (progress.step or 0) if progress else 0


def past_a_checkpoint(job: Run, round: int) -> int:
    """Wait until the round has written a checkpoint of its own and done steps after it; the step it is at."""

    def saved() -> int:
        return (job.status.checkpoint.step or 0) if job.status.checkpoint else 0

    def opened() -> bool:
        rendezvous = job.status.rendezvous
        return rendezvous is not None and rendezvous.round == round

    def look() -> bool:
        assert opened(), job.output()
        return step(job) > saved() > inherited

    wait_for(f"round {round}", opened, within=60, seen=lambda: (job.status, job.output()))
    # The status still tells of the round before: only a newer checkpoint is this round's.
    inherited = saved()
    wait_for(f"steps past a checkpoint in round {round}", look, within=120, seen=lambda: (job.status, job.output()))
    return step(job)


def test_killed_in_turn(tmp_path: Path) -> None:
    with run(tmp_path / "work", own_script(epochs=12)) as job:
        reached = [past_a_checkpoint(job, 1)]
        job.rank(0).send_signal(signal.SIGKILL)
        reached.append(past_a_checkpoint(job, 2))
        assert job.status.last_failure is not None
        failure = job.status.last_failure
        assert (failure.worker, failure.rank, failure.signal, failure.reason) == (0, 0, "SIGKILL", "Killed")
        job.launcher(1).send_signal(signal.SIGKILL)
        assert job.end(within=240) == 0, job.output()
        status = job.status
        assert (status.phase, status.restarts) == ("Succeeded", 2)
        assert status.last_failure
        assert (status.last_failure.worker, status.last_failure.rank) == (1, 1)
        assert status.last_failure.reason == "PodLost"
        assert status.progress and status.progress.accuracy and status.progress.accuracy >= 0.95
        # The script says where it goes on, and it is at its newest checkpoint: no step further back than one interval.
        said = (tmp_path / "work/logs/worker-0.log").read_text()
        resumed = [int(found) for found in re.findall(r"going on after step (\d+)", said)]
        assert len(resumed) == 2
        assert all(after % EVERY == 0 for after in resumed)
        assert all(after >= at - EVERY for after, at in zip(resumed, reached, strict=True)), (resumed, reached)
