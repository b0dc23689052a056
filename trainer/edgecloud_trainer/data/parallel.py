"""Many image files decoded at once: in threads, and where that takes long, in processes."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Final

from edgecloud.launcher.machine import usable_cpus
from edgecloud_trainer.data.dataset import CHUNK_BYTES, DataError
from edgecloud_trainer.data.decode import Decoded, Encoded, decode_some
from edgecloud_trainer.data.helper import Helpers
from edgecloud_trainer.data.resize import Size

_MAX_THREADS: Final = 8
_BUNCH: Final = 64
_ALONE_SECONDS: Final = 0.5
"""After that long, to start processes pays."""
_SMALL_BYTES: Final = 1 << 20
"""Pixels of an image; larger ones are decoded outside of the interpreter's lock, and are dear to hand over."""


def some_threads() -> int:
    """As many as there are CPUs for this process, up to 8."""
    return max(1, min(_MAX_THREADS, math.ceil(usable_cpus())))


def decode_all(
    files: Iterable[Encoded], *, size: Size | None = None, threads: int = 0, helpers: bool = False
) -> Iterator[list[Decoded]]:
    """Decode files, and give them in their order, some at a time.

    A file that can't be used comes as the error that says why; trouble that may pass (a storage or network that
    doesn't answer) isn't the file's, and is raised.

    Args:
        files: taken from as they are needed.
        size: what they are scaled and cut to.
        threads: 0: as many as there are CPUs, up to 8.
        helpers: where it takes longer, small images are decoded in as many processes; the files can be pickled.

    Raises:
        DataError: trouble that may pass, or what `files` raises.
    """
    threads = threads or some_threads()
    rest = _Rest(files)
    pending: deque[Future[list[Decoded]]] = deque()
    bunch = 1  # until the first image says how large they are
    work, help_from = decode_some, time.monotonic() + _ALONE_SECONDS if helpers and threads > 1 else math.inf
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Pillow warns of what is refused here, and of metadata that nobody reads
        pool = stack.enter_context(ThreadPoolExecutor(threads, "decode"))
        try:
            while True:
                while len(pending) <= threads and (some := rest.next(bunch)):
                    pending.append(pool.submit(work, some, size))
                if not pending:
                    rest.raise_trouble()
                    return
                done = pending.popleft().result()
                largest = max((one.pixels.nbytes for one in done if not isinstance(one.pixels, DataError)), default=0)
                if largest:
                    bunch = max(1, min(_BUNCH, CHUNK_BYTES // largest))
                if time.monotonic() >= help_from and largest <= _SMALL_BYTES:
                    work, help_from = stack.enter_context(closing(Helpers(threads))).decode, math.inf
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
