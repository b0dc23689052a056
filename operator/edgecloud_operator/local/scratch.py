"""The folder of a run for what only its workers need, tokens among it: gone with the run, or else with a later one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "edgecloud-run-"
LOCK: Final = "lock"
"""The file in it that its run holds; the kernel lets go of it when the run ends, however that comes."""
SWEEP_SECONDS: Final = 0.25
"""What a run spends at most on what others left: it is not what was asked for, and the next one goes on with it."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder in the machine's temporary one, and nobody else's business."""
    sweep(Path(tempfile.gettempdir()))
    folder, lock = _locked()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(folder / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: nobody may take it for one that was left
            (folder / LOCK).unlink()
            return folder, lock
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)  # somebody swept between the two


def sweep(place: Path, seconds: float = SWEEP_SECONDS) -> None:
    """Remove our own user's folders there whose runs were killed. What can't be removed, or told, is left."""
    deadline = time.monotonic() + seconds
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if time.monotonic() > deadline:
                return
            if entry.name.startswith(PREFIX):
                with suppress(OSError):
                    _remove_left(entry.path)


def _remove_left(path: str) -> None:
    """Remove a folder unless its run lives. Without a lock in it nobody can say: it may be just being made.

    Raises:
        OSError: it is no folder, or it is held, or it can't be looked at.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(folder).st_uid != os.geteuid():
            return
        lock = os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                shutil.rmtree(path, ignore_errors=True)  # held until it is gone: who made it just now sees that
        finally:
            os.close(lock)
    finally:
        os.close(folder)
