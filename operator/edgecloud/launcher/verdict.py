"""How the end of a process is to be read, and what a set of ends makes of a round. Pure."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass

SUCCEEDED, FAILED, PREEMPTED, IDLE = "succeeded", "failed", "preempted", "idle"

DONE = "done"
"""Ended with 0: its work is complete."""
LEFT = "left"
"""Ended with 143: it saved and left, because it was asked to or agreed so with the other ranks."""
STOPPED = "stopped"
"""Ended after we had asked it to, or after one of its neighbours was."""
BROKEN = "broken"
"""Ended any other way."""

PREEMPTED_CODE = 143
_DEADLY = frozenset(
    {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE},
)
"""Signals that no program ends itself with on purpose."""


@dataclass(frozen=True)
class End:
    """How a process ended: an exit code or a signal's number."""

    code: int | None = None
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """As a shell would give it."""
        return self.code if self.code is not None else 128 + (self.signal or 0)

    @property
    def killed_by(self) -> int | None:
        """The signal that ended it, or the deadly one that, by its exit code, ended the program of the shell it is."""
        if self.code is not None and self.code - 128 in _DEADLY:
            return self.code - 128
        return self.signal

    @property
    def signal_name(self) -> str | None:
        return None if self.killed_by is None else signal_name(self.killed_by)


def end_of(status: int) -> End:
    """What waitpid() returned, in our words."""
    if os.WIFSIGNALED(status):
        return End(signal=os.WTERMSIG(status))
    return End(code=os.WEXITSTATUS(status))


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def judge(end: End, sent: Collection[int], *, excused: bool = False) -> str:
    """Read the end of one process.

    Args:
        end: how it ended.
        sent: the signals that we had sent to it.
        excused: it may end as it likes: everything is being ended, or a process of this worker has been ended by us,
            and what fails after that fails because its collectives lost a peer.
    """
    if end.code == PREEMPTED_CODE:
        return LEFT
    if signal.SIGTERM in sent:
        # Scripts answer it in their own ways: with 0, with 1, with a KeyboardInterrupt, with an abort for a peer that
        # was quicker. Taken for complete, a job would end half trained, and taken for broken, its neighbour that still
        # saves would be killed; taken for stopped, one that had just finished or failed goes on from its last
        # checkpoint and does so again.
        return STOPPED
    if end.code == 0:
        return DONE
    if end.signal is not None and end.signal in sent:
        return STOPPED
    return STOPPED if excused else BROKEN


def judge_together(ends: Sequence[tuple[End, Collection[int]]], *, excused: bool) -> list[str]:
    """Read the ends of processes that were found ended at the same moment, so that nobody knows which was the first."""
    excused = excused or STOPPED in [judge(end, sent) for end, sent in ends]
    return [judge(end, sent, excused=excused) for end, sent in ends]


def outcome(verdicts: Sequence[str]) -> str:
    """How the round ended for this worker."""
    if BROKEN in verdicts:
        return FAILED
    return SUCCEEDED if all(one == DONE for one in verdicts) else PREEMPTED
