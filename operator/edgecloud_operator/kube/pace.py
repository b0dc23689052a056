"""How many writes are made a second in all: a token bucket in which a place in line is kept. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

MAX_PLACES: Final = 4096
FORGET_SECONDS: Final = 60.0

K = TypeVar("K", bound=Hashable)


class Pace(Generic[K]):
    """Bounds the writes of all keys together: at most burst + rate * t in any t seconds.

    A key that has to wait is given a place in line and keeps it however often it asks; nobody waits here.
    """

    def __init__(self, rate: float, burst: int) -> None:
        """rate: writes a second in the long run. burst: writes at once after a quiet time."""
        self._interval = 1.0 / rate
        self._allowance = (burst - 1) * self._interval
        self._last = float("-inf")
        """When the newest place would come if there were no burst."""
        self._places: dict[K, float] = {}

    def wait(self, key: K, now: float) -> float:
        """Seconds until the key may write; 0: it may now, and that has been counted."""
        place = self._places.get(key)
        if place is None:
            self._last = max(self._last + self._interval, now)
            place = self._last - self._allowance
        if place <= now:
            self._places.pop(key, None)
            return 0.0
        self._places[key] = place
        if len(self._places) > MAX_PLACES:  # places that nobody came back for: jobs that were deleted
            self._places = {one: at for one, at in self._places.items() if at > now - FORGET_SECONDS}
        return place - now

    def has_place(self, key: K) -> bool:
        """Whether the key has been put off, and has not written since."""
        return key in self._places
