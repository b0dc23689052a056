"""How far a command is: a bar on a terminal, a line every few seconds elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from typing import Final, Self, TextIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from edgecloud.cli.display import LINE_SECONDS, printable, terminal

_RATE_SECONDS: Final = 0.5
"""A rate is of no use before."""
_STEPS: Final = 1000
_PARTS: Final = "parts"


class Silent:
    """Shows nothing but warnings."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        return None

    def update(self, what: str, done: int, total: int, *, unit: str = "images", count: int | None = None) -> None:
        """How far it is.

        Args:
            what: is being done; another word begins another bar.
            done: of the total, in the unit `images` or `bytes`, or another word.
            total: 0 if nobody knows.
            unit: of done and total.
            count: images that were handled, for the rate; None: done, if that is a number of images.
        """

    def show(self, what: str, part: float | None = None) -> None:
        """Say what is being done, and the part of it, from 0 to 1, that is done; None: nobody knows."""
        self.update(what, round(_STEPS * (part or 0.0)), 0 if part is None else _STEPS, unit=_PARTS)

    def note(self, text: str) -> None:
        """A sentence for people who watch."""

    def warn(self, text: str) -> None:
        """A sentence that has to be read: it is shown to those, too, who want no progress."""
        click.echo(printable(text), err=True)


class Rate:
    """Images a second since a stage began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def text(self, count: int | None) -> str:
        """Such as `1,480 images/s`; "" if there is nothing to say yet."""
        seconds = time.monotonic() - self._began
        return f"{count / seconds:,.0f} images/s" if count and seconds >= _RATE_SECONDS else ""


class Lines(Silent):
    """A line every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._what = ""
        self._rate = Rate()
        self._last_line = time.monotonic()

    def update(self, what: str, done: int, total: int, *, unit: str = "images", count: int | None = None) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._rate = what, Rate()
        if now - self._last_line < LINE_SECONDS:
            return  # what is done at once needs no words
        self._last_line = now
        rate = self._rate.text(_images(done, unit, count))
        self.note(" ".join(filter(None, (what, _so_far(done, total, unit)))) + (f", {rate}" if rate else ""))

    def note(self, text: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} {printable(text)}", file=self._stream)


class Bar(Silent):
    """A bar with the numbers beside it, gone at the end; notes scroll by above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._what = ""
        self._rate = Rate()

    def __exit__(self, *_exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, what: str, done: int, total: int, *, unit: str = "images", count: int | None = None) -> None:
        if what != self._what or self._progress is None:
            self._begin(what, unit)
        assert self._progress is not None
        rate = self._rate.text(_images(done, unit, count))
        self._progress.update(self._task, completed=done, total=total or None, rate=rate)

    def note(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False)

    def warn(self, text: str) -> None:
        self.note(text)

    def _begin(self, what: str, unit: str) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._what, self._rate = what, Rate()  # another speed: what was expected of the work before says nothing
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _numbers(unit),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(printable(what), total=None, rate="")
        self._progress.start()


def _numbers(unit: str) -> ProgressColumn:
    if unit == _PARTS:
        return TaskProgressColumn()
    return DownloadColumn() if unit == "bytes" else MofNCompleteColumn()


def _so_far(done: int, total: int, unit: str) -> str:
    if unit == _PARTS:
        return f"{100 * done / total:.0f}%" if total else ""
    return f"{done:,} of {total:,} {unit} ({100 * done / total:.0f}%)" if total else f"{done:,} {unit}"


def _images(done: int, unit: str, count: int | None) -> int | None:
    return count if count is not None or unit in ("bytes", _PARTS) else done


def progress(*, quiet: bool = False) -> Silent:
    """What suits the place where standard error goes."""
    if quiet:
        return Silent()
    console = terminal()
    return Bar(console) if console else Lines(sys.stderr)
