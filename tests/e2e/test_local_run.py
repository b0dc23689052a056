"""A job's whole life in `edgecloud run`: done, stopped, resumed, changed, printed."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from edgecloud.api.job import TrainingJob
from tests.e2e.local import EDGECLOUD, ROOT, Run, job_dict, program, run


def steps_in_order(run: Run, ranks: int) -> None:
    """Each rank has done each step once, but for those that a kill cut off before their checkpoint."""
    for rank in range(ranks):
        steps = [line["step"] for line in run.trace() if line["rank"] == rank]
        assert steps == sorted(steps), rank
        assert set(steps) == set(range(1, max(steps) + 1)), rank


def test_the_whole_job(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("whole", program("counts", 50)), "-o", "json") as job:
        assert job.end() == 0, job.output()
        printed = TrainingJob.parse(json.loads(job.stdout()))  # and nothing else on standard output
        assert printed.status == job.status
        status = job.status
        assert status.phase == "Succeeded"
        assert status.restarts == 0
        assert status.progress and (status.progress.percent, status.progress.step) == (100.0, 50)
        assert status.rendezvous and [m.index for m in status.rendezvous.members] == [0, 1]
        assert status.checkpoint and status.checkpoint.step == 50
        assert status.summary and status.summary.workers == "2/2"
        assert "rank 1 is done" in (tmp_path / "work/logs/worker-1.log").read_text()
        steps_in_order(job, ranks=2)


def test_a_finished_job_says_so_and_starts_nothing(tmp_path: Path) -> None:
    job = job_dict("finished", program("counts", 3))
    with run(tmp_path / "work", job) as first:
        assert first.end() == 0, first.output()
        before = first.trace()
    with run(tmp_path / "work", job) as again:
        assert again.end() == 0
        assert "the job is finished" in again.stderr()
        assert "Succeeded" in again.stdout()
        assert again.trace() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_stopped_with_a_checkpoint_and_resumed(tmp_path: Path, number: signal.Signals, code: int) -> None:
    job = job_dict("stopped", program("counts", 150))
    with run(tmp_path / "work", job) as first:
        first.wait_steps(20)
        first.process.send_signal(number)
        assert first.end(within=15) == code, first.output()
        assert first.status.phase == "Suspended"
        assert first.status.restarts == 0
        stopped_at = {line["rank"]: line["step"] for line in first.trace()}
        assert "the same command goes on from there" in first.stderr()
    with run(tmp_path / "work", job) as second:
        assert second.end() == 0, second.output()
        assert (second.status.phase, second.status.restarts) == ("Succeeded", 0)
        assert second.status.rendezvous and second.status.rendezvous.round == 2
        steps_in_order(second, ranks=2)
        # Exactly the next step: nothing was done twice.
        for rank, step in stopped_at.items():
            assert next(x["step"] for x in second.trace() if (x["rank"], x["round"]) == (rank, 2)) == step + 1


@pytest.mark.parametrize("option", ["--output=table", "--quiet"])
def test_stopped_with_a_checkpoint_though_nobody_reads(tmp_path: Path, option: str) -> None:
    """`edgecloud run job.yaml 2>&1 | tee log`: Ctrl-C ends tee first."""
    with run(tmp_path / "work", job_dict("unread", program("counts", 100_000)), option, unread=True) as job:
        job.wait_steps(3)
        job.process.send_signal(signal.SIGINT)
        assert job.end(within=15) == 130
        assert job.status.phase == "Suspended"
        assert "rank 1 stops after step" in (tmp_path / "work/logs/worker-1.log").read_text()


def test_under_nohup_it_outlives_its_terminal(tmp_path: Path) -> None:
    job = job_dict("kept", program("counts", 100_000))
    with run(tmp_path / "work", job, under=["nohup"]) as kept:
        kept.wait_steps(3)
        kept.process.send_signal(signal.SIGHUP)
        kept.wait_steps(len(kept.trace()) + 3, ranks=2)
        assert kept.process.poll() is None and "SIGHUP" not in kept.stderr()
        kept.process.send_signal(signal.SIGTERM)
        assert kept.end(within=15) == 143, kept.output()


def test_twice_asked_it_stops_at_once(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("twice", program("ignores_sigterm"))) as job:
        job.wait_phase("Running")
        job.rank(1)
        job.process.send_signal(signal.SIGINT)
        job.wait_for_text("SIGINT: stopping")
        job.process.send_signal(signal.SIGINT)
        assert job.end(within=15) == 130, job.output()


def test_killed_itself_it_leaves_nothing_and_can_go_on(tmp_path: Path) -> None:
    job = job_dict("killed", program("counts", 100))
    with run(tmp_path / "work", job) as first:
        first.wait_steps(20)
        first.process.kill()
        assert first.end() == -signal.SIGKILL
        assert first.left() == []
    with run(tmp_path / "work", job) as second:
        assert second.end() == 0, second.output()
        assert second.status.restarts == 0, "that the run was killed is no failure of the program's"
        steps_in_order(second, ranks=2)


def test_another_number_of_workers(tmp_path: Path) -> None:
    job = job_dict("resized", program("counts", 120))
    with run(tmp_path / "work", job, "--workers", "1") as first:
        first.wait_steps(10, ranks=1)
        first.process.send_signal(signal.SIGTERM)
        assert first.end() == 143
    with run(tmp_path / "work", job, "--workers", "3") as second:
        assert second.end() == 0, second.output()
        assert {line["world_size"] for line in second.trace() if line["round"] > 1} == {3}
        assert second.status.workers and second.status.workers.desired == 3


def test_a_changed_program_is_another_training(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("changed", program("counts", 3))) as first:
        assert first.end() == 0
    with run(tmp_path / "work", job_dict("changed", program("counts", 4))) as second:
        assert second.end() == 2
        assert "spec.program has changed" in second.stderr()
        assert "--fresh" in second.stderr()
    with run(tmp_path / "work", job_dict("changed", program("counts", 4)), "--fresh") as third:
        assert third.end() == 0, third.output()
        assert max(line["step"] for line in third.trace()) == 4
        assert len(list(tmp_path.glob("work.2*"))) == 1, "the earlier run is kept"


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    job = job_dict("locked", program("counts", 1000))
    with run(tmp_path / "work", job) as first:
        first.wait_phase("Running")
        command = [str(EDGECLOUD), "run", str(tmp_path / "work.yaml"), "--workdir", str(tmp_path / "work")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 2
        assert f"(process {first.process.pid})" in second.stderr


def test_progress_in_plain_lines(tmp_path: Path) -> None:
    colours = {"FORCE_COLOR": "1"}  # as GitHub Actions has it; no terminal for all that
    with run(tmp_path / "work", job_dict("plain", program("counts", 20)), env=colours) as job:
        assert job.end() == 0
        assert "\x1b" not in job.stderr()
        assert "RoundOpened: round 1 with 2 workers" in job.stderr()
        columns = "NAME PHASE WORKERS PROGRESS ETA LOSS RESTARTS ACCURACY SAMPLES/S ROUND REASON AGE"
        assert " ".join(job.stdout().splitlines()[0].split()) == columns
        assert job.stderr().splitlines()[-1].startswith("results: ")


def test_quiet_and_yaml(tmp_path: Path) -> None:
    with run(tmp_path / "work", job_dict("quiet", program("counts", 5)), "-q", "-o", "yaml") as job:
        assert job.end() == 0
        assert TrainingJob.parse(yaml.safe_load(job.stdout())).status == job.status
        assert "RoundOpened" not in job.stderr()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"suspend": True}, "spec.suspend"),
        ({"managedBy": "example.com/other"}, "spec.managedBy"),
        ({"workers": 0}, "spec.workers"),
    ],
)
def test_a_file_that_cannot_run_here(tmp_path: Path, change: dict[str, object], says: str) -> None:
    job = job_dict("unfit", program("counts", 5))
    job["spec"] |= change
    with run(tmp_path / "work", job) as refused:
        assert refused.end() == 2
        assert says in refused.stderr()
        assert not (tmp_path / "work").exists(), "nothing is made for a file that is wrong"


def test_own_script(tmp_path: Path) -> None:
    """The quickstart: real torch.distributed on real data."""
    with run(tmp_path / "work", ROOT / "manifests/examples/own-script.yaml", "-o", "json") as job:
        assert job.end(within=240) == 0, job.output()
        status = TrainingJob.parse(json.loads(job.stdout())).status
        assert status and status.phase == "Succeeded"
        assert status.progress and status.progress.percent == 100.0
        assert status.progress.accuracy is not None and status.progress.accuracy >= 0.95
        assert status.summary and status.summary.accuracy.endswith("%")
        assert status.rendezvous and len(status.rendezvous.members) == 2
        assert status.restarts == 0
        evaluation = json.loads((tmp_path / "work/results/evaluation.json").read_text())
        assert evaluation["accuracy"] == pytest.approx(status.progress.accuracy)
