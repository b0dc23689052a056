"""From the bytes of image files to uint8 pixels, in several threads (Pillow lets go of the interpreter's lock)."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final, Self

import numpy as np

from edgecloud.edge import images
from edgecloud_trainer.data.dataset import CHUNK_BYTES, DataError, Labels, Part, Pixels

Encoded = tuple[str, Callable[[], bytes]]
"""An image file's name, for messages, and how to read it; called in another thread."""

_MAX_THREADS: Final = 8


def decode(name: str, data: bytes) -> Pixels:
    """uint8 [1, H, W] of a grey image, [3, H, W] of any other; transparency is dropped.

    Raises:
        DataError: it isn't an image, is broken, too large, or has more than 8 bits.
    """
    try:
        return images.decode(data)
    except images.ImageError as error:
        raise DataError(f"{name} {error}") from error.__cause__


class Spool:
    """Decoded images of one size in a scratch file, in the order of their arrival, each grey or in colour.

    Whether the set is grey is known only after the last image, so each is kept as it is until then.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spool"
        self._file = self._path.open("wb")
        self._offsets: list[int] = []
        self._grey: list[bool] = []
        self._end = 0
        self._first: tuple[str, tuple[int, ...]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, name: str, pixels: Pixels) -> None:
        """Add one image, uint8 [1 or 3, H, W].

        Raises:
            DataError: it has another size than the first one.
        """
        size = pixels.shape[1:]
        self._first = self._first or (name, size)
        if size != self._first[1]:
            raise DataError(
                f"{self._first[0]} has {_size(self._first[1])} pixels and {name} has {_size(size)}: "
                "all images need one size, scale them before"
            )
        self._file.write(pixels.data)
        self._offsets.append(self._end)
        self._grey.append(len(pixels) == 1)
        self._end += pixels.nbytes

    def finish(self) -> tuple[int, int, int]:
        """No more images, and those that are there can be read.

        Returns:
            (C, H, W) of the set: C is 1 if all are grey, else 3.
        """
        self._file.close()
        assert self._first is not None
        height, width = self._first[1]
        return (1 if all(self._grey) else 3), height, width

    def part(self, positions: Labels, labels: Labels, shape: tuple[int, int, int]) -> Part:
        """The images that arrived at these positions, in this order, as a part of the set."""
        step = max(1, CHUNK_BYTES // (shape[0] * shape[1] * shape[2]))
        plane = shape[1] * shape[2]

        def chunks() -> Iterator[Pixels]:
            flat = np.memmap(self._path, np.uint8, "r")
            for start in range(0, len(positions), step):
                chosen = positions[start : start + step]
                chunk = np.empty((len(chosen), *shape), np.uint8)
                for row, position in enumerate(chosen.tolist()):
                    channels = 1 if self._grey[position] else 3
                    offset = self._offsets[position]
                    chunk[row] = flat[offset : offset + channels * plane].reshape(channels, *shape[1:])
                yield chunk

        return Part(labels=labels, chunks=chunks)


def _size(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


def decode_all(files: Iterable[Encoded], spool: Spool) -> Iterator[int]:
    """Decode files in their order into a spool; yields how many more are done, time and again.

    Raises:
        DataError: of the first file that can't be used.
    """
    threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    rest = iter(files)
    pending: deque[Future[list[tuple[str, Pixels]]]] = deque()
    bunch = 1  # until the first image says how large they are
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, "decode") as pool:
        warnings.simplefilter("ignore")  # Pillow warns of what is refused here, and of metadata that nobody reads
        try:
            while True:
                while len(pending) <= threads and (some := list(islice(rest, bunch))):
                    pending.append(pool.submit(_decode_some, some))
                if not pending:
                    return
                done = pending.popleft().result()
                for name, pixels in done:
                    spool.append(name, pixels)
                bunch = max(1, min(64, CHUNK_BYTES // max(1, done[-1][1].nbytes)))
                yield len(done)
        finally:
            for future in pending:
                future.cancel()


def _decode_some(files: list[Encoded]) -> list[tuple[str, Pixels]]:
    return [(name, decode(name, read())) for name, read in files]
