"""What one process prints: read from a pipe as fast as it comes, passed on, and its last lines kept."""

from __future__ import annotations

import asyncio
import os
import re

from edgecloud.launcher.sinks import Sink

CHUNK = 64 * 1024
PIPE = 64 * 1024
"""What a pipe holds: the most that a process that has ended can have left in it."""
KEPT = 16 * 1024
MAX_LINE = 64 * 1024
_BLANK_REWIND, _REWIND = re.compile(rb"^\r+(?![\r\n])", re.MULTILINE), re.compile(rb"(?<!\r)\r+(?![\r\n])")
"""Looked for from the first of a run only: each of a long one would look through all that follow.

Back to the start of the line, from there and from further on; with a line feed behind it, it is another's way to end
a line."""


class Tail:
    """The last 16 KiB of a stream of bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> None:
        self._bytes += data[-KEPT:]
        if len(self._bytes) > 2 * KEPT:
            del self._bytes[:-KEPT]

    def text(self) -> str:
        return bytes(self._bytes[-KEPT:]).decode("utf-8", "replace")


class Output:
    """One process's standard output and error.

    Args:
        loop: the loop to read in.
        sink: where to pass it on to.
        prefix: put before each line, if there are several processes; only whole lines are passed on then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: Sink, prefix: bytes = b"") -> None:
        self.tail = Tail()
        self._loop = loop
        self._sink = sink
        self._prefix = prefix
        self._partial = b""
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._readable)

    def name(self, prefix: bytes) -> None:
        """Put this before each line from now on."""
        self._prefix = prefix

    def started(self) -> None:
        """The process has its end; ours is in the way of seeing the end of it."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def drain(self) -> None:
        """Read what is in the pipe now, and no more than a process that has ended can have left there."""
        left = PIPE
        while left > 0 and self._reader >= 0:
            size = self._read()
            if size == 0:
                return
            left -= size

    def close(self) -> None:
        """Take what is there and let go, whoever may still hold the other end."""
        self.started()
        self.drain()
        self._end()

    def _readable(self) -> None:
        if self._sink.full:
            self._loop.remove_reader(self._reader)
            self._sink.when_drained(self._resume)
        else:
            self._read()

    def _resume(self) -> None:
        if self._reader >= 0:
            self._loop.add_reader(self._reader, self._readable)

    def _read(self) -> int:
        try:
            data = os.read(self._reader, CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            self._end()
            return 0
        self.tail.add(data)
        self._sink.write(self._lines(data) if self._prefix else data)
        return len(data)

    def _lines(self, data: bytes) -> bytes:
        """The whole lines, each with the prefix. A line that overwrites the one before, as progress bars do, is one."""
        data = self._partial + data
        if b"\r" in data:
            text = data.rstrip(b"\r")  # what comes next may be a line feed
            data = _REWIND.sub(b"\n", _BLANK_REWIND.sub(b"", text)) + data[len(text) :]
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > MAX_LINE:
            data, end = data + b"\n", len(data) + 1
        self._partial = data[end:]
        if end == 0:
            return b""
        return self._prefix + data[: end - 1].replace(b"\n", b"\n" + self._prefix) + b"\n"

    def _end(self) -> None:
        if self._reader < 0:
            return
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        self._reader = -1
        if self._partial:
            self._sink.write(self._prefix + self._partial + b"\n")
            self._partial = b""
