"""`edgecloud bench`: what it refuses before it runs anything, and what it makes of a run's end. Runs: tests/e2e."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgecloud.api.job import TrainingJob
from edgecloud.cli.bench import Measured, NoSpeedError, Runs, bench, compared, ended, figures
from edgecloud.cli.main import cli
from tests.unit.cli.command import job_file

TRAINER = {"data": {"name": "digits"}, "shards": 2}
PROGRAM = {"command": ["python"]}


@pytest.mark.parametrize(
    ("spec", "sizes", "says"),
    [
        (
            {"program": None, "trainer": TRAINER},
            "1,2,3,4",
            [
                "--workers 3: spec.trainer.shards: there are more training processes than shards (3 processes,"
                " 2 shards): write shards of at least workers times",
                "--workers 4: spec.trainer.shards: ",
            ],
        ),
        (
            {"workers": None, "pools": [{"name": "a", "workers": 1}]},
            "1",
            ["--workers 1: spec.workers: this job has pools, and their workers are counted there: leave --workers"],
        ),
        ({"workers": 2, "minWorkers": 2}, "2,1", ["--workers 1: spec.minWorkers: minWorkers is above"]),
        ({"suspend": True}, "1", ["spec.suspend: the job is suspended: write suspend: false"]),
    ],
    ids=["shards", "pools", "minWorkers", "suspended"],
)
def test_what_cannot_run_is_said_before_anything_does(
    tmp_path: Path, spec: dict[str, Any], sizes: str, says: list[str]
) -> None:
    file = job_file(tmp_path / "a.yaml", **spec)
    done = CliRunner().invoke(cli, ["bench", str(file), "--workers", sizes, "--workdir", str(tmp_path / "work")])
    assert (done.exit_code, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == len(says)
    assert all(text in line for text, line in zip(says, lines, strict=True)), done.stderr
    assert not (tmp_path / "work").exists()


def finished(status: dict[str, Any], **spec: Any) -> TrainingJob:
    head = {"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "a"}}
    return TrainingJob.parse(head | {"spec": {"workers": 2} | spec, "status": status})


WARM = {"progress": {"samplesPerSecond": 900.0, "accuracy": 0.5}}
"""As after a few steps: the newest speed is one of allocators and kernels that warm up."""


def test_a_trainer_that_was_too_short_is_not_measured() -> None:
    with pytest.raises(NoSpeedError, match=r"^trainer\.epochs: .* \(3 steps, .*\): write more epochs$") as raised:
        figures(finished(WARM | {"performance": {"steps": 3, "worldSize": 2, "threads": 1}}, trainer=TRAINER))
    assert raised.value.code == 2
    whole = {"steps": 4, "samplesPerSecond": 500, "communicationFraction": 0.25, "dataFraction": 0.125}
    assert figures(finished(WARM | {"performance": whole}, trainer=TRAINER)) == Measured(
        workers=2, samples_per_second=500.0, communication_fraction=0.25, data_fraction=0.125, accuracy=0.5
    )


def test_a_program_says_its_speed_itself() -> None:
    assert figures(finished(WARM, program=PROGRAM)).samples_per_second == 900.0
    published = WARM | {"performance": {"samplesPerSecond": "fast", "dataFraction": None}}
    assert figures(finished(published, program=PROGRAM)).samples_per_second == 900.0
    with pytest.raises(NoSpeedError, match=r"worker\.report\(samples_per_second=\.\.\.\)"):
        figures(finished({}, program=PROGRAM))
    assert bench.help and "worker.report(samples_per_second=" in bench.help, "before hours were spent"


def test_why_a_run_ended() -> None:
    condition = {
        "type": "Failed", "status": "True", "reason": "BadConfiguration", "message": "worker 0: \x1b[1mwrite more",
        "lastTransitionTime": "2026-01-31T12:00:00Z",
    }  # fmt: skip
    failed = finished({"phase": "Failed", "conditions": [condition]}, program=PROGRAM)
    assert ended(1, failed).startswith("the run ended with exit code 1: worker 0: ")
    assert "\x1b" not in ended(1, failed)
    assert ended(130, finished({"phase": "Suspended"}, program=PROGRAM)) == "the run ended with exit code 130"
    assert ended(2, None) == "the run ended with exit code 2"
    assert ended(-9, None) == "the run was ended by SIGKILL"


COUNTS = """
import os, signal, sys
number = signal.Signals(int(sys.argv[1]))
signal.pthread_sigmask(signal.SIG_BLOCK, {number})
(os.killpg if sys.argv[2] == "group" else os.kill)(int(sys.argv[3]), number)
print(signal.sigwait({number}).name, signal.sigtimedwait({number}, 0.2))
"""
BENCH = f"""
import os, sys
from edgecloud.cli.bench import Runs
with Runs() as runs:
    print(*runs.run([sys.executable, "-c", {COUNTS!r}, *sys.argv[1:], str(os.getpid())]), runs.stopped_by)
"""


@pytest.mark.parametrize(("whom", "number"), [("group", signal.SIGINT), ("process", signal.SIGTERM)])
def test_a_run_is_told_once_what_would_end_the_bench(whom: str, number: signal.Signals) -> None:
    """A terminal tells all of a group, and another program only the process that it has started."""
    done = subprocess.run(
        [sys.executable, "-c", BENCH, str(int(number)), whom],
        capture_output=True, text=True, timeout=30, check=False, start_new_session=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["0", number.name, "None", str(int(number))]


SUCCEEDS = f"""#!{sys.executable} -S
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
assert sys.argv[1:3] == ["-P", "-m"], "files in the user's folder are no part of it"
size = int(sys.argv[sys.argv.index("--workers") + 1])
if size == 2:
    os.kill(os.getppid(), signal.SIGINT)
assert "command:\\n    - python\\n" in sys.stdin.read(), "the job as it was read"
spec = {{"workers": size, "program": {{"command": ["python"]}}}}
job = {{"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob", "metadata": {{"name": "a"}}, "spec": spec}}
print(json.dumps(job | {{"status": {{"phase": "Succeeded", "progress": {{"samplesPerSecond": 100.0 * size}}}}}}))
"""


def test_an_interrupt_is_the_end_though_the_run_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been at its end when it was told."""
    file = job_file(tmp_path / "a.yaml")
    run = tmp_path / "run"
    run.write_text(SUCCEEDS)
    run.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(run))
    arguments = ["bench", "-", "--workers", "1,2,3", "--workdir", str(tmp_path / "work"), "-o", "json"]
    done = CliRunner().invoke(cli, arguments, file.read_bytes())
    assert done.exit_code == 130, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "edgecloud bench: stopped by SIGINT (and not tried: 3); the same command measures all sizes anew"
    )
    kept = json.loads((tmp_path / "work" / "bench.json").read_text())
    assert [(one["workers"], one["samples_per_second"]) for one in kept] == [(1, 100.0), (2, 200.0)]
    assert json.loads(done.stdout) == kept


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Runs() as runs:
            os.kill(os.getpid(), signal.SIGHUP)
            assert runs.run([sys.executable, "-c", "import signal; print(signal.getsignal(1))"])[1] == "1\n"
            assert runs.stopped_by is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sizes_are_compared_with_the_smallest() -> None:
    found = [
        Measured(workers=n, samples_per_second=s, communication_fraction=None, data_fraction=None, accuracy=None)
        for n, s in ((4, 300.0), (2, 200.0))
    ]
    assert [(one.speedup, one.efficiency) for one in compared(found)] == [(1.5, 0.75), (1.0, 1.0)]
    assert json.dumps([one.speedup for one in compared(found[1:])]) == "[1.0]"
