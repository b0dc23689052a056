"""Connections that there is no room for yet: they wait outside, unread, in a line for each address. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from edgecloud_operator.coordinator.door import Door, Visit

MAX_WAITING: Final = 2_048
"""Two for each of a thousand workers behind one address. Each costs a socket, with some KiB that nobody has read."""
WAIT_SECONDS: Final = 4.0
"""The longest that one waits: a launcher gives up after 5 s, and comes again."""

T = TypeVar("T")


class Waiting(Generic[T]):
    """Those who came when the door had no room for them; they are let in in turns, one of each address.

    When as many wait as may, the last one of the longest line makes room for whoever comes from another address: those
    of one address keep nobody else from waiting.
    """

    def __init__(self, door: Door, limit: int) -> None:
        self._door = door
        self._limit = limit
        self._lines: dict[str, deque[tuple[float, T]]] = {}
        """By address, the one whose turn is next first: none is empty. When each has come (seconds), and who."""
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def has(self, address: str) -> bool:
        """Whether somebody of that address waits, behind whom others of it have to stand."""
        return address in self._lines

    def join(self, address: str, one: T, now: float) -> tuple[str, T] | None:
        """Let one wait; whoever can't wait because of that, with its address: perhaps that one itself."""
        out = None
        if self._number >= self._limit:
            own = len(self._lines.get(address, ()))
            longest = max(self._lines, key=lambda other: len(self._lines[other]), default=address)
            if len(self._lines.get(longest, ())) <= own + 1:
                return address, one
            out = longest, self._lines[longest].pop()[1]
            self._number -= 1
        self._lines.setdefault(address, deque()).append((now, one))
        self._number += 1
        return out

    def admit(self, now: float) -> Iterator[tuple[T, Visit]]:
        """Those that there is room for now; whoever is not asked for goes on waiting."""
        waiting = list(self._lines)
        while waiting:
            more = []
            for address in waiting:
                if visit := self._door.enter(address, now):
                    one = self._next(address)
                    if address in self._lines:
                        more.append(address)
                    yield one, visit
            waiting = more

    def _next(self, address: str) -> T:
        """Take the first of a line; the line goes behind the others."""
        line = self._lines.pop(address)
        _, one = line.popleft()
        self._number -= 1
        if line:
            self._lines[address] = line
        return one

    def late(self, now: float) -> Iterator[tuple[str, T]]:
        """Those that have waited too long, with their addresses; they wait no more."""
        for address, line in list(self._lines.items()):
            while line and line[0][0] + WAIT_SECONDS <= now:
                yield address, line.popleft()[1]
                self._number -= 1
            if not line:
                del self._lines[address]

    def clear(self) -> Iterator[T]:
        """All of them; nobody waits any more."""
        lines, self._lines, self._number = self._lines, {}, 0
        return (one for line in lines.values() for _, one in line)
