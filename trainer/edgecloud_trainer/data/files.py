"""Image files of a folder or an archive, read once into a spool; broken ones are refused, or left out and listed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from edgecloud_trainer.data.dataset import Contents, DataError, Fault
from edgecloud_trainer.data.decode import Decoded, Encoded
from edgecloud_trainer.data.layout import Layout, arrange
from edgecloud_trainer.data.manifest import MAX_SKIPPED
from edgecloud_trainer.data.observer import Observer, Stage
from edgecloud_trainer.data.parallel import decode_all
from edgecloud_trainer.data.resize import Size
from edgecloud_trainer.data.spool import Spool


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source is to be read."""

    scratch: Path
    """A folder for what is needed on the way. What an earlier reading of the same source left in it is used."""
    observer: Observer = field(default_factory=Observer)
    size: Size | None = None
    """What images are scaled and cut to; None: they are as they are."""
    skip_broken: bool = False
    """Files that can't be used are left out and listed, instead of refused."""
    helpers: bool = False
    """Whether processes may be started to help with it: for a command that has the machine to itself."""
    downloads: Path | None = None
    """Where torchvision's archives are looked for and kept; None: in `scratch`."""


class ImageFiles(ABC):
    """The files of a folder or an archive, in an order that is always the same."""

    where: str
    """The folder or archive, for messages."""
    prefix: str
    """What stands before a file's name in messages."""
    threads: int = 0
    """That read and decode; 0: as many as there are CPUs."""
    names: list[str]
    """Of all files that have been met, images or not, without clutter and without what can't be read at all."""
    folders: set[str]
    """Folders that have been met."""

    @cached_property
    def hidden(self) -> set[str]:
        """Folders with images that have been passed over and may be classes."""
        return set()

    @abstractmethod
    def encoded(self) -> Iterator[Encoded]:
        """Those that are images. One that can't be read at all raises when it is read.

        Raises:
            DataError: the folder or archive itself is broken.
        """

    @abstractmethod
    def stage(self, arrived: int, fresh: int) -> Stage:
        """How far the reading is, when so many have been decoded, and so many of them by this process."""

    def layout(self) -> Layout | None:
        """Where each file belongs, if that can be told before anything is decoded.

        Raises:
            DataError: the files aren't laid out as images by class.
        """
        return arrange(self.names, self.where, folders=self.folders, hidden=self.hidden) if self.names else None


def unreadable(error: DataError) -> Callable[[], bytes]:
    """How a file is read that is known to be broken already."""
    return partial(_raise, error)


def _raise(error: DataError) -> NoReturn:
    raise error


def read_files(files: ImageFiles, reading: Reading) -> Contents:
    """Decode them all.

    Raises:
        DataError: of the first file that can't be used, unless they are to be left out; or there are no images.
    """
    layout = None if reading.skip_broken else files.layout()
    with Spool(reading.scratch, prefix=files.prefix) as spool:
        if spool.resumed:
            reading.observer.note(f"going on after {spool.resumed:,} images that an earlier run has decoded")
        helpers = reading.helpers and not files.threads
        rest = _not_yet(files, spool)
        for done in decode_all(rest, size=reading.size, threads=files.threads, helpers=helpers):
            for one in done:
                _take(one, spool, skip_broken=reading.skip_broken)
            reading.observer.stage(files.stage(len(spool.names), len(spool.names) - spool.resumed))
        shape = spool.finish()
    names: Sequence[str] = files.names
    misplaced: list[Fault] | None = [] if reading.skip_broken else None
    if layout is None:
        left_out = [name for arrival, name in enumerate(spool.names) if not spool.is_kept(arrival)]
        names, layout = laid_out(files, left_out, misplaced)
    assert shape is not None
    arrivals = {name: arrival for arrival, name in enumerate(spool.names) if spool.is_kept(arrival)}
    return Contents(
        classes=layout.classes,
        shape=shape,
        parts={
            split: spool.part(
                np.array([arrivals[names[position]] for _, position in items], np.int64),
                np.array([label for label, _ in items], np.int64),
                shape,
            )
            for split, items in layout.splits.items()
        },
        skipped=[*spool.skipped, *(misplaced or [])][:MAX_SKIPPED],
        skipped_count=spool.skipped_count + len(misplaced or []),
    )


def laid_out(files: ImageFiles, left_out: Sequence[str], misplaced: list[Fault] | None) -> tuple[Sequence[str], Layout]:
    """Where each file belongs, when all have been met.

    Args:
        files: all of them.
        left_out: the names of those that can't be used.
        misplaced: files that have no place in a data set are added here; None: they are refused.

    Returns:
        The names of the others, and their layout.

    Raises:
        DataError: they aren't laid out as images by class, or none is left of a class.
    """
    gone = set(left_out)
    names = [name for name in files.names if name not in gone] if gone else files.names
    folders = files.folders | {folder for name in gone for folder in _folders_of(name)}
    layout = arrange(names, files.where, folders=folders, hidden=files.hidden, left_out=misplaced)
    return names, layout


def _folders_of(name: str) -> list[str]:
    """The folders that a file lies in; none, if its name leads elsewhere."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return []
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _not_yet(files: ImageFiles, spool: Spool) -> Iterator[Encoded]:
    """The files behind those that are in the spool."""
    encoded = files.encoded()
    for name, file in zip(spool.names[: spool.resumed], encoded, strict=False):
        if name != file.name:
            raise DataError(f"{files.where} has changed since an earlier run read it: run it again")
    yield from encoded


def _take(one: Decoded, spool: Spool, *, skip_broken: bool) -> None:
    if not isinstance(one.pixels, DataError):
        spool.append(one.name, one.pixels)
    elif skip_broken:
        spool.skip(one.name, str(one.pixels))
    else:
        raise one.pixels
