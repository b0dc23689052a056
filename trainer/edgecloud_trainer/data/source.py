"""A place that images come from: what it is called, what it depends on, and how it is read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from edgecloud_trainer.data.dataset import Contents, DataError, Progress
from edgecloud_trainer.data.layout import is_clutter

MAX_FILES: Final = 50_000_000
_MAX_DEPTH: Final = 8


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images that can be read."""

    name: str
    key: str
    """Of everything that decides what is read: another key, other images."""
    read: Callable[[Path, Progress], Contents]
    """Called with an empty folder for scratch files. Raises DataError."""
    test_fraction: float = 0.1
    """What is held back for the test if the source has no test images."""


class File(NamedTuple):
    """A file as its folder lists it."""

    name: str
    """Path below the folder, with /."""
    size: int
    mtime_ns: int


def key_of(kind: str, where: Path, files: Iterable[File]) -> str:
    """The key of a source that consists of these files."""
    digest = hashlib.sha256(f"{kind}\n{where.resolve()}\n".encode(errors="surrogateescape"))
    for file in files:
        digest.update(f"{file.name}\0{file.size}\0{file.mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:40]


def files_below(root: Path) -> list[File]:
    """All files below a folder but for clutter, sorted by name; links are followed.

    Raises:
        DataError: a folder can't be listed, is too deep (a link that leads back up?), or there are too many files.
    """
    files: list[File] = []
    try:
        for file in _walk(os.fspath(root), "", 0):
            files.append(file)
            if len(files) > MAX_FILES:
                raise DataError(f"{root} holds more than {MAX_FILES} files: split it")
    except OSError as error:
        raise DataError(
            f"{error.filename or root} can't be read ({error.strerror or error}): check it and its rights"
        ) from error
    return sorted(files)


def _walk(folder: str, prefix: str, depth: int) -> Iterator[File]:
    if depth > _MAX_DEPTH:
        raise DataError(f"{folder} is more than {_MAX_DEPTH} folders deep: is there a link that leads back up?")
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_clutter(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", depth + 1)
            else:
                status = entry.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise DataError(f"{entry.path} is a device, a socket or a pipe: take it out")
                yield File(prefix + entry.name, status.st_size, status.st_mtime_ns)


def read_file(path: Path, limit: int) -> bytes:
    """A whole file of at most `limit` bytes.

    Raises:
        DataError: it is larger, or can't be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error
    if len(data) > limit:
        raise DataError(f"{path} has more than {limit} bytes: take it out, or make it smaller")
    return data
