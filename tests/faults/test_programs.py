"""Programs that misbehave: each ends as it should, with a failure that a person can act on, and leaves nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil

from edgecloud.api.status import LastFailure
from tests.e2e.local import Run, job_dict, program, run, wait_for

ONE = {"restartPolicy": {"maxRestarts": 1}}


def failed(job: Run, code: int = 1) -> LastFailure:
    assert job.end() == code, job.output()
    assert job.status.phase == "Failed"
    failure = job.status.last_failure
    assert failure is not None
    assert "failed: " in job.stderr()
    return failure


def reason(job: Run) -> str:
    return next(c.reason for c in job.status.conditions if c.type == "Failed")


def test_exit_1_uses_the_budget_up(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("one", program("exits_one"), restartPolicy={"maxRestarts": 2})) as job:
        failure = failed(job)
        assert (failure.reason, failure.exit_code, failure.signal) == ("ProgramError", 1, None)
        assert job.status.restarts == 2
        assert job.status.rendezvous and job.status.rendezvous.round == 3
        assert reason(job) == "RestartBudgetExceeded"
        assert "maxRestarts" in job.stderr()


def test_exit_2_ends_at_once(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("two", program("exits_two"))) as job:
        failure = failed(job)
        assert (failure.reason, failure.exit_code) == ("BadConfiguration", 2)
        assert job.status.restarts == 0
        assert reason(job) == "BadConfiguration"


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("nothing", ["no-such-program"])) as job:
        failure = failed(job)
        assert failure.reason == "StartFailed"
        assert "no-such-program" in failure.message
        assert job.status.restarts == 0


def test_segmentation_fault(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("segfault", program("segfault"), **ONE)) as job:
        failure = failed(job)
        assert (failure.reason, failure.signal, failure.exit_code) == ("Killed", "SIGSEGV", None)
        assert job.status.restarts == 1


def test_out_of_memory(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("memory", program("out_of_memory"), **ONE)) as job:
        failure = failed(job)
        assert failure.reason == "OutOfMemory"
        assert "MemoryError" in failure.message


def test_torch_out_of_memory(tmp_path: Path) -> None:
    none = {"maxRestarts": 0}
    with run(
        tmp_path / "work", job_dict("torch", program("out_of_memory_torch"), workers=1, restartPolicy=none)
    ) as job:
        assert failed(job).reason == "OutOfMemory"
        assert job.status.restarts == 0


def test_a_hang_before_the_first_step(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("hangs", program("hangs"), startDeadlineSeconds=5)) as job:
        assert job.end() == 1, job.output()
        assert job.status.phase == "Failed"
        assert reason(job) == "StartDeadlineExceeded"
        assert "startDeadlineSeconds (5 s)" in job.stderr()
        assert "edgecloud.worker.report" in job.stderr()


def test_a_job_that_takes_too_long(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("long", program("counts", 10000), activeDeadlineSeconds=3)) as job:
        assert job.end() == 1, job.output()
        assert reason(job) == "ActiveDeadlineExceeded"


def test_more_output_than_is_kept(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("loud", program("prints_gigabyte", 2**28), workers=1)) as job:
        assert job.end() == 0, job.output()
        logs = list((tmp_path / "work/logs").iterdir())
        assert sum(log.stat().st_size for log in logs) < 25 * 1024 * 1024
        assert "prints_gigabyte: done" in (tmp_path / "work/logs/worker-0.log").read_text()


def test_a_daemon_does_not_outlive_the_job(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("daemon", program("forks_child"))) as job:
        assert job.end() == 0, job.output()
        daemons = [int(file.read_text()) for file in (tmp_path / "work/checkpoints").glob("daemon-*.pid")]
        assert len(daemons) == 2
        assert not [pid for pid in daemons if psutil.pid_exists(pid)]


def test_a_program_that_will_not_stop(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("stubborn", program("ignores_sigterm"), stopGraceSeconds=2)) as job:
        job.wait_phase("Running")
        wait_for("a step", lambda: job.status.progress and job.status.progress.step)
        job.process.send_signal(signal.SIGTERM)
        assert job.end(within=20) == 143, job.output()
        assert job.status.phase == "Suspended"
