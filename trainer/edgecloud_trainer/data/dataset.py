"""What the trainer sees of a data set: images in memory or memory-mapped, split, with their classes and statistics."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int64]
"""Places in a split, from 0."""
Progress = Callable[[int, int], None]
"""Called with (done, total) in the source's own unit, files or bytes; with (0, 0) while another process reads."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

MAX_SIDE: Final = 65536
"""Of an image, in pixels."""
CHUNK_BYTES: Final = 16 * 1024 * 1024
"""Of pixels that are handled at once."""

PASSING: Final = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.EREMOTEIO,
        errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EBUSY,
        errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH,
    }
)  # fmt: skip
"""What a storage or a network may say today and not tomorrow."""


class DataError(ValueError):
    """The data can't be used as they are. The message names the file or field, and what to do."""

    @property
    def passing(self) -> bool:
        """Whether it comes from trouble that may pass by itself, so that a second try makes sense."""
        cause = self.__cause__ or self.__context__
        while cause is not None:
            if isinstance(cause, TimeoutError) or (isinstance(cause, OSError) and cause.errno in PASSING):
                return True
            cause = cause.__cause__ or cause.__context__
        return False


class RefusedError(DataError):
    """The data's server doesn't give them."""


class PassingError(DataError):
    """Trouble that may pass by itself."""

    @property
    def passing(self) -> bool:
        return True


class TransferError(PassingError):
    """The data's server can't be reached, or breaks off time and again."""

    def __init__(self, message: str, *, resumable: bool = False) -> None:
        super().__init__(message)
        self.resumable = resumable
        """Whether what has come so far is of use to the next try."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Labelled images of one size."""

    pixels: Pixels
    """uint8 [N, C, H, W], C-contiguous and read-only; memory-mapped if the set is large."""
    labels: Labels
    """int64 [N], read-only, each from 0 to the number of classes - 1."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set, split and described."""

    name: str
    train: Images
    validation: Images | None
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """Of each channel, of the training pixels scaled to 0..1."""
    std: tuple[float, ...]
    """Likewise; 1 for a channel that is the same everywhere."""
    digest: str
    """sha256 (hex) over classes, pixels and labels of all splits: the same wherever and however they were read."""
    names: Mapping[Split, Sequence[str]] = field(default_factory=dict)
    """Each image's file, of those splits whose images were files."""
    held_back: tuple[Split, ...] = ()
    """Splits that were drawn from the training images: of other images, others are drawn."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.train.pixels.shape
        return channels, height, width


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split that is yet to be read, piece by piece, so that it need not fit into memory."""

    labels: Labels
    take: Callable[[Ids], Pixels]
    """uint8 [n, C, H, W]: the images at these places."""
    names: Sequence[str] | None = None
    """Each image's file below its folder, or in its archive; None if the images were no files."""

    def chunks(self) -> Iterator[Pixels]:
        """All images, some at a time, in the order of the labels."""
        count, step = len(self.labels), 1
        start = 0
        while start < count:
            chunk = self.take(np.arange(start, min(start + step, count)))
            yield chunk
            start += len(chunk)
            step = max(1, CHUNK_BYTES // max(1, chunk[:1].nbytes))

    def pick(self, ids: Ids) -> Part:
        """Only the images at these places, in this order."""
        take, names = self.take, self.names
        return Part(
            labels=self.labels[ids],
            take=lambda some: take(ids[some]),
            names=None if names is None else Picked(names, ids),
        )


class Fault(NamedTuple):
    """A file that was left out."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a source holds, yet to be read."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """(C, H, W)."""
    parts: Mapping[Split, Part]
    skipped: Sequence[Fault] = ()
    """The first of those files that were left out."""
    skipped_count: int = 0
    """Of all of them."""


def part_of(pixels: Pixels, labels: Labels, names: Sequence[str] | None = None) -> Part:
    """A part of images that are at hand, in memory or memory-mapped."""

    def take(ids: Ids) -> Pixels:
        start, stop = int(ids[0]), int(ids[-1]) + 1
        in_a_row = stop - start == len(ids) and bool((np.diff(ids) == 1).all())
        return pixels[start:stop] if in_a_row else pixels[ids]

    return Part(labels=labels, take=take, names=names)


def joined(parts: Sequence[Part], shape: tuple[int, int, int]) -> Part:
    """Several parts as one, in their order; each image [C, H, W] as `shape` says."""
    begins = np.cumsum([0, *(len(part.labels) for part in parts)])

    def take(ids: Ids) -> Pixels:
        pixels = np.empty((len(ids), *shape), np.uint8)
        which = np.searchsorted(begins, ids, side="right") - 1
        for number, part in enumerate(parts):
            rows = np.flatnonzero(which == number)
            if len(rows):
                pixels[rows] = part.take(ids[rows] - begins[number])
        return pixels

    named = [part.names for part in parts if part.names is not None]
    return Part(
        labels=np.concatenate([part.labels for part in parts]),
        take=take,
        names=[name for names in named for name in names] if len(named) == len(parts) else None,
    )


class Picked(Sequence[str]):
    """Some of a sequence of names, in another order, without a copy of them."""

    def __init__(self, names: Sequence[str], ids: Ids) -> None:
        self._names = names
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return Picked(self._names, self._ids[place])
        return self._names[int(self._ids[place])]
