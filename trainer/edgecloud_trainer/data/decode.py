"""From the bytes of image files to uint8 pixels, in several threads (Pillow lets go of the interpreter's lock)."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from edgecloud.edge import images
from edgecloud_trainer.data.dataset import CHUNK_BYTES, DataError, Pixels
from edgecloud_trainer.data.resize import Size, fit

_MAX_THREADS: Final = 8
_BUNCH: Final = 64


class Encoded(NamedTuple):
    """An image file."""

    name: str
    where: str
    """The name for messages: with its folder or archive."""
    read: Callable[[], bytes]
    """Called in another thread; raises DataError."""
    held: int = 0
    """Bytes of it that are in memory already."""


class Decoded(NamedTuple):
    """What became of it."""

    name: str
    pixels: Pixels | DataError


def decode(name: str, data: bytes, size: Size | None = None) -> Pixels:
    """uint8 [1, H, W] of a grey image, [3, H, W] of any other; transparency is dropped.

    Args:
        name: for messages.
        data: the image file.
        size: what it is scaled and cut to.

    Raises:
        DataError: it isn't an image, is broken, too large, or has more than 8 bits.
    """
    try:
        image = images.open_image(data)
        return images.to_pixels(fit(image, size) if size else image)
    except images.ImageError as error:
        raise DataError(f"{name} {error}") from error.__cause__


def decode_all(files: Iterable[Encoded], *, size: Size | None = None, threads: int = 0) -> Iterator[list[Decoded]]:
    """Decode files, and give them in their order, some at a time.

    A file that can't be used comes as the error that says why; trouble that may pass (a storage or network that
    doesn't answer) isn't the file's, and is raised.

    Args:
        files: taken from as they are needed.
        size: what they are scaled and cut to.
        threads: 0: as many as there are CPUs, up to 8.

    Raises:
        DataError: trouble that may pass, or what `files` raises.
    """
    threads = threads or min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    rest = _Rest(files)
    pending: deque[Future[list[Decoded]]] = deque()
    bunch = 1  # until the first image says how large they are
    with warnings.catch_warnings(), ThreadPoolExecutor(threads, "decode") as pool:
        warnings.simplefilter("ignore")  # Pillow warns of what is refused here, and of metadata that nobody reads
        try:
            while True:
                while len(pending) <= threads and (some := rest.next(bunch)):
                    pending.append(pool.submit(_decode_some, some, size))
                if not pending:
                    rest.raise_trouble()
                    return
                done = pending.popleft().result()
                largest = max((one.pixels.nbytes for one in done if not isinstance(one.pixels, DataError)), default=0)
                if largest:
                    bunch = max(1, min(_BUNCH, CHUNK_BYTES // largest))
                yield done
        finally:
            for future in pending:
                future.cancel()


class _Rest:
    """The files that are still to be decoded. What was wrong with the source is raised only after all before it."""

    def __init__(self, files: Iterable[Encoded]) -> None:
        self._files = iter(files)
        self._trouble: DataError | None = None

    def next(self, most: int) -> list[Encoded]:
        """Some more of them: no more than wanted, or than may be in memory at once. None: there are no more."""
        some: list[Encoded] = []
        held = 0
        try:
            while self._trouble is None and len(some) < most and held <= CHUNK_BYTES:
                some.append(next(self._files))
                held += some[-1].held
        except StopIteration:
            pass
        except DataError as error:
            self._trouble = error
        return some

    def raise_trouble(self) -> None:
        """If there was any."""
        if self._trouble is not None:
            raise self._trouble


def _decode_some(files: list[Encoded], size: Size | None) -> list[Decoded]:
    return [Decoded(file.name, _decode_one(file, size)) for file in files]


def _decode_one(file: Encoded, size: Size | None) -> Pixels | DataError:
    try:
        return decode(file.where, file.read(), size)
    except DataError as error:
        if error.passing:
            raise
        return error
