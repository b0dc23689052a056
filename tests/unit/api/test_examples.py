"""The examples are what newcomers start from: each is right, whole, and speaks of itself by its own name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud.validation import validate_bytes, validate_files
from edgecloud_operator.core.builders import Settings, build_pod

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


def test_the_data_volume_and_the_secret_in_a_comment_reach_the_worker() -> None:
    text = (FOLDER / "cifar10.yaml").read_text()
    comment = text[text.index("#   podTemplate:") :].partition("#\n")[0]
    changed = text.replace("\n  storage:\n", f"\n{re.sub('(?m)^# ', '', comment)}  storage:\n")
    result = validate_bytes(changed.encode(), "changed.yaml", TrainingJob)
    assert not result.problems
    pod = build_pod(result.jobs[0], 1, "image", Settings())
    (worker,) = pod["spec"]["containers"]
    assert worker["env"][-1]["valueFrom"]["secretKeyRef"]["name"] == "storage"
    mounted = {mount["name"] for mount in worker["volumeMounts"]}
    assert "images" in mounted and mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_quickstart_can_be_made_deterministic_by_one_line() -> None:
    text = (FOLDER / "digits.yaml").read_text()
    changed = text.replace("\n  trainer:\n", "\n  trainer:\n    deterministic: true\n")
    assert "deterministic: true\n    model" in changed
    result = validate_bytes(changed.encode(), "changed.yaml", TrainingJob)
    assert not result.problems
    trainer = result.jobs[0].spec.trainer
    assert trainer is not None
    assert trainer.deterministic
