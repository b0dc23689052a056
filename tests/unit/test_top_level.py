"""What lies at the top of the repository is fixed; what a run leaves there is not committed by mistake."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {
    "pyproject.toml", "README.md", "operator", "trainer", "manifests", "charts", "tests", "Dockerfile", "Makefile",
    "LICENSE", "CONTRIBUTING.md",
}  # fmt: skip


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="these sources are no git checkout")
def test_nothing_else_is_committed_there() -> None:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    tops = {name.partition("/")[0] for name in listed.stdout.split("\0")} - {""}
    assert {name for name in tops if not name.startswith(".")} == NAMES
