"""Where output goes: a file of bounded size, or on to our own output without ever waiting for whoever reads that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
from collections.abc import Callable
from pathlib import Path

_PIECE = 4096
"""PIPE_BUF: a pipe that poll() calls writable takes this much at once."""


class Sink:
    """Takes bytes; never raises, and never waits."""

    @property
    def full(self) -> bool:
        """Whether the writer should pause until `when_drained` calls back."""
        return False

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def line(self, data: bytes) -> None:
        """Write a whole line, at the start of one."""
        self.write(data)

    def when_drained(self, callback: Callable[[], None]) -> None:
        callback()

    async def drained(self, seconds: float) -> None:
        """Wait until everything is written, but no longer than this."""


class LogFile(Sink):
    """Appends to a file; when that has reached its bound it becomes `<file>.1`, and the one that was goes.

    Raises:
        OSError: from the constructor, if the file cannot be opened.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max = max_bytes
        self._file = -1
        self._size = 0
        self._at_line_start = True
        self._open()

    def write(self, data: bytes) -> None:
        start = 0
        while len(data) - start > self._max - self._size:
            # The whole lines that fit; a line that does not even fit into an empty file is cut.
            fits = start + self._max - self._size
            end = data.rfind(b"\n", start, fits) + 1
            if end == 0 and self._size == 0:
                end = fits
            if end:
                self._put(data[start:end])
                start = end
            self._rotate()
        self._put(data[start:])

    def line(self, data: bytes) -> None:
        self.write(data if self._at_line_start else b"\n" + data)

    def _put(self, data: bytes) -> None:
        self._at_line_start = data.endswith(b"\n")
        self._size += len(data)
        # A full disk loses output; it does not end the training.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._file, data) :]

    def _open(self) -> None:
        file = os.open(str(self._path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._size = os.fstat(file).st_size

    def _rotate(self) -> None:
        with contextlib.suppress(OSError):
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._open()
        if self._size > 0:  # it could not be moved away: the bound counts for more than the old lines
            self._size = 0
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)


class Stream(Sink):
    """Passes bytes on to a descriptor that we share with others, and so may not make non-blocking.

    While its reader is slow the writers pause, as if they wrote to it themselves; the launcher does not.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._watched = False
        self._callbacks: list[Callable[[], None]] = []
        self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._gone = False

    @property
    def full(self) -> bool:
        return bool(self._waiting)

    def write(self, data: bytes) -> None:
        if self._gone:
            return
        if self._waiting:
            self._waiting += data
            return
        done = self._push(data)
        if done < len(data):
            self._waiting += data[done:]
            self._watch()

    def when_drained(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def drained(self, seconds: float) -> None:
        if self._waiting:
            event = asyncio.Event()
            self.when_drained(event.set)
            await asyncio.wait({asyncio.ensure_future(event.wait())}, timeout=seconds)

    def _push(self, data: bytes | bytearray) -> int:
        """Write what can be written now; return how much that was."""
        done = 0
        with memoryview(data) as view:
            try:
                while done < len(view) and (self._regular or self._poll.poll(0)):
                    done += os.write(self._descriptor, view[done:] if self._regular else view[done : done + _PIECE])
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:  # nobody reads it any more
                self._gone = True
                return len(view)
        return done

    def _watch(self) -> None:
        if not self._watched:
            self._loop.add_writer(self._descriptor, self._writable)
            self._watched = True

    def _writable(self) -> None:
        del self._waiting[: self._push(self._waiting)]
        if not self._waiting:
            self._loop.remove_writer(self._descriptor)
            self._watched = False
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()
