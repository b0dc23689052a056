"""How the launcher of a local run is started, and why one can't be. Pure."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import edgecloud

_ISOLATED: Final = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); import edgecloud.launcher; del sys.path[0]; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
"""Runs a module of the edgecloud package in this folder, and takes nothing else from there: with python -I neither a
select.py in the user's folder nor the PYTHONPATH of the program is for the launcher, and this is how it finds itself
where EdgeCloud is not installed but on our own PYTHONPATH."""
FINAL: Final = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is no folder, or within none",
    errno.EACCES: "may not be entered, or executed, by this user",
}
"""What no further attempt to start a worker puts right, and what that says of a path."""


def launcher_command(command: Sequence[str]) -> list[str]:
    """What starts a launcher that is to run this command."""
    sources = str(Path(edgecloud.__file__ or "").parents[1])
    return [sys.executable, "-I", "-c", _ISOLATED, sources, "edgecloud.launcher", "--", *command]


def why_not(error: OSError, working_dir: str | None) -> str:
    """Why a process can't be started, with the remedy; the error's number is one of FINAL."""
    path, said = str(error.filename or sys.executable), FINAL[error.errno or 0]
    if path == working_dir:
        return f"spec.program.workingDir: {path} {said}: put it right, or name another folder"
    return f"{path} {said}: put it right, and run it again"
