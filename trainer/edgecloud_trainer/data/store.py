"""Decoded images in a cache folder: written once however many processes start at once, whoever of them dies.

A lock file keeps the others waiting while one writes; the kernel drops the lock of a process that is killed, and the
next one goes on with what that has decoded. The file is written beside its place, flushed and renamed, so that it is
either whole or not there. Where the file system has no locks each process decodes for itself.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edgecloud_trainer.data.dataset import Contents, DataError, TransferError
from edgecloud_trainer.data.imagefile import SUFFIX, ImageFileError, Stored, open_images, write
from edgecloud_trainer.data.locking import locked, take
from edgecloud_trainer.data.manifest import Provenance
from edgecloud_trainer.data.observer import Observer, Stage

PARTIAL: Final = ".partial"
"""The suffix of the folder where a file is made."""
_IMAGES: Final = "images"
_OWN: Final = f".own{PARTIAL}"
"""The suffix of a folder that one process made for itself, without a lock."""
_GIVEN_UP_SECONDS: Final = 3600
"""Without a word written, and without a process that holds the lock: until then it may be gone on with."""
_DEAD_SECONDS: Final = 86400
"""Likewise, where no lock tells whether its process lives."""


def stored(cache: Path, key: str, read: Callable[[Path], tuple[Contents, Provenance]], observer: Observer) -> Stored:
    """The images under a key: from the cache, or read now and put there.

    Args:
        cache: the folder; made if it isn't there.
        key: of everything that the images depend on.
        read: gives the images; called under the lock, with a scratch folder that may hold what a killed process left.
        observer: is told how far it is.

    Raises:
        DataError: the cache can't be written, or `read` says so.
    """
    path = cache / f"{key}{SUFFIX}"
    if (found := cached(cache, key)) is not None:
        return found
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{key}.lock", lambda: observer.stage(Stage("waiting"))) as held:
            if (found := cached(cache, key)) is not None:
                return found
            with working(cache / f"{key}{PARTIAL}" if held else _own(cache, key, observer)) as scratch:
                write(scratch / _IMAGES, *read(scratch), observer)
                (scratch / _IMAGES).rename(path)
                flush_folder(cache)
        _sweep(cache)
    except OSError as error:
        raise unwritable(f"the data cache {cache}", error) from error
    if (found := cached(cache, key)) is None:
        raise DataError(f"{path} was written and can't be read back: check the disk it is on")
    return found


def _sweep(cache: Path) -> None:
    """Take away what processes have left that were killed and that nobody has gone on with: their source is another
    by now, or isn't wanted any more."""
    for left in cache.glob(f"*{PARTIAL}"):
        with suppress(OSError):
            age = time.time() - _touched(left)
            if left.name.endswith(_OWN):
                if age > _DEAD_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
                continue
            with (cache / f"{left.name.removesuffix(PARTIAL)}.lock").open("r+") as lock:
                if age > _GIVEN_UP_SECONDS and take(lock):
                    shutil.rmtree(left, ignore_errors=True)


def _touched(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _own(cache: Path, key: str, observer: Observer) -> Path:
    """A new folder for this process alone, where no lock keeps the others out of the common one."""
    observer.note(f"{cache} is on a file system without locks: each process that starts meanwhile reads the images too")
    return Path(tempfile.mkdtemp(prefix=f"{key}-", suffix=_OWN, dir=cache))


@contextmanager
def working(scratch: Path) -> Iterator[Path]:
    """A folder for work that may be taken up again: it goes when that is done, or can't be done.

    It stays when the process is killed or stopped by hand, and when a transfer broke off that can be gone on with.
    """
    scratch.mkdir(exist_ok=True)
    try:
        yield scratch
    except TransferError as error:
        if not error.resumable:
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    except Exception:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)


def unwritable(what: str, error: OSError) -> DataError:
    """What to say when something can't be written."""
    remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "give a folder to write to"
    return DataError(f"{what} can't be written ({error.strerror or error}): {remedy}")


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cached(cache: Path, key: str) -> Stored | None:
    """What a cache holds under a key; None if there is nothing, or nothing that is whole."""
    try:
        return open_images(cache / f"{key}{SUFFIX}")
    except (OSError, ImageFileError):
        return None
