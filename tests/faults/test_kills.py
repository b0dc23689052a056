"""kill -9 of everything that can be killed, one at a time, in mid-training."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud_operator.core.plan import Event
from edgecloud_operator.local import LocalRun, Workdir, prepare
from tests.e2e.local import Run, job_dict, program, run
from tests.e2e.test_local_run import steps_in_order

JOB = job_dict("kills", program("counts", 150))


def goes_on(job: Run, *, restarts: int = 1) -> None:
    assert job.end() == 0, job.output()
    assert job.status.phase == "Succeeded"
    assert job.status.restarts == restarts
    steps_in_order(job, ranks=2)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_training_process(tmp_path: Path, rank: int) -> None:
    with run(tmp_path / "work", JOB) as job:
        job.wait_steps(15)
        job.rank(rank).send_signal(signal.SIGKILL)
        goes_on(job)
        failure = job.status.last_failure
        assert failure is not None
        assert (failure.worker, failure.rank, failure.signal) == (rank, rank, "SIGKILL")
        assert (failure.reason, failure.round) == ("Killed", 1)
        # The launchers are the ones that were there before: processes were restarted, not workers.
        assert f"worker {rank} rank {rank}: SIGKILL in round 1" in job.stderr()


@pytest.mark.parametrize("worker", [0, 1])
def test_a_launcher(tmp_path: Path, worker: int) -> None:
    with run(tmp_path / "work", JOB) as job:
        job.wait_steps(15)
        job.launcher(worker).send_signal(signal.SIGKILL)
        goes_on(job)
        failure = job.status.last_failure
        assert failure is not None
        assert (failure.worker, failure.rank, failure.signal) == (worker, worker, "SIGKILL")
        assert failure.reason == "PodLost"


def test_both_processes_one_after_the_other(tmp_path: Path) -> None:
    with run(tmp_path / "work", JOB) as job:
        for rank in (0, 1):
            job.wait_steps(10, round=1 + rank)
            job.rank(rank, round=1 + rank).send_signal(signal.SIGKILL)
        goes_on(job, restarts=2)
        assert job.status.last_failure and job.status.last_failure.rank == 1


def test_both_processes_at_once_are_one_failure(tmp_path: Path) -> None:
    with run(tmp_path / "work", JOB) as job:
        job.wait_steps(10)
        for process in (job.rank(0), job.rank(1)):
            process.send_signal(signal.SIGKILL)
        goes_on(job)


def test_both_launchers_at_once_are_one_failure(tmp_path: Path) -> None:
    with run(tmp_path / "work", JOB) as job:
        job.wait_steps(10)
        for process in (job.launcher(0), job.launcher(1)):
            process.send_signal(signal.SIGKILL)
        assert job.end() == 0, job.output()
        assert job.status.restarts in (1, 2), "two Pods that die an instant apart may be seen one after the other"
        steps_in_order(job, ranks=2)


def test_a_launcher_asked_to_leave_costs_nothing(tmp_path: Path) -> None:
    """SIGTERM to one worker, of which no deletion tells: all stop at a checkpoint, and go on with a new Pod, unpaid."""
    with run(tmp_path / "work", JOB) as job:
        job.wait_steps(15)
        job.launcher(1).send_signal(signal.SIGTERM)
        goes_on(job, restarts=0)
        assert job.status.last_failure is not None and job.status.last_failure.exit_code == 143
        assert job.status.rendezvous and job.status.rendezvous.round == 2
        for rank in (0, 1):  # not a step was done twice
            steps = [line["step"] for line in job.trace() if line["rank"] == rank]
            assert steps == list(range(1, 151))


def test_budget_comes_back_with_checkpoints(tmp_path: Path) -> None:
    job_with_one = job_dict("budget", program("counts", 120), restartPolicy={"maxRestarts": 1})
    with run(tmp_path / "work", job_with_one) as job:
        for round in (1, 2, 3):
            job.wait_steps(8, round=round)
            job.rank(round % 2, round=round).send_signal(signal.SIGKILL)
        goes_on(job, restarts=3)


class _Silent:
    def show(self, job: TrainingJob) -> None:
        """Nothing to show."""

    def event(self, event: Event) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Nothing to show."""


def test_the_operator_part_is_killed_and_comes_back(tmp_path: Path) -> None:
    """As an operator's restart in a cluster: the training does not pause, and no round is spent."""
    workdir = Workdir(tmp_path / "work")
    workdir.prepare()
    job, _ = prepare(TrainingJob.parse(job_dict("operator", program("counts", 400))), workdir, None)
    trace = Run(process=None, folder=workdir.path)  # type: ignore[arg-type]

    async def scenario() -> tuple[int, int]:
        local = LocalRun(job, workdir, _Silent())
        running = asyncio.create_task(local.run())
        await asyncio.to_thread(trace.wait_steps, 20)
        await local.kill_controller()
        at_kill = len(trace.trace())
        # Steps go on while there is no coordinator at all.
        await asyncio.to_thread(trace.wait_steps, at_kill // 2 + 40)
        while_away = len(trace.trace())
        await local.start_controller()
        ended = await asyncio.wait_for(running, 60)
        assert ended.exit_code == 0, ended.job.status
        status = ended.job.status
        assert status is not None and status.rendezvous is not None
        assert (status.phase, status.restarts, status.rendezvous.round) == ("Succeeded", 0, 1)
        return at_kill, while_away

    at_kill, while_away = asyncio.run(scenario())
    assert while_away >= at_kill + 40
    lines = trace.trace()
    assert {line["round"] for line in lines} == {1}
    assert len({line["pid"] for line in lines}) == 2, "the processes are the same from first to last"
