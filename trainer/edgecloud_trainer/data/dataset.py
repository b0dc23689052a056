"""What the trainer sees of a data set: images in memory or memory-mapped, split, with their classes and statistics."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Called with (done, total) in the source's own unit, files or bytes; with (0, 0) while another process reads."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


_PASSING: Final = frozenset(
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
            if isinstance(cause, TimeoutError) or (isinstance(cause, OSError) and cause.errno in _PASSING):
                return True
            cause = cause.__cause__ or cause.__context__
        return False


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

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.train.pixels.shape
        return channels, height, width


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split that is yet to be read, piece by piece, so that it need not fit into memory."""

    labels: Labels
    chunks: Callable[[], Iterator[Pixels]]
    """uint8 [n, C, H, W] each, N images in all, in the order of the labels."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a source holds, yet to be read."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """(C, H, W)."""
    parts: Mapping[Split, Part]


CHUNK_BYTES = 16 * 1024 * 1024


def part_of(pixels: Pixels, labels: Labels, ids: npt.NDArray[np.int64] | None = None) -> Part:
    """A part of images that are at hand (in memory or memory-mapped); of those in `ids` only, in that order."""
    chosen = labels if ids is None else labels[ids]
    step = max(1, CHUNK_BYTES // max(1, pixels[:1].nbytes))

    def chunks() -> Iterator[Pixels]:
        for start in range(0, len(chosen), step):
            yield pixels[start : start + step] if ids is None else pixels[ids[start : start + step]]

    return Part(labels=chosen, chunks=chunks)
