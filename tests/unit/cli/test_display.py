"""What a person sees of a run: plain lines, a picture on a terminal, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Phase
from edgecloud.cli import display
from edgecloud.cli.display import Plain, Quiet, Terminal, printable, progress_line
from edgecloud.cli.progress import Lines, progress
from edgecloud.cli.run import _display
from tests.unit.api.strategies import resource

PHASES = get_args(Phase)
SUMMARY = {"workers": "2/2", "progress": "41%", "eta": "12s", "loss": "0.213", "samplesPerSecond": "1,480"}
PROGRESS = {"percent": 41.0, "step": 350, "totalSteps": 854}


def make_job(**status: Any) -> TrainingJob:
    job = resource({"workers": 2, "program": {"command": ["a"]}})
    return TrainingJob.parse(job | ({"status": status} if status else {}))


# Text of a stranger's program


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"])))
def test_no_control_character_passes(text: str) -> None:
    shown = printable(text)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert not any(unicodedata.category(character).startswith("C") for character in shown if character != "\n")
    assert shown.count("\n") == text.count("\n")
    assert printable(shown) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S"]) | st.just(" ") | st.just("\n")))
def test_ordinary_text_is_as_it_was(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("50%\r60%", r"50%\x0d60%"),
        ("a\tb", r"a\x09b"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp.exe", r"\x202egnp.exe"),
        ("\x00\x7f", r"\x00\x7f"),
        ("Zürich 日本 \U0001f600\n", "Zürich 日本 \U0001f600\n"),
    ],
)
def test_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert printable(text) == shown


# Plain lines


def test_the_line_of_progress() -> None:
    job = make_job(phase="Running", summary=SUMMARY | {"accuracy": "97.8%"}, progress=PROGRESS)
    expected = "Running 41% step 350/854 loss 0.213 accuracy 97.8% samples/s 1,480 ETA 12s"
    assert progress_line(job) == expected
    assert progress_line(make_job(phase="Starting")) == "Starting"
    assert progress_line(make_job()) == "Pending"
    assert progress_line(make_job(phase="Running", progress={"step": 0})) == "Running step 0"
    assert progress_line(make_job(phase="Running", progress={"step": 7, "totalSteps": 0})) == "Running step 7"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


def lines(stream: io.StringIO) -> list[str]:
    """What was printed, without the time before each line."""
    printed = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in printed)
    return [line[9:] for line in printed]


def test_progress_comes_every_few_seconds_and_when_there_is_some(clock: Clock) -> None:
    stream = io.StringIO()
    plain = Plain(stream)
    plain.show(make_job())
    plain.show(make_job(phase="Running"))
    assert lines(stream) == []
    for step in range(21):
        plain.show(make_job(phase="Running", progress={"step": step}))
        plain.show(make_job(phase="Running", progress={"step": step}))
        clock.now += 1
    assert lines(stream) == [f"Running step {step}" for step in (0, 5, 10, 15, 20)]
    clock.now += 100
    plain.show(make_job(phase="Running", progress={"step": 20}))
    assert len(lines(stream)) == 5, "nothing new to say"


def test_events_and_notes_in_plain_lines() -> None:
    stream = io.StringIO()
    with Plain(stream) as plain:
        plain.event("Normal", "RoundOpened", "round 1 with 2 workers")
        plain.event("Warning", "Killed", "worker 0: \x1b[2JSIGKILL")
        plain.note("SIGINT: stopping\x07")
    assert lines(stream) == [
        "RoundOpened: round 1 with 2 workers",
        r"WARNING Killed: worker 0: \x1b[2JSIGKILL",
        r"SIGINT: stopping\x07",
    ]


# Whoever reads may be gone


def test_plain_lines_that_nobody_reads() -> None:
    """`edgecloud run job.yaml 2>&1 | tee log` and Ctrl-C, of which tee dies first."""
    theirs, ours = os.pipe()
    with os.fdopen(ours, "w") as stream, Plain(stream) as plain:
        plain.note("read")
        os.close(theirs)
        plain.note("not read")
        plain.event("Normal", "Stopped", "m")
        plain.show(make_job(phase="Running", progress={"step": 1}))
    # Closing it, as at the end of a process, has flushed what was left in it.


def test_plain_lines_on_a_full_disk() -> None:
    with Path("/dev/full").open("w") as stream:
        Plain(stream).note("no room for it")
        display.nowhere(stream)


def test_the_live_display_of_a_terminal_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread, and its end, are as silent as its lines."""
    theirs, ours = pty.openpty()
    with os.fdopen(ours, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = display.terminal()
        assert console is not None
        with Terminal(console) as terminal:
            terminal.note("read")
            os.close(theirs)
            terminal.note("not read")
            terminal.event("Normal", "Stopped", "m")
            terminal._live.refresh()


def test_a_terminal_that_moves_no_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emacs' shell, and the terminals of some CI: of a picture they would show nothing."""
    theirs, ours = pty.openpty()
    with os.fdopen(theirs), os.fdopen(ours, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "dumb")
        assert type(_display(quiet=False)) is Plain
        assert type(progress(quiet=False)) is Lines
        monkeypatch.setenv("TERM", "xterm")
        assert type(_display(quiet=False)) is Terminal


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_colours_that_are_asked_for_make_no_terminal(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """As GitHub Actions does; what moves the cursor would fill its log."""
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert type(_display(quiet=False)) is Plain
    assert type(progress(quiet=False)) is Lines


def test_quiet_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with Quiet() as quiet:
        quiet.show(make_job())
        quiet.event("Warning", "Killed", "m")
        quiet.note("n")
    assert capfd.readouterr() == ("", "")


# The picture

STATUSES: dict[str, Callable[[str], dict[str, Any]]] = {
    "nothing but the phase": lambda phase: {"phase": phase},
    "no progress yet": lambda phase: {"phase": phase, "summary": {"workers": "1/2"}, "rendezvous": {"round": 1}},
    "steps without a total": lambda phase: {"phase": phase, "summary": SUMMARY, "progress": {"step": 7}},
    "everything": lambda phase: {
        "phase": phase,
        "summary": SUMMARY | {"accuracy": "97.8%"},
        "progress": PROGRESS,
        "rendezvous": {"round": 3},
        "restarts": 2,
    },
}


def drawn(job: TrainingJob | None, width: int = 120) -> str:
    console = Console(record=True, file=io.StringIO(), force_terminal=True, width=width, height=24)
    terminal = Terminal(console)
    if job is not None:
        terminal.show(job)
    console.print(terminal._picture())
    return console.export_text()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", STATUSES)
def test_a_picture_of_each_phase(phase: str, kind: str) -> None:
    picture = drawn(make_job(**STATUSES[kind](phase)))
    assert "digits" in picture and phase in picture
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in picture
    if kind == "everything":
        for words in ("workers 2/2", "round 3", "restarts 2", "41%", "step 350/854", "loss 0.213", "accuracy 97.8%"):
            assert words in picture
    if kind == "steps without a total":
        assert "step 7" in picture and "%" not in picture


def test_a_picture_before_anything_is_known() -> None:
    picture = drawn(None)
    assert "Pending" in picture and "workers" in picture


LATE = {
    "phase": "Running",
    "summary": SUMMARY | {"accuracy": "97.8%", "samplesPerSecond": "1,234,567", "eta": "3h 20m"},
    "progress": {"percent": 66.7, "step": 100_008, "totalSteps": 150_000},
    "restarts": 2,
}


@pytest.mark.parametrize("width", [20, 40, 79, 80, 100, 300])
def test_a_narrow_terminal_shortens_the_bar_and_no_number(width: int) -> None:
    picture = drawn(make_job(**LATE), width)
    for words in (
        "67%", "step 100008/150000", "loss 0.213", "accuracy 97.8%", "samples/s 1,234,567", "ETA 3h 20m", "restarts 2"
    ):  # fmt: skip
        assert words in picture, picture
    lines = picture.splitlines()
    bars = [line.count("\N{BOX DRAWINGS HEAVY HORIZONTAL}") for line in lines]
    assert 10 <= max(bars) <= 40 and max(map(len, lines)) <= width
    assert len(lines) == 2 or width <= 100


def test_the_bar_shrinks_before_a_row_is_added() -> None:
    job = make_job(**STATUSES["everything"]("Running"))
    assert [len(drawn(job, width).splitlines()) for width in (120, 90, 80)] == [2, 2, 3]


@pytest.mark.parametrize("width", [1, 5, 20, 40, 80, 300])
def test_a_picture_for_every_width(width: int) -> None:
    picture = drawn(make_job(**STATUSES["everything"]("Running")), width)
    assert max(map(len, picture.splitlines())) <= width


def test_the_live_display_from_first_to_last() -> None:
    stream = io.StringIO()
    console = Console(record=True, file=stream, force_terminal=True, width=100, height=24)
    with Terminal(console) as terminal:
        for phase in PHASES:
            terminal.show(make_job(**STATUSES["everything"](phase)))
            terminal._live.refresh()
            terminal.event("Normal", phase, "the job is \x1b[2Jthere [bold]now[/bold]")
            terminal.event("Warning", "Killed", "worker 0")
            terminal.note("a note [red]in brackets[/red]")
    text = console.export_text()
    for phase in PHASES:
        assert rf"{phase}: the job is \x1b[2Jthere [bold]now[/bold]" in text
    assert text.count("a note [red]in brackets[/red]") == len(PHASES), "what is said is no markup"
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1, "the cursor comes back"
