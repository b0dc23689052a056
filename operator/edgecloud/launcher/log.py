"""The launcher's own lines: for people, one line each, and never waited for."""

from __future__ import annotations

import os
import select

from edgecloud.launcher import failure
from edgecloud.launcher.sinks import Sink

_MAX_LINE = 2000


def line_of(text: str) -> bytes:
    """One printable line, with the prefix that tells ours from the program's."""
    flat = " | ".join(part.strip() for part in failure.printable(text).splitlines() if part.strip())
    return f"edgecloud-launcher: {flat[:_MAX_LINE]}\n".encode("utf-8", "replace")


class Log:
    """Writes to the log file if there is one, else to standard error."""

    def __init__(self, file: Sink | None = None) -> None:
        self._file = file

    def __call__(self, text: str) -> None:
        if self._file is not None:
            self._file.line(line_of(text))
        else:
            to_stderr(text)


def to_stderr(text: str) -> None:
    """A line to standard error, unless its reader is stuck: then it is dropped."""
    try:
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if poll.poll(0):
            os.write(2, line_of(text))
    except OSError:
        return
