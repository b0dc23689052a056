"""How many connections, and how many requests, are let in. Pure: time comes from outside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

MAX_CONNECTIONS: Final = 24_000
"""Two for each of ten thousand workers, and some to spare."""
MAX_OF_ADDRESS: Final = 2_000
"""Pods have addresses of their own; those that share their node's have it with a few hundred others at most."""
REQUESTS_A_SECOND: Final = 10.0
"""A worker polls twice in ten seconds, and reports once a second and when something happens."""
REQUESTS_AT_ONCE: Final = 40


class Door:
    """Lets connections in, up to a number in all and of each address."""

    def __init__(self, limit: int = MAX_CONNECTIONS, of_address: int = MAX_OF_ADDRESS) -> None:
        self._limit = limit
        self._of_address = of_address
        self._inside: Counter[str] = Counter()
        self.open = 0

    def enter(self, address: str) -> bool:
        """Whether there is room for one more; it takes that room."""
        if self.open >= self._limit or self._inside[address] >= self._of_address:
            return False
        self._inside[address] += 1
        self.open += 1
        return True

    def leave(self, address: str) -> None:
        """A connection that was let in is closed."""
        self.open -= 1
        self._inside[address] -= 1
        if self._inside[address] <= 0:
            del self._inside[address]


@dataclass
class Bucket:
    """How many requests a worker may make: so many at once after a quiet time, and so many a second in the long run."""

    at_once: int = REQUESTS_AT_ONCE
    left: float = float("inf")
    at: float = float("-inf")

    def take(self, now: float) -> bool:
        """Whether a request may be made now; one that is refused counts for nothing."""
        passed = max(0.0, now - self.at)
        self.left = min(float(self.at_once), self.left + min(passed, 1e6) * REQUESTS_A_SECOND)
        self.at = max(now, self.at)
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
