"""A place that images come from: what it is called, what it depends on, and how it is read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from edgecloud_trainer.data.dataset import PASSING, Contents, DataError, Fault
from edgecloud_trainer.data.files import ImageFiles, Reading
from edgecloud_trainer.data.layout import is_clutter
from edgecloud_trainer.data.manifest import Kind, Origin

MAX_FILES: Final = 50_000_000
_MAX_DEPTH: Final = 8
READING: Final = 3
"""Raise it when a reader makes something else of the same files (other splits, classes or pixels): a cache that holds
what was made of them before is not used then, and they are read anew. Their digest is of what was read, so that a
training whose images were read rightly goes on."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images that can be read."""

    name: str
    kind: Kind
    location: str
    """As people know it: a path, a URL without its secrets, or the name of a named set."""
    key: str
    """Of everything that decides what is read: another key, other images."""
    read: Callable[[Reading], Contents]
    """Raises DataError."""
    files: Callable[[], ImageFiles] | None = None
    """The same images as files, if they are files."""
    bring: Callable[[Reading], Source] | None = None
    """What has to be done before the images can be read: gives the source on this machine. Raises DataError."""
    single: Path | None = None
    """The file that all images are in, if it is one."""
    sha256: str | None = None
    """Of that file, if it is known by now."""
    test_fraction: float = 0.1
    """What is held back for the test if the source has no test images."""

    def here(self, reading: Reading) -> Source:
        """The source on this machine.

        Raises:
            DataError: it can't be brought here.
        """
        return self.bring(reading) if self.bring else self

    def origin(self) -> Origin:
        """What a manifest says of it."""
        size = self.single.stat().st_size if self.single is not None else None
        return Origin(kind=self.kind, location=self.location, key=self.key, sha256=self.sha256, bytes=size)


class File(NamedTuple):
    """A file as its folder lists it."""

    name: str
    """Path below the folder, with /."""
    size: int
    mtime_ns: int


@dataclass(kw_only=True)
class Listed:
    """What is below a folder."""

    files: list[File] = field(default_factory=list)
    """But for clutter; sorted by name."""
    folders: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    """What is there and can't be read as a file; the reason begins with its path."""


def key_of(kind: str, where: str, files: Iterable[File]) -> str:
    """The key of a source that consists of these files."""
    return keyed(chain((kind, where), (f"{file.name}\0{file.size}\0{file.mtime_ns}" for file in files)))


def keyed(parts: Iterable[str]) -> str:
    """The key of what these parts tell, as this release reads it."""
    digest = hashlib.sha256(f"{READING}\n".encode())
    for part in parts:
        digest.update(f"{part}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:40]


def files_below(root: Path, *, skip_broken: bool = False, follow_links: bool = True) -> Listed:
    """All files below a folder.

    Args:
        root: the folder.
        skip_broken: what can't be read as a file is listed, instead of refused.
        follow_links: also those that lead out of the folder.

    Raises:
        DataError: a folder can't be listed, is too deep (a link that leads back up?), there are too many files, or
            one that can't be read.
    """
    found = Listed()
    try:
        _Walk(root, found, skip_broken=skip_broken, follow_links=follow_links).into(os.fspath(root), "", 0)
    except OSError as error:
        raise _no_access(os.fspath(error.filename or root), error) from error
    found.files.sort()
    found.faults.sort()
    return found


def _no_access(path: str, error: OSError) -> DataError:
    return DataError(f"{path} can't be read ({error.strerror or error}): check it and its rights")


class _Walk:
    """Goes through a folder."""

    def __init__(self, root: Path, found: Listed, *, skip_broken: bool, follow_links: bool) -> None:
        self._root = root
        self._skip_broken = skip_broken
        self._inside = "" if follow_links else os.path.join(os.path.realpath(root), "")  # noqa: PTH118
        self._found = found

    def into(self, folder: str, prefix: str, depth: int) -> None:
        """Note what a folder holds."""
        if depth > _MAX_DEPTH:
            raise DataError(f"{folder} is more than {_MAX_DEPTH} folders deep: is there a link that leads back up?")
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_clutter(entry.name):
                    self._note(entry, prefix + entry.name, depth)

    def _note(self, entry: os.DirEntry[str], name: str, depth: int) -> None:
        try:
            if self._leads_out(entry):
                self._fault(
                    name,
                    f"{entry.path} is a link that leads out of {self._root}: put its target there, "
                    "or pass --follow-links",
                )
            elif entry.is_dir():
                self._found.folders.add(name)
                self.into(entry.path, f"{name}/", depth + 1)
            elif stat.S_ISREG((status := entry.stat()).st_mode):
                self._found.files.append(File(name, status.st_size, status.st_mtime_ns))
                if len(self._found.files) > MAX_FILES:
                    raise DataError(f"{self._root} holds more than {MAX_FILES} files: split it")
            else:
                self._fault(name, f"{entry.path} is a device, a socket or a pipe: take it out")
        except OSError as error:
            problem = _no_access(os.fspath(error.filename or entry.path), error)
            if not self._skip_broken or error.errno in PASSING:
                raise problem from error
            self._fault(name, str(problem))

    def _leads_out(self, entry: os.DirEntry[str]) -> bool:
        if not self._inside or not entry.is_symlink():
            return False
        target = os.path.join(os.path.realpath(entry.path), "")  # noqa: PTH118
        return not target.startswith(self._inside)

    def _fault(self, name: str, reason: str) -> None:
        if not self._skip_broken:
            raise DataError(reason)
        self._found.faults.append(Fault(name, reason))


def read_file(path: str, limit: int) -> bytes:
    """A whole file of at most `limit` bytes.

    Raises:
        DataError: it is larger, or can't be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a Path costs as much as the reading)
            data = file.readall() if os.fstat(file.fileno()).st_size <= limit else None
    except OSError as error:
        raise _no_access(path, error) from error
    if data is None or len(data) > limit:
        raise DataError(f"{path} has more than {limit} bytes: take it out, or make it smaller")
    return data
