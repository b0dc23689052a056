"""Checkpoints given their names and taken away again, so that none ever has a name without being whole."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from edgecloud_trainer.checkpoints import files, layout, reader
from edgecloud_trainer.checkpoints.errors import DamagedError, NewerFormatError, SupersededError
from edgecloud_trainer.checkpoints.manifest import MANIFEST


def put(source: Path, folder: Path, *, step: int, round: int) -> Path:
    """Give a finished checkpoint the name of its step, durably; what stands there, of no higher round, goes.

    Where one has to go, there is a moment in which neither has the name. Both are whole then, and `choose` finds them
    under their temporary names. Raises SupersededError, and OSError; the older one is then back in its place.
    """
    target = layout.finished(folder, step)
    if _renamed(source, target):
        files.sync_folder(folder)
        return target
    aside = layout.aside(folder, step, round)
    with contextlib.suppress(FileNotFoundError):
        target.rename(aside)
    try:
        # It may have been put there after the last look, by a process of a higher round.
        if (seen := _round_of(aside)) > round:
            raise SupersededError(str(target), own=round, seen=seen)
        if not _renamed(source, target):
            raise OSError(errno.EEXIST, "another process writes the same checkpoint", str(target))
    except BaseException:
        with contextlib.suppress(OSError):
            aside.rename(target)
        raise
    files.sync_folder(folder)
    remove(aside)
    return target


def take_away(path: Path, folder: Path, *, step: int, round: int) -> None:
    """Remove a checkpoint: out of sight first, so that half of one is never taken for a damaged one. Raises OSError."""
    aside = layout.aside(folder, step, round)
    with contextlib.suppress(FileNotFoundError):  # another process was quicker
        path.rename(aside)
        remove(aside)


def remove(path: Path) -> None:
    """Remove what has a temporary name, if it is there. Raises OSError."""
    files.remove(path, MANIFEST)


def _renamed(source: Path, target: Path) -> bool:
    """Rename a folder; False if something is in the way."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    return True


def _round_of(path: Path) -> int:
    try:
        return reader.read_manifest(path).round
    except NewerFormatError as error:
        return error.round
    except (DamagedError, OSError):
        return 0
