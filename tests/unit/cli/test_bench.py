"""`edgecloud bench`: what it refuses before it runs anything, and what it makes of a run's end. Runs: tests/e2e."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgecloud.api.job import TrainingJob
from edgecloud.cli.bench import Measured, NoSpeedError, compared, ended, figures
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
            ["--workers 1: spec.workers: exactly one of workers and pools is needed: write workers: 2, or pools:"],
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


def test_sizes_are_compared_with_the_smallest() -> None:
    found = [
        Measured(workers=n, samples_per_second=s, communication_fraction=None, data_fraction=None, accuracy=None)
        for n, s in ((4, 300.0), (2, 200.0))
    ]
    assert [(one.speedup, one.efficiency) for one in compared(found)] == [(1.5, 0.75), (1.0, 1.0)]
    assert json.dumps([one.speedup for one in compared(found[1:])]) == "[1.0]"
