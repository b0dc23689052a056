"""Names in the checkpoints folder, and whose they are.

    step-120/               a finished checkpoint
    .step-120.3.4711/       being written for step 120 by process 4711 of round 3, or left by it when it was killed
    .step-120.3.4711.old1/  moved aside by that process, to be removed or replaced
    done.json               the marker of a finished job
    .done.3.4711            the same, being written

Anything else is not ours and is never touched.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DONE: Final = "done.json"

_FINISHED = re.compile(r"step-(0|[1-9][0-9]{0,17})")
_TEMPORARY = re.compile(r"\.(?:step-([0-9]{1,18})|done)\.([0-9]{1,18})\.([0-9]{1,18})(?:\.old[0-9]{1,9})?")

_CLOCK_SLACK = 2.0
"""Seconds that the clocks of a file server and of this machine may differ."""


@dataclass(frozen=True)
class Finished:
    """A checkpoint under its own name."""

    path: Path
    step: int


@dataclass(frozen=True)
class Temporary:
    """Something that a process of this round is writing, or has left."""

    path: Path
    step: int | None
    """None for a done marker."""
    round: int
    pid: int


def parsed(path: Path) -> Finished | Temporary | None:
    """What the name of this entry says, or None if it is not ours."""
    if found := _FINISHED.fullmatch(path.name):
        return Finished(path, int(found[1]))
    if found := _TEMPORARY.fullmatch(path.name):
        return Temporary(path, int(found[1]) if found[1] else None, int(found[2]), int(found[3]))
    return None


def finished(folder: Path, step: int) -> Path:
    """Where the checkpoint of this step stands."""
    return folder / f"step-{step}"


def temporary(folder: Path, step: int, round: int) -> Path:
    """Where this process writes it first."""
    return folder / f".step-{step}.{round}.{os.getpid()}"


def aside(folder: Path, step: int, round: int) -> Path:
    """Where this process moves what stands in its way: a name that is free, for what has one may still be needed."""
    for number in itertools.count(1):
        path = folder / f".step-{step}.{round}.{os.getpid()}.old{number}"
        if not os.path.lexists(path):
            break
    return path


def temporary_done(folder: Path, round: int) -> Path:
    """Where this process writes the done marker first."""
    return folder / f".done.{round}.{os.getpid()}"


def is_written(entry: Temporary) -> bool:
    """Whether another process of this machine may still be writing it.

    Worker Pods count their processes from 1, so the number alone says little: the same one is likely to be taken by the
    very process that comes after. Hence a process that is younger than the entry didn't write it. A writer on another
    machine is not seen; in the same round there is none, and one of a lower round may not win anyhow.
    """
    if entry.pid == os.getpid():
        return False
    try:
        after_name = Path(f"/proc/{entry.pid}/stat").read_text().rpartition(")")[2].split()
        changed = entry.path.lstat().st_mtime
    except (FileNotFoundError, ProcessLookupError):
        return False
    if after_name[0] in "ZX":
        return False
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return age + _CLOCK_SLACK >= time.time() - changed
