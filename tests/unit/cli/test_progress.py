"""How far a long command is, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from edgecloud.cli import progress
from edgecloud.cli.progress import Bar, Lines, Silent
from tests.unit.cli.test_terminal import BAR, on_a_terminal
from tests.unit.trainer.pictures import encoded, pixels, write


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_RATE_SECONDS", 0.0)
    stream = io.StringIO()
    with Lines(stream) as plain:
        plain.update("downloading", 500, 2000, unit="bytes")
        plain.update("decoding", 30, 60)
        plain.update("decoding", 900, 0, unit="bytes", count=7)
        plain.note("a \x1b[31m note")
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines()]
    assert lines[0] == "downloading 500 of 2,000 bytes (25%)"
    assert re.fullmatch(r"decoding 30 of 60 images \(50%\), [\d,]+ images/s", lines[1])
    assert re.fullmatch(r"decoding 900 bytes, [\d,]+ images/s", lines[2])
    assert lines[3] == "a \\x1b[31m note"


def test_a_line_comes_only_every_few_seconds() -> None:
    stream = io.StringIO()
    with Lines(stream) as plain:
        for done in range(100):
            plain.update("decoding", done, 100)
    assert stream.getvalue() == ""


def test_nothing() -> None:
    with Silent() as nothing:
        nothing.update("decoding", 1, 2)
        nothing.note("a note")


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """With the images per second beside it, and nothing left of it at the end."""
    one = encoded(pixels(0, size=(300, 300)), "JPEG", quality=95)
    write(tmp_path / "set", {f"{name}/{number:04}.jpg": one for name in ("cat", "dog") for number in range(400)})
    with on_a_terminal("data", "prepare", "set", "--out", "a.images", cwd=tmp_path) as screen:
        screen.until(lambda: BAR in screen.raw, "the bar appears")
        screen.until(lambda: re.search(r"decoding.*\d+/800 [\d,]+ images/s", screen.text), "its numbers rise")
        assert screen.end() == 0, screen.text[-2000:]
    last = screen.raw[screen.raw.rindex("file ") :]
    assert "\x1b" not in last and BAR not in last
    assert screen.raw.count("\x1b[?25l") == screen.raw.count("\x1b[?25h")


def test_parts_of_work_that_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_RATE_SECONDS", 0.0)
    stream = io.StringIO()
    with Lines(stream) as plain:
        plain.show("opening [a]")
        plain.show("calibrating", 0.416)
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines()]
    assert lines == ["opening [a]", "calibrating 42%"]


def test_a_name_is_no_markup_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Bar(console) as bar:
        bar.update("evaluating [/x] \x1b]0;title\x07", 3, 9)
        bar.note("[red]all[/y]")
        bar.warn("be warned [b]")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "evaluating [/x] \\x1b]0;title\\x07" in text
    assert "[red]all[/y]" in text and "be warned [b]" in text


def test_those_who_want_no_progress_are_warned(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(quiet=True) as silent:
        silent.show("reading", 0.5)
        silent.note("tried again")
        silent.warn("other images \x1b[31m")
    assert capsys.readouterr().err == "other images \\x1b[31m\n"
