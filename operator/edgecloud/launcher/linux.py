"""What PID 1 owes its orphans, and a child its parent: subreaper, parent-death signal, reaping, finding what is left.

Best effort where there is no Linux: without prctl and /proc, the processes themselves are still watched and stopped.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from edgecloud.launcher.verdict import End, end_of

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PF_EXITING = 0x4
_ENDED = ("Z", "X")


def _load_prctl() -> Callable[[int, int], int] | None:
    try:
        import ctypes

        prctl: Any = ctypes.CDLL(None, use_errno=True).prctl
        prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
        prctl.restype = ctypes.c_int
    except (ImportError, OSError, AttributeError):
        return None

    def call(option: int, value: int) -> int:
        return int(prctl(option, value, 0, 0, 0))

    return call


_prctl = _load_prctl()
"""Loaded before any fork: between fork and exec there is no good moment to open a library."""


def become_subreaper() -> None:
    """Have orphans below us become our children, as they would if we were PID 1."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(signal_number: int) -> None:
    """Have the kernel send us this signal when our parent dies."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal_number)


def parent_gone(expected: int | None, first_seen: int) -> bool:
    """Whether the parent died before the kernel was asked to tell us so.

    Args:
        expected: its process id, if that was told.
        first_seen: what getppid() said when the launcher began. Process 1 then counts as gone, for it inherits orphans;
            a parent that is process 1 itself (in a container) has to tell its id.
    """
    now = os.getppid()
    return now != expected if expected is not None else now != first_seen or now == 1


def bound_to(parent: int) -> Callable[[], None]:
    """What a child does between fork and exec so that it never outlives this launcher."""

    def bind() -> None:
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew what to do then
            os.kill(os.getpid(), signal.SIGKILL)

    return bind


def reap() -> dict[int, End]:
    """Collect every child that has ended, ours or inherited: process id to end."""
    ended: dict[int, End] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = end_of(status)


def children(besides: Collection[int] = ()) -> list[int]:
    """The living children of this process, inherited ones included, besides the given ones.

    Their ids are safe to signal: none can be another process's before it was reaped, which nobody but us does.
    """
    parent = str(os.getpid())
    found = []
    try:
        entries = os.listdir("/proc")  # noqa: PTH208  (thousands of entries: names are enough)
    except OSError:
        return []
    for entry in entries:
        if entry.isdigit() and int(entry) not in besides:
            state = _stat(int(entry))
            if state[1:2] == [parent] and state[0] not in _ENDED:
                found.append(int(entry))
    return found


def is_child(pid: int) -> bool:
    """Whether this is a child of this process, be it inherited, that lives."""
    state = _stat(pid)
    return state[1:2] == [str(os.getpid())] and state[0] not in _ENDED


def lives(pid: int) -> bool:
    """Whether there is such a process, ours or not, and it has not ended."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's
    state = _stat(pid)
    return not state or state[0] not in _ENDED


def dying(pid: int) -> bool:
    """Whether the kernel is taking this process apart. Its peers see their connections closed before we see its end."""
    state = _stat(pid)
    return bool(state) and (state[0] in _ENDED or int(state[6]) & _PF_EXITING != 0)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (state, parent, ..., at 6 the flags); none if there is no such."""
    try:
        return Path("/proc", str(pid), "stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def group_alive(leader: int) -> bool:
    """Whether any process of this process group is left."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
