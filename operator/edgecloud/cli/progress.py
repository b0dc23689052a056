"""How far a command is: a bar on a terminal, a line every few seconds elsewhere. On standard error."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from edgecloud.cli.display import LINE_SECONDS, printable

_STEPS: Final = 1000


class Silent(AbstractContextManager["Silent"]):
    """Shows nothing."""

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, what: str, part: float | None = None) -> None:
        """Say what is being done, and the part of it, from 0 to 1, that is done; None: nobody knows."""

    def note(self, text: str) -> None:
        """A line that stays."""
        click.echo(printable(text), err=True)


class Lines(Silent):
    """A line every few seconds."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def show(self, what: str, part: float | None = None) -> None:
        now = time.monotonic()
        if now - self._at < LINE_SECONDS:
            return  # what is done at once needs no words
        self._at = now
        self.note(what if part is None else f"{100 * part:3.0f} % {what}")


class Bar(Silent):
    """A bar that is gone at the end."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._what = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, part: float | None = None) -> None:
        if self._task is None or what != self._what:  # another speed: what was expected of the first says nothing
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._what = self._progress.add_task(printable(what), total=None), what
        if part is not None:
            self._progress.update(self._task, completed=int(_STEPS * part), total=_STEPS)

    def note(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False)


def progress(*, quiet: bool = False) -> Silent:
    """What fits where standard error goes."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines()
