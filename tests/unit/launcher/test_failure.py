"""Why processes fail, as tables; and the files in which they say it themselves."""

from __future__ import annotations

import errno
import json
import os
import signal
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.launcher import failure
from edgecloud.launcher.failure import Note
from edgecloud.launcher.process import first_cause
from edgecloud.launcher.verdict import End
from edgecloud.protocol import FailureReason, FailureReport


def test_the_reasons_are_the_protocols() -> None:
    assert set(failure.REASONS) == set(typing.get_args(FailureReason))


@pytest.mark.parametrize(
    ("end", "text", "noted", "expected"),
    [
        (End(code=1), "", None, "ProgramError"),
        (End(code=1), "ValueError: x", None, "ProgramError"),
        (End(code=2), "", None, "BadConfiguration"),
        (End(code=2), "MemoryError", None, "BadConfiguration"),
        (End(code=75), "", None, "Transient"),
        (End(code=126), "", None, "StartFailed"),
        (End(code=127), "sh: 1: pyhton: not found", None, "StartFailed"),
        (End(code=1), "NonFinite", "NonFinite", "NonFinite"),
        (End(code=2), "", "GPUNotVisible", "GPUNotVisible"),
        (End(signal=signal.SIGKILL), "MemoryError", None, "Killed"),
        (End(signal=signal.SIGSEGV), "", "NonFinite", "Killed"),
        (End(signal=signal.SIGABRT), "what():  std::bad_alloc", None, "OutOfMemory"),
        (End(signal=signal.SIGABRT), "assertion failed", None, "Killed"),
        (End(code=137), "", None, "Killed"),  # as a shell says it of its program
        (End(code=139), "MemoryError", None, "Killed"),
        (End(code=134), "what():  std::bad_alloc", None, "OutOfMemory"),
        (End(code=137), "", "NonFinite", "NonFinite"),
        (End(code=128), "", None, "ProgramError"),
        (End(code=141), "", None, "ProgramError"),
        (End(code=1), "MemoryError", None, "OutOfMemory"),
        (End(code=1), "numpy.core._exceptions._ArrayMemoryError: Unable to allocate", None, "ProgramError"),
        (End(code=1), "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", None, "OutOfMemory"),
        (End(code=1), "OSError: [Errno 12] Cannot allocate memory", None, "OutOfMemory"),
        (End(code=1), "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", None, "OutOfMemory"),
        (End(code=1), "RuntimeError: CUDA error: out of memory", None, "OutOfMemory"),
        (End(code=1), "RuntimeError: CUDA error: an illegal memory access", None, "ProgramError"),
    ],
)
def test_classify(end: End, text: str, noted: str | None, expected: str) -> None:
    assert failure.classify(end, text, noted) == expected


@pytest.mark.parametrize(
    ("end", "output", "note", "expected"),
    [
        (End(code=3), "", Note(), "exited with code 3 and printed nothing"),
        (End(code=3), "a\n\nb \n", Note(), "a\nb"),
        (End(code=3), "noise", Note(message="KeyError: 'x'"), "KeyError: 'x'"),
        (
            End(signal=signal.SIGSEGV),
            "",
            Note(),
            "killed by SIGSEGV (segmentation fault: an error in native code, of the program or of a library it uses); "
            "it printed nothing",
        ),
        (End(signal=signal.SIGUSR2), "the last line", Note(), "killed by SIGUSR2\nthe last line"),
        (
            End(code=136),
            "x",
            Note(),
            "killed by SIGFPE (arithmetic error, such as a division by zero in native code)\nx",
        ),
    ],
)
def test_describe(end: End, output: str, note: Note, expected: str) -> None:
    assert failure.describe(end, output, note) == expected


@given(
    st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")), st.sampled_from([End(1), End(None, 9)])
)
@settings(deadline=None)
def test_whatever_is_printed_the_report_is_valid(text: str, end: End) -> None:
    message = failure.describe(end, text * 50, Note(message=text))
    assert len(message) <= failure.MAX_CHARACTERS
    report = failure.report(local_rank=0, rank=0, reason="ProgramError", message=message, at=1.0, end=end)
    FailureReport.parse(report)
    assert all(character.isprintable() or ord(character) >= 0xA0 or character in "\n\t" for character in message)


def test_a_shells_word_for_a_signal_is_reported_as_both() -> None:
    said = failure.report(local_rank=0, rank=0, reason="Killed", message="", at=1.0, end=End(code=137))
    assert (said["exitCode"], said["signal"]) == (137, "SIGKILL")


