"""Standard output, whatever takes it: a terminal of few characters, a reader that goes early, a full disk, JSON's."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FAILED: Final = 1
STOPPED: Final = 130
"""By Ctrl-C."""
READER_GONE: Final = 141
"""As a shell has it of a program that SIGPIPE ended."""


UNREAD: Final = (errno.EPIPE, errno.EIO)
"""The other end of a pipe, or the terminal, is gone."""
_NOT_ASCII: Final = re.compile(r"[^\n -~]")


class OutputError(Exception):
    """Standard output takes no more; the OSError is its cause.

    It is no OSError itself, for of those click and rich make exit codes of their own.
    """


class _Raw(io.FileIO):
    """A descriptor whose errors can't be taken for those of other files."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError from error


def open_closed() -> None:
    """Have the standard streams that whoever started us has closed (`>&-`, some daemons) lead nowhere.

    To be called before any file is opened: that would get the descriptor, and what is printed would be written into it.
    sys.stdin stays None, so that a command that needs it can say that there is none.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                null = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
                os.set_inheritable(null, True)
    sys.stdout = sys.stdout or _nothing()
    sys.stderr = sys.stderr or _nothing()


def _nothing() -> TextIO:
    # Not closed with the stream: another one is put in its place.
    return open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def guard_output() -> None:
    """From now on errors of standard output are OutputError; what its encoding lacks is printed as `\\u2192`."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        return
    stream.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Raw(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def print_json(value: Any) -> None:
    """Print plain data as JSON: in UTF-8, whatever the locale; characters as they are where the locale's is that, too.

    Elsewhere, and where nobody would see what they are, they are JSON's escapes.
    """
    shown = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(value, indent=2, ensure_ascii=not shown)
    click.echo(_NOT_ASCII.sub(lambda found: found[0] if found[0].isprintable() else _escaped(found[0]), text))


def _escaped(character: str) -> str:
    """As JSON may spell any character; its own writer leaves DEL as it is."""
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def end_of_output(error: OutputError) -> int:
    """What the command ends with: silently where the reader has gone away (`| head`), else with a sentence."""
    # What is left in the buffers would fail again when the interpreter ends.
    nowhere(sys.stdout)
    cause = error.__cause__
    if isinstance(cause, BrokenPipeError):
        return READER_GONE
    why = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
    with suppress(OSError):
        click.echo(f"edgecloud: standard output can't be written ({why}): send it to another place", err=True)
    return FAILED


def nowhere(stream: TextIO) -> None:
    """Have a stream of the process lead nowhere, so that what waits in it fails no flush at the process's end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
