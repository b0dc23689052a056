"""The examples are what newcomers start from: each is right, whole, and speaks of itself by its own name."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud.validation import validate_bytes, validate_files

FOLDER = Path(__file__).parents[3] / "manifests" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {"own-script.yaml", "digits.yaml", "cifar10.yaml", "cifar10-gpu.yaml"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_right(path: Path) -> None:
    (result,) = validate_files([path], TrainingJob)
    assert not result.problems
    (job,) = result.jobs
    assert job.metadata.name == path.stem
    assert f"kubectl apply -f manifests/examples/{path.name}" in path.read_text()


def test_the_quickstart_can_be_made_deterministic_by_one_line() -> None:
    text = (FOLDER / "digits.yaml").read_text()
    changed = text.replace("\n  trainer:\n", "\n  trainer:\n    deterministic: true\n")
    assert "deterministic: true\n    model" in changed
    result = validate_bytes(changed.encode(), "changed.yaml", TrainingJob)
    assert not result.problems
    trainer = result.jobs[0].spec.trainer
    assert trainer is not None
    assert trainer.deterministic