def test_a_shells_word_for_a_signal_names_the_first_cause() -> None:
    victim, killed = (SimpleNamespace(end=End(code=code), local_rank=n) for n, code in enumerate((1, 137)))
    cause, _ = first_cause([(typing.cast("Any", victim), Note(at=1.0)), (typing.cast("Any", killed), Note())])
    assert cause is killed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("10%\r50%\r100%\r\nnext", "100%\nnext"),
        ("bell\x07 null\x00 \ud800", "bell null ?"),
        ("tab\tkept", "tab\tkept"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert failure.printable(text) == expected


def test_the_last_lines_are_the_ones_that_are_kept() -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    assert failure.last_lines(text).split("\n") == [f"line {number}" for number in range(80, 100)]
    assert failure.last_lines("x" * 5000 + "end") == "x" * 1997 + "end"


FRAMES = (
    "c10d::ProcessGroupNCCL::checkForNCCLErrorsInternal(std::shared_ptr<c10d::NCCLComm>&) + 0x220 (0x7f3bb9dc1da0 in"
    " /opt/edgecloud/lib/python3.11/site-packages/torch/lib/libtorch_cuda.so)",
    "<unknown function> + 0x891c4 (0x7f3c2068b1c4 in /lib/x86_64-linux-gnu/libc.so.6)",
    "/usr/bin/python3() [0x53bd79]",
)


def test_a_stack_does_not_hide_what_it_is_below() -> None:
    """An abort by NCCL's watchdog said nothing but this: neither why, nor that it was for the loss of another rank."""
    said = ["what(): NCCL error: remote process exited", "Exception raised from run (most recent call first):"]
    stack = [f"frame #{number}: {FRAMES[number % 3]}" for number in range(30)]
    assert failure.last_lines("\n".join((*said, *stack, "", *stack))).split("\n") == said
    told = ["frame #7: 12 objects (0.3 s)", "frame #8: dropped", "at frame #9: f() + 0x1 (0x7f in /lib/a.so)"]
    assert failure.last_lines("\n".join(told)).split("\n") == told, "a program's own"


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (errno.ENOENT, "StartFailed", "PATH"),
        (errno.EACCES, "StartFailed", "chmod +x"),
        (errno.ENOEXEC, "StartFailed", "another kind of CPU"),
        (errno.EAGAIN, "Transient", "unavailable"),
        (errno.ENOMEM, "Transient", "memory"),
    ],
)
def test_start_failure(number: int, reason: str, words: str) -> None:
    found, message = failure.start_failure(OSError(number, os.strerror(number)), "train")
    assert found == reason
    assert "'train'" in message and words.lower() in message.lower()


@pytest.mark.parametrize(
    ("report", "code"),
    [
        ({"reason": "ProgramError", "exitCode": 3}, 3),
        ({"reason": "Killed", "signal": "SIGKILL"}, 137),
        ({"reason": "Killed", "signal": "SIGRTMIN+3"}, 1),
        ({"reason": "StartFailed"}, 2),
        ({"reason": "PortTaken"}, 75),
        ({"reason": "Transient"}, 75),
    ],
)
def test_exit_code(report: dict[str, Any], code: int) -> None:
    assert failure.exit_code(report) == code


@pytest.mark.parametrize(
    ("error", "own", "expected"),
    [
        (None, None, Note()),
        ({"message": {"message": "E: x", "extraInfo": {"timestamp": "12"}}}, None, Note(message="E: x", at=12.0)),
        ({"message": {"message": "E: x", "extraInfo": {"timestamp": "soon"}}}, None, Note(message="E: x")),
        ({"message": {"message": "E: x"}}, None, Note(message="E: x")),
        ({"message": "E: x"}, None, Note(message="E: x")),
        ({"message": 3}, None, Note()),
        ([], None, Note()),
        (None, {"reason": "NonFinite", "message": "m"}, Note(reason="NonFinite", message="m")),
        (None, {"reason": "NonFinite"}, Note(reason="NonFinite")),
        ({"message": "E: x"}, {"reason": "Made up", "message": "m"}, Note(message="E: x")),
        (None, {"reason": ["NonFinite"]}, Note()),
        (None, {"reason": "NonFinite", "message": 3}, Note()),
        (None, {"reason": "Transient", "seenRound": 7}, Note(reason="Transient", seen_round=7)),
        (None, {"reason": "Transient", "seenRound": -1}, Note(reason="Transient")),
        (None, {"reason": "Transient", "seenRound": 10**10}, Note(reason="Transient")),
        (None, {"reason": "Transient", "seenRound": True}, Note(reason="Transient")),
    ],
)
def test_notes(tmp_path: Path, error: Any, own: Any, expected: Note) -> None:
    for name, document in (("error", error), ("own", own)):
        if document is not None:
            (tmp_path / name).write_text(json.dumps(document))
    assert failure.read_note(tmp_path / "error", tmp_path / "own") == expected


def test_traps_in_place_of_a_note(tmp_path: Path) -> None:
    error, own = tmp_path / "error", tmp_path / "own"
    os.mkfifo(error)
    own.symlink_to("/dev/zero")
    assert failure.read_note(error, own) == Note()
    error.unlink()
    error.write_bytes(b"[" * 1_000_000)
    own.unlink()
    own.mkdir()
    assert failure.read_note(error, own) == Note()
