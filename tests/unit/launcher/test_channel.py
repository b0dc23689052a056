"""The channel: what is written is read, the flag gets through, and no bytes in the file can hurt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.launcher import channel, progress
from edgecloud.launcher.channel import LauncherEnd, ProcessEnd
from edgecloud.protocol import ProgressReport
from tests.unit.launcher.harness import SOURCES, eventually

FINITE = st.floats(allow_nan=False, allow_infinity=False)
REPORTS = st.fixed_dictionaries(
    {"step": st.integers(0, 2**53), "reportedAt": st.floats(0, 1e11)},
    optional={
        "totalSteps": st.integers(0, 2**53),
        "epoch": st.floats(0, 1e9),
        "loss": FINITE,
        "accuracy": st.floats(0, 1),
        "samplesPerSecond": st.floats(0, 1e12),
        "checkpointStep": st.integers(0, 2**53),
        "evaluation": st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), FINITE | st.none(), max_size=5),
        "metrics": st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,9}", fullmatch=True), FINITE, min_size=1, max_size=32),
    },
)


@contextmanager
def ends() -> Iterator[tuple[LauncherEnd, ProcessEnd]]:
    with tempfile.TemporaryDirectory() as folder:
        launcher = LauncherEnd(Path(folder, "channel"))
        try:
            yield launcher, ProcessEnd(str(launcher.path))
        finally:
            launcher.close()


@given(st.lists(REPORTS, min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(reports: list[dict[str, Any]]) -> None:
    with ends() as (launcher, process):
        assert launcher.progress() is None
        for report in reports:
            process.write(report)
            assert launcher.progress() == report
            assert launcher.progress() == report
            ProgressReport.parse(report)


@given(st.binary(max_size=channel.SIZE + 100), st.integers(0, channel.SIZE))
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_the_file_are_safe(data: bytes, offset: int) -> None:
    with ends() as (launcher, process):
        process.write({"step": 1, "reportedAt": 1.0})
        with launcher.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        seen = launcher.progress()
        if seen is not None:
            ProgressReport.parse(seen)
        assert launcher.attached in (True, False)
        launcher.stop()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.sampled_from([*progress.RANGES, "metrics", *progress.DOCUMENTS]), inner)
        ),
    )
    | REPORTS
)
@settings(max_examples=80, deadline=None)
def test_any_document_in_the_file_is_dropped_or_a_valid_report(document: Any) -> None:
    body = json.dumps(document).encode()[: channel.CAPACITY]
    with ends() as (launcher, process):
        process._map[channel.BODY : channel.BODY + len(body)] = body
        channel._HEAD.pack_into(process._map, channel.HEAD, 2, len(body), channel.checksum(2, body))
        seen = launcher.progress()
        if seen is not None:
            ProgressReport.parse(seen)


@pytest.mark.parametrize(
    "body", [b"[" * 7000, b"{" * 7000, b"9" * 7000, b'{"step":1e999,"reportedAt":NaN}', b"\xff\xfe", b""]
)
def test_hostile_documents(body: bytes) -> None:
    with ends() as (launcher, process):
        process._map[channel.BODY : channel.BODY + len(body)] = body
        channel._HEAD.pack_into(process._map, channel.HEAD, 2, len(body), channel.checksum(2, body))
        assert launcher.progress() is None


def test_all_documents_at_their_largest_fit() -> None:
    with ends() as (launcher, process):
        room = progress.MAX_DOCUMENT - len('{"x":""}')
        report = {"step": 1, "reportedAt": 1.0, **{name: {"x": "x" * room} for name in progress.DOCUMENTS}}
        process.write(report | {"metrics": {"a": 1.0}})
        assert launcher.progress() == report | {"metrics": {"a": 1.0}}


@pytest.mark.parametrize("size", [8192, 2 * channel.SIZE])
def test_a_channel_of_another_release_has_another_size(size: int, tmp_path: Path) -> None:
    """A launcher comes as a zipapp into images with any release of the worker module."""
    launcher = LauncherEnd(tmp_path / "channel")
    os.truncate(launcher.path, size)
    process = ProcessEnd(str(launcher.path))
    large = {name: {"x": "x" * 2300} for name in progress.DOCUMENTS}
    process.write({"step": 1, "reportedAt": 1.0, **large})
    seen = launcher.progress()
    assert seen is not None and seen["step"] == 1
    assert (seen == {"step": 1, "reportedAt": 1.0}) == (size < channel.SIZE)
    launcher.stop()
    assert process.stop_asked()
    launcher.close()


def test_a_torn_report_is_passed_over_and_the_next_one_read() -> None:
    with ends() as (launcher, process):
        process.write({"step": 1, "reportedAt": 1.0})
        assert launcher.progress() == {"step": 1, "reportedAt": 1.0}
        channel._SEQUENCE.pack_into(process._map, channel.HEAD, 3)  # killed while it wrote
        process._map[channel.BODY] = 0
        assert launcher.progress() == {"step": 1, "reportedAt": 1.0}
        process.write({"step": 2, "reportedAt": 2.0})
        assert launcher.progress() == {"step": 2, "reportedAt": 2.0}


def test_a_file_that_was_shortened_or_deleted() -> None:
    with ends() as (launcher, process):
        process.write({"step": 1, "reportedAt": 1.0})
        os.truncate(launcher.path, 10)
        assert launcher.progress() is None
        assert not launcher.attached
        launcher.stop()
        launcher.path.unlink()
        assert launcher.progress() is None


def test_the_flag_and_the_mark() -> None:
    with ends() as (launcher, process):
        assert not launcher.attached and not process.stop_asked()
        process.attach(os.getpid())
        launcher.stop()
        assert launcher.attached and process.stop_asked() and not process.end_told()
        launcher.end()
        launcher.stop()
        assert process.stop_asked() and process.end_told(), "there is no way back"


def test_metrics_that_do_not_fit_are_left_out() -> None:
    with ends() as (launcher, process):
        wide = {f"{index:02}{chr(0x1D6FC) * 61}": 0.1234567890123456 for index in range(32)}
        process.write({"step": 1, "reportedAt": 1.0, "metrics": wide, "evaluation": {"x": "x" * 2300}})
        assert (launcher.progress() or {})["metrics"] == wide
        documents = {name: {"x": "x" * 2000} for name in ("evaluation", "performance")}
        process.write({"step": 1, "reportedAt": 1.0, "metrics": wide, **documents})
        seen = launcher.progress()
        assert seen is not None and seen["step"] == 1 and seen["performance"] == documents["performance"]
        assert 16 < len(seen["metrics"]) < 32
        assert set(seen["metrics"]) < set(wide)


def test_no_such_channel(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ProcessEnd(str(tmp_path / "none"))
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"x" * channel.SIZE)
    for name in ("short", "other"):
        with pytest.raises(ValueError, match=r"channel|size"):
            ProcessEnd(str(tmp_path / name))


def test_readers_never_see_half_of_what_a_busy_process_writes(tmp_path: Path) -> None:
    """Another process writes as fast as it can; every report that is read is one that was written."""
    launcher = LauncherEnd(tmp_path / "channel")
    script = (
        "import sys\n"
        "from edgecloud.launcher.channel import ProcessEnd\n"
        "end = ProcessEnd(sys.argv[1])\n"
        "step = 0\n"
        "while not end.stop_asked():\n"
        "    step += 1\n"
        "    end.write({'step': step, 'totalSteps': 2 * step, 'reportedAt': 1.0,"
        " 'metrics': {'m' * (step % 50 + 1): step}})\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(launcher.path)], env={**os.environ, "PYTHONPATH": str(SOURCES)}
    )
    try:
        steps: set[int] = set()

        def read_many() -> bool:
            for _ in range(500):
                seen = launcher.progress()
                if seen is not None:
                    assert seen["totalSteps"] == 2 * seen["step"]
                    assert seen["metrics"] == {"m" * (seen["step"] % 50 + 1): seen["step"]}
                    steps.add(seen["step"])
            return len(steps) > 300

        eventually(read_many, "300 different reports", saw=lambda: len(steps))
        launcher.stop()
        assert writer.wait(10) == 0
    finally:
        writer.kill()
        writer.wait()
        launcher.close()


def test_documents_go_last_if_nothing_else_helps() -> None:
    with ends() as (launcher, process):
        large = {name: {"text": "x" * 4000} for name in progress.DOCUMENTS}
        process.write({"step": 1, "reportedAt": 1.0, "metrics": {"a": 1.0}, **large})
        assert launcher.progress() == {"step": 1, "reportedAt": 1.0}
