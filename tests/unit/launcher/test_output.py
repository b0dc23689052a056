"""Logs of bounded size, lines that stay whole, and a reader that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.launcher.log import Log, line_of
from edgecloud.launcher.output import KEPT, MAX_LINE, Output, Tail
from edgecloud.launcher.sinks import LogFile, Sink, Stream


class Kept(Sink):
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_a_log_file_is_appended_to_and_rotated_at_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\n")
    log = LogFile(path, 20)
    log.write(b"12345678\n")
    log.write(b"abcdefgh\nijklmnop\n")
    assert path.with_name("log.1").read_bytes() == b"old\n12345678\n"
    assert path.read_bytes() == b"abcdefgh\nijklmnop\n"
    log.write(b"x" * 50 + b"\n")  # a line longer than a whole file is cut
    assert path.read_bytes() == b"x" * 10 + b"\n"
    assert path.with_name("log.1").read_bytes() == b"x" * 20


@given(st.lists(st.binary(max_size=60) | st.just(b"a line\n"), max_size=30), st.integers(1, 50))
@settings(deadline=None)
def test_a_log_file_never_exceeds_its_bound_and_loses_nothing_new(pieces: list[bytes], bound: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, old = Path(folder, "log"), Path(folder, "log.1")
        log = LogFile(path, bound)
        for piece in pieces:
            log.write(piece)
            assert path.stat().st_size <= bound
            assert not old.exists() or old.stat().st_size <= bound
        os.close(log._file)
        kept = (old.read_bytes() if old.exists() else b"") + path.read_bytes()
        assert b"".join(pieces).endswith(kept)


def test_our_lines_begin_at_the_start_of_a_line(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "log", 1000)
    log = Log(file)
    file.write(b"a question? ")
    log("an\x1b[1m answer\nin two lines")
    log("another")
    assert (tmp_path / "log").read_text().splitlines() == [
        "a question? ",
        "edgecloud-launcher: an answer | in two lines",
        "edgecloud-launcher: another",
    ]
    assert len(line_of("x" * 10000)) < 2100


def test_a_log_file_that_cannot_be_moved_stays_bounded(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", 10)
    (tmp_path / "log.1").mkdir()
    (tmp_path / "log.1" / "in-the-way").write_text("")
    for _ in range(5):
        log.write(b"1234567\n")
    assert (tmp_path / "log").stat().st_size <= 10


@given(st.lists(st.binary(max_size=50), max_size=20))
@settings(deadline=None)
def test_the_tail_is_the_end(pieces: list[bytes]) -> None:
    tail = Tail()
    for piece in pieces:
        tail.add(piece * 1000)
    whole = b"".join(piece * 1000 for piece in pieces)
    assert tail.text() == whole[-KEPT:].decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("written", "prefix", "expected"),
    [
        ([b"a", b"b\nc"], b"", b"ab\nc"),
        ([b"a", b"b\nc"], b"[0] ", b"[0] ab\n[0] c\n"),
        ([b"a\n\nb\n"], b"[0] ", b"[0] a\n[0] \n[0] b\n"),
        ([b"x" * (MAX_LINE + 1), b"y\n"], b"[0] ", b"[0] " + b"x" * (MAX_LINE + 1) + b"\n[0] y\n"),
        ([], b"[0] ", b""),
        ([b"\r1/9", b"\r2/9"], b"[0] ", b"[0] 1/9\n[0] 2/9\n"),  # a progress bar
        ([b"1/9\r", b"2/9\r", b"\nend"], b"[0] ", b"[0] 1/9\n[0] 2/9\r\n[0] end\n"),
        ([b"a\r", b"\nb\r\r\n", b"\n\rc\n"], b"[0] ", b"[0] a\r\n[0] b\r\r\n[0] \n[0] c\n"),
        ([b"1\r2"], b"", b"1\r2"),
        ([b"\r" * MAX_LINE, b"\n"], b"[0] ", b"[0] " + b"\r" * MAX_LINE + b"\n"),  # half a minute, if in squares
        ([b"\r" * (MAX_LINE + 1), b"y\n"], b"[0] ", b"[0] "),
    ],
)
def test_lines(written: list[bytes], prefix: bytes, expected: bytes) -> None:
    async def work() -> bytes:
        sink = Kept()
        output = Output(asyncio.get_running_loop(), sink, prefix)
        for data in written:
            written_at = 0
            while written_at < len(data):
                written_at += os.write(output.writer, data[written_at : written_at + 65536])
                output.drain()
        output.close()
        return sink.data

    assert asyncio.run(work()).startswith(expected)


def test_a_progress_bar_shows_while_it_grows() -> None:
    async def work() -> bytes:
        sink = Kept()
        output = Output(asyncio.get_running_loop(), sink, b"[0] ")
        os.write(output.writer, b"\r1/9\r2/9")
        output.drain()
        seen = sink.data
        output.close()
        return seen

    assert asyncio.run(work()) == b"[0] 1/9\n"


def test_a_pipe_that_others_hold_open_is_let_go() -> None:
    async def work() -> bytes:
        sink = Kept()
        output = Output(asyncio.get_running_loop(), sink)
        held = os.dup(output.writer)
        os.write(held, b"last words")
        output.started()
        output.close()
        os.close(held)
        return sink.data

    assert asyncio.run(work()) == b"last words"


def test_writers_pause_while_nobody_reads() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        stream = Stream(loop, writer)
        output = Output(loop, stream)
        os.set_blocking(output.writer, False)
        sent = 0
        for _ in range(200):
            with contextlib.suppress(BlockingIOError):
                sent += os.write(output.writer, b"x" * 65536)
            await asyncio.sleep(0)
        assert stream.full
        assert sent < 400_000  # three pipes' worth, not 200
        output.started()
        got = 0
        while got < sent:
            got += len(await loop.run_in_executor(None, os.read, reader, 65536))
        assert not stream.full
        output.close()
        os.close(reader)
        os.close(writer)

    asyncio.run(work())


def test_a_stream_into_a_file_or_to_nobody(tmp_path: Path) -> None:
    async def work(descriptor: int, before: Callable[[], None] = lambda: None) -> None:
        stream = Stream(asyncio.get_running_loop(), descriptor)
        before()
        for _ in range(3):
            stream.write(b"x" * 100_000)
        assert not stream.full
        await stream.drained(1.0)

    with (tmp_path / "file").open("wb") as file:
        asyncio.run(work(file.fileno()))
    assert (tmp_path / "file").stat().st_size == 300_000
    with Path("/dev/null").open("wb") as nowhere:
        asyncio.run(work(nowhere.fileno()))
    reader, writer = os.pipe()
    asyncio.run(work(writer, lambda: os.close(reader)))
    os.close(writer)
