"""`edgecloud run` on a terminal: the bar while it runs, the table when it is done, and Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgecloud_operator.local import Workdir
from tests.unit.cli.command import EDGECLOUD, PROGRAMS, environment, job_file

DEADLINE: Final = 60.0
BAR: Final = "\N{BOX DRAWINGS HEAVY HORIZONTAL}"
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Screen:
    """The other side of a program's terminal: what it has written so far, and a keyboard."""

    def __init__(self, process: subprocess.Popen[bytes], side: int) -> None:
        self.process = process
        self._side = side
        self._bytes = b""

    @property
    def raw(self) -> str:
        return self._bytes.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """Without what moves the cursor and colours the text."""
        return _CONTROL.sub("", self.raw)

    def seen(self) -> str:
        """The beginning and the end of it, for a failure."""
        return repr(self.raw if len(self.raw) < 5000 else f"{self.raw[:3000]} ... {self.raw[-2000:]}")

    def until(self, look: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not look():
            assert time.monotonic() < deadline, f"not within {DEADLINE:.0f} s: {what}; seen: {self.seen()}"
            assert self._read(0.05) or look(), f"it ended before: {what}; seen: {self.seen()}"

    def end(self) -> int:
        """The exit code, when everything that was written has been read."""
        deadline = time.monotonic() + DEADLINE
        while self._read(0.05):
            assert time.monotonic() < deadline, f"still running; seen: {self.seen()}"
        return self.process.wait(DEADLINE)

    def type(self, keys: bytes) -> None:
        os.write(self._side, keys)

    def close(self) -> None:
        """As when the window is closed; a second time nothing happens."""
        if self._side >= 0:
            os.close(self._side)
        self._side = -1

    def _read(self, seconds: float) -> bool:
        """Take what comes within that time; False when nothing can come any more."""
        ready, _, _ = select.select([self._side], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._side, 65536)
        except OSError:  # the last process that had the terminal has closed it
            return False
        self._bytes += data
        return bool(data)


@contextmanager
def on_a_terminal(*arguments: str | Path, width: int = 120, cwd: Path) -> Iterator[Screen]:
    """The command with a terminal of its own for input, output and errors, and for Ctrl-C."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    # A session of its own, whose terminal this is: so that the kernel makes signals of its keys.
    attach = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        " os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", attach, EDGECLOUD, *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment(TERM="xterm-256color", COLUMNS=""),
    )  # fmt: skip
    os.close(theirs)
    screen = Screen(process, ours)
    try:
        yield screen
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        screen.close()


def counts(path: Path, steps: int, seconds: float = 0.02) -> Path:
    program = {"command": ["python", str(PROGRAMS / "counts.py"), str(steps), str(seconds)]}
    return job_file(path / "job.yaml", "counting", program=program)


def table(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()[-3:]]


def test_a_run_on_a_terminal(tmp_path: Path) -> None:
    file = counts(tmp_path, 100)
    with on_a_terminal("run", file, cwd=tmp_path) as screen:
        screen.until(lambda: BAR in screen.raw, "the bar appears")
        screen.until(lambda: re.search(r"Running.*workers 1/1.*round 1.*restarts 0", screen.text), "the head says so")
        screen.until(lambda: re.search(r"[1-9]\d?% +step \d+/100 +loss 0\.\d+", screen.text), "its numbers rise")
        assert screen.end() == 0, screen.text[-2000:]
    assert re.search(r"\d\d:\d\d:\d\d RoundOpened: round 1 with 1 worker", screen.text)
    last = screen.raw[screen.raw.rindex("NAME ") :]
    assert "\x1b" not in last and BAR not in last, "the table is plain text, and nothing is drawn over it"
    heads, row, places = table(screen.text)
    assert heads == "NAME PHASE WORKERS PROGRESS ETA LOSS RESTARTS ACCURACY SAMPLES/S ROUND REASON AGE"
    assert re.fullmatch(r"counting Succeeded 1/1 100% 0\.01 0 50 1 AllWorkersSucceeded \d+s", row)
    assert places == "results: runs/counting/results checkpoints: runs/counting/checkpoints logs: runs/counting/logs"
    assert screen.raw.count("\x1b[?25l") == screen.raw.count("\x1b[?25h") == 1


def test_ctrl_c_on_a_narrow_terminal(tmp_path: Path) -> None:
    file = counts(tmp_path, 100_000)
    with on_a_terminal("run", file, cwd=tmp_path, width=40) as screen:
        screen.until(lambda: "Running" in screen.text, "it runs")
        screen.until((tmp_path / "runs/counting/checkpoints/counts-0.json").exists, "it has a checkpoint")
        screen.type(b"\x03")
        assert screen.end() == 130, screen.text[-2000:]
    assert "SIGINT: stopping at a checkpoint" in screen.text
    assert "the same command goes on from there" in screen.text
    assert "Traceback" not in screen.text
    assert screen.raw.rindex("\x1b[?25h") > screen.raw.rindex("\x1b[?25l"), "the cursor comes back"


def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """A stop like any other, with a checkpoint, though nobody is left to be told of it."""
    file = counts(tmp_path, 100_000)
    with on_a_terminal("run", file, cwd=tmp_path) as screen:
        screen.until((tmp_path / "runs/counting/checkpoints/counts-0.json").exists, "it has a checkpoint")
        screen.close()
        assert screen.process.wait(DEADLINE) == 129
    assert "stops after step" in (tmp_path / "runs/counting/logs/worker-0.log").read_text()
    job = Workdir(tmp_path / "runs/counting").load()
    assert job is not None and job.status is not None and job.status.phase == "Suspended"
