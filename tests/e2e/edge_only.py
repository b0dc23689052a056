"""A Python that has what the edge extra brings and nothing else, whatever is installed beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.e2e.local import ROOT

ABSENT = (
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "matplotlib",
    "kopf",
    "fsspec",
    "edgecloud_trainer",
    "edgecloud_operator",
)


def required() -> set[str]:
    """Names of the distributions that edgecloud[edge] asks for, and those that they ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"]["edge"]]
    found: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(requirement.name)
        waiting += metadata.requires(requirement.name) or []
    return found


def build(folder: Path) -> Path:
    """Fill a folder with links to these distributions, and to edgecloud."""
    folder.mkdir()
    for name in required():
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    import edgecloud

    (folder / "edgecloud").symlink_to(Path(edgecloud.__file__).parent)
    about = folder / "edgecloud-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: edgecloud\nVersion: 0\n")
    return folder


def run(
    packages: Path, *arguments: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` with the standard library and this folder alone."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    kept |= {"PYTHONPATH": str(packages), **(environment or {})}
    command = [sys.executable, "-S", "-P", *map(str, arguments)]
    return subprocess.run(command, env=kept, capture_output=True, text=True, check=False, timeout=120)
