"""How ends are read, as tables."""

from __future__ import annotations

import signal

import pytest

from edgecloud.launcher.verdict import BROKEN, DONE, LEFT, STOPPED, End, end_of, judge, judge_together, outcome

TERM, KILL = signal.SIGTERM, signal.SIGKILL


@pytest.mark.parametrize(
    ("end", "sent", "excused", "expected"),
    [
        (End(code=0), (), False, DONE),
        (End(code=0), (), True, DONE),
        (End(code=0), (TERM,), False, STOPPED),  # many scripts answer SIGTERM with 0: not complete
        (End(code=143), (), False, LEFT),
        (End(code=143), (TERM,), True, LEFT),
        (End(code=1), (), False, BROKEN),
        (End(code=1), (TERM,), False, STOPPED),  # and others with 1, or with what they catch it by
        (End(code=2), (TERM,), False, STOPPED),
        (End(signal=signal.SIGINT), (TERM,), False, STOPPED),
        (End(signal=signal.SIGINT), (), False, BROKEN),
        (End(code=1), (), True, STOPPED),
        (End(signal=TERM), (TERM,), False, STOPPED),
        (End(signal=TERM), (), False, BROKEN),
        (End(signal=KILL), (TERM, KILL), False, STOPPED),
        (End(signal=KILL), (KILL,), False, STOPPED),
        (End(signal=KILL), (), False, BROKEN),
        (End(signal=signal.SIGABRT), (TERM,), False, STOPPED),  # a peer has left before it
        (End(signal=signal.SIGABRT), (), True, STOPPED),
    ],
)
def test_judge(end: End, sent: tuple[int, ...], excused: bool, expected: str) -> None:
    assert judge(end, sent, excused=excused) == expected


@pytest.mark.parametrize(
    ("ends", "excused", "expected"),
    [
        ([], False, []),
        ([(End(code=1), ()), (End(code=0), ())], False, [BROKEN, DONE]),
        # The neighbour was ended by us at the same moment: its loss is the reason for the other's exit code.
        ([(End(code=1), (TERM,)), (End(signal=TERM), (TERM,))], False, [STOPPED, STOPPED]),
        ([(End(code=1), ())], True, [STOPPED]),
    ],
)
def test_judge_together(ends: list[tuple[End, tuple[int, ...]]], excused: bool, expected: list[str]) -> None:
    assert judge_together(ends, excused=excused) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([DONE, DONE], "succeeded"),
        ([DONE, LEFT], "preempted"),
        ([LEFT, STOPPED], "preempted"),
        ([DONE, BROKEN], "failed"),
        ([STOPPED, BROKEN, LEFT], "failed"),
    ],
)
def test_outcome(verdicts: list[str], expected: str) -> None:
    assert outcome(verdicts) == expected


@pytest.mark.parametrize(
    ("status", "end", "code", "name"),
    [
        (0, End(code=0), 0, None),
        (3 << 8, End(code=3), 3, None),
        (9, End(signal=9), 137, "SIGKILL"),
        (11 | 0x80, End(signal=11), 139, "SIGSEGV"),  # with a core dump
        (signal.SIGRTMIN + 3, End(signal=signal.SIGRTMIN + 3), 128 + signal.SIGRTMIN + 3, "SIGRTMIN+3"),
    ],
)
def test_end_of(status: int, end: End, code: int, name: str | None) -> None:
    assert end_of(status) == end
    assert (end.exit_code, end.signal_name) == (code, name)
