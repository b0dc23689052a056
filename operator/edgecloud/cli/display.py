"""What a person sees of a run: a live display on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TextIO, cast

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgecloud.api.columns import short_duration
from edgecloud.api.job import TrainingJob
from edgecloud.api.status import ProgressStatus, SummaryStatus, TrainingJobStatus
from edgecloud.cli.output import UNREAD, nowhere

LINE_SECONDS: Final = 5.0
"""How often a plain progress line is written."""
_LONGEST_BAR: Final = 40
_SHORTEST_BAR: Final = 10
"""Else it has a row of its own."""
_GAP: Final = "  "
_COLOURS: Final = {
    "Pending": "yellow",
    "Starting": "yellow",
    "Running": "green",
    "Recovering": "magenta",
    "Suspended": "cyan",
    "Succeeded": "bold green",
    "Failed": "bold red",
}


class Lasting:
    """A stream for what must go on when nobody reads any more: what can't be written is left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if error.errno in UNREAD:
            nowhere(self._stream)


def terminal() -> Console | None:
    """Standard error as a console that pictures move on; None if it is none, whatever FORCE_COLOR says of colours.

    None, too, for a terminal that moves no cursor (TERM=dumb).
    """
    if not sys.stderr.isatty():
        return None
    console = Console(file=cast("TextIO", Lasting(sys.stderr)))
    return console if console.is_terminal and not console.is_dumb_terminal else None


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_exc: object) -> None:
        return None

    def show(self, job: TrainingJob) -> None:
        """Nothing."""

    def event(self, kind: str, reason: str, message: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Plain(Quiet):
    """A line for each event, and one for progress every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = cast("TextIO", Lasting(stream))
        self._last_line = 0.0
        self._last_step: int | None = None

    def show(self, job: TrainingJob) -> None:
        progress = (job.status.progress if job.status else None) or ProgressStatus()
        now = time.monotonic()
        if progress.step is None or progress.step == self._last_step or now - self._last_line < LINE_SECONDS:
            return
        self._last_line, self._last_step = now, progress.step
        self.note(progress_line(job))

    def event(self, kind: str, reason: str, message: str) -> None:
        self.note(f"{reason}: {message}" if kind == "Normal" else f"{kind.upper()} {reason}: {message}")

    def note(self, text: str) -> None:
        click.echo(f"{datetime.now():%H:%M:%S} {printable(text)}", file=self._stream)


class Terminal(Quiet):
    """A progress bar with the numbers beside it; events scroll by above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._job: TrainingJob | None = None
        self._began = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._picture, transient=True)

    def __enter__(self) -> Terminal:
        self._live.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._live.stop()

    def show(self, job: TrainingJob) -> None:
        self._job = job

    def event(self, kind: str, reason: str, message: str) -> None:
        style = "yellow" if kind == "Warning" else "dim"
        self._console.print(Text(f"{datetime.now():%H:%M:%S} {reason}: {printable(message)}", style=style))

    def note(self, text: str) -> None:
        self._console.print(Text(printable(text)))

    def _picture(self) -> Group:
        job = self._job
        status = (job.status if job else None) or TrainingJobStatus()
        progress, summary = status.progress or ProgressStatus(), status.summary or SummaryStatus()
        width = self._console.width
        head = (
            Text(job.metadata.name if job else "", style="bold"),
            Text(status.phase, style=_COLOURS[status.phase]),
            Text(f"workers {summary.workers}"),
            Text(f"round {status.rendezvous.round if status.rendezvous else 0}"),
            Text(f"restarts {status.restarts}"),
            Text(short_duration(time.monotonic() - self._began)),
        )
        waiting = progress.percent is None
        numbers = [Text("" if waiting else f"{progress.percent:.0f}%")]
        numbers += [Text(f"{name} {value}") for name, value in _numbers(status)]
        room = width - sum(len(_GAP) + number.cell_len for number in numbers)
        beside = room >= _SHORTEST_BAR
        bar = Table.grid(padding=(0, len(_GAP), 0, 0))
        bar.add_row(
            ProgressBar(
                total=100,
                completed=progress.percent or 0,
                width=min(_LONGEST_BAR, room if beside else width - len(_GAP) - numbers[0].cell_len),
                pulse=waiting and status.phase != "Pending",
            ),
            *(numbers if beside else numbers[:1]),
        )
        return Group(*_rows(head, width), bar, *([] if beside else _rows(numbers[1:], width)))


def _rows(words: Iterable[Text], width: int) -> list[Text]:
    """Words side by side, as many in a row as have room: none is cut, unless it is wider than the terminal."""
    rows: list[Text] = []
    for word in words:
        if rows and rows[-1].cell_len + len(_GAP) + word.cell_len <= width:
            rows[-1].append(_GAP).append_text(word)
        else:
            rows.append(Text(overflow="fold").append_text(word))
    return rows


def progress_line(job: TrainingJob) -> str:
    """Progress in one line, such as `Running 41% step 350/854 loss 0.213 1,480 samples/s ETA 12s`."""
    status = job.status or TrainingJobStatus()
    summary = status.summary or SummaryStatus()
    words = [status.phase, summary.progress, *(f"{name} {value}" for name, value in _numbers(status))]
    return " ".join(word for word in words if word)


def _numbers(status: TrainingJobStatus) -> list[tuple[str, str]]:
    progress, summary = status.progress or ProgressStatus(), status.summary or SummaryStatus()
    step = "" if progress.step is None else f"{progress.step}"
    step += f"/{progress.total_steps}" if step and progress.total_steps else ""
    numbers = [
        ("step", step),
        ("loss", summary.loss),
        ("accuracy", summary.accuracy),
        ("samples/s", summary.samples_per_second),
        ("ETA", summary.eta),
    ]
    return [(name, value) for name, value in numbers if value]


def printable(text: str) -> str:
    """Text of a stranger's program, harmless to a terminal: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
