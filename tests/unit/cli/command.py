"""The `edgecloud` command as a user has it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

EDGECLOUD: Final = str(Path(sys.executable).with_name("edgecloud"))
ROOT: Final = Path(__file__).parents[3]
PROGRAMS: Final = ROOT / "tests" / "faults" / "programs"


def run_edgecloud(*arguments: str | Path, stdin: str | None = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [EDGECLOUD, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **({"input": stdin} | options)
    )


def job_file(path: Path, name: str = "digits", **spec: Any) -> Path:
    """A file with a job that is right, unless the fields of spec are wrong."""
    fields: dict[str, Any] = {"workers": 1, "program": {"command": ["python", "-c", "pass"]}} | spec
    resource = {
        "apiVersion": "edgecloud.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {field: value for field, value in fields.items() if value is not None},
    }
    path.write_text(yaml.safe_dump(resource))
    return path


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("_EDGECLOUD")} | more
