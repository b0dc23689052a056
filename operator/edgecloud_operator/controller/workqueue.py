"""A queue of keys in which each key stands once and is worked on by one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """How a queue stands; times in seconds.

    depth: keys that could be taken. oldest: how long the first of them has been there. idle: since anything was taken,
    finished or moved on, or since there was anything to take, whichever is less. stuck: the longest time for which a
    key has been worked on without moving on.
    """

    depth: int = 0
    oldest: float = 0.0
    idle: float = 0.0
    stuck: float = 0.0


class WorkQueue(Generic[K]):
    """Keys to look at: one that waits already is not added twice, one that is being worked on comes again.

    The same contract as client-go's workqueue, with delays; a key has at most one delay, the shortest.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, on_wait: Callable[[float], None] | None = None
    ) -> None:
        """on_wait: told of each key that is taken, how long it could have been."""
        self._clock = clock
        self._on_wait = on_wait
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._since: dict[K, float] = {}
        """Of each key that could be taken: since when; the oldest first."""
        self._waiting: set[K] = set()
        self._working: dict[K, float] = {}
        """Of each key that is being worked on: when it was taken, or last moved on."""
        self._moved = clock()
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K) -> None:
        """Look at a key soon."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._offer(key)

    def _offer(self, key: K) -> None:
        self._since[key] = self._clock()
        self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Look at a key in a while, unless something brings it back earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def get(self) -> K:
        """The next key; the caller says done(key) when it has seen to it."""
        key = await self._ready.get()
        self._waiting.discard(key)
        now = self._clock()
        since = self._since.pop(key, now)
        self._working[key] = self._moved = now
        if self._on_wait:
            self._on_wait(now - since)
        return key

    def move(self, key: K) -> None:
        """A part of the work on a key is done; it is not stuck."""
        if key in self._working:
            self._working[key] = self._moved = self._clock()

    def done(self, key: K) -> None:
        self._working.pop(key, None)
        self._moved = self._clock()
        if key in self._waiting:
            self._offer(key)

    def forget(self, key: K) -> None:
        """Drop a key's delay."""
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def close(self) -> None:
        """Drop every delay."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def begin(self) -> None:
        """There is somebody to take keys only from now on: nobody has waited before that."""
        self._moved = self._clock()
        self._since = dict.fromkeys(self._since, self._moved)

    def backlog(self) -> Backlog:
        """How it stands now."""
        now = self._clock()
        oldest = now - next(iter(self._since.values()), now)
        stuck = now - min(self._working.values(), default=now)
        return Backlog(depth=len(self._since), oldest=oldest, idle=min(oldest, now - self._moved), stuck=stuck)
