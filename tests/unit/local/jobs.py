"""Jobs for a local run, in few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud_operator.local import Workdir


def make_job(
    name: str = "digits", *, metadata: dict[str, Any] | None = None, status: Any = None, **spec: Any
) -> TrainingJob:
    """A job of two workers with a script, or as the fields of spec (in camelCase) say; None takes a field away."""
    fields: dict[str, Any] = {"workers": 2, "program": {"command": ["python", "train.py"]}} | spec
    resource: dict[str, Any] = {
        "apiVersion": "edgecloud.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name} | (metadata or {}),
        "spec": {field: value for field, value in fields.items() if value is not None},
    }
    return TrainingJob.parse(resource | ({"status": status} if status else {}))


def made(path: Path) -> Workdir:
    """A folder that is ready for a run."""
    workdir = Workdir(path)
    workdir.prepare()
    return workdir
