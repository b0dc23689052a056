"""Where the time of a training goes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

WINDOW_STEPS: Final = 50
FIRST_STEPS: Final = 3
"""Left out of the totals: allocators and kernels warm up."""


class Stopwatch:
    """Adds up this rank's times; the speed of the moment comes from a rolling window."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW_STEPS)
        self._began = time.perf_counter()
        self._steps = 0
        self._samples = 0
        self._seconds = self._data = self._wait = 0.0

    def add(self, *, samples: int, seconds: float, data_seconds: float, wait_seconds: float) -> None:
        """One step: samples of all ranks together, seconds of this one."""
        self._steps += 1
        self._recent.append((time.perf_counter(), samples))
        if self._steps > FIRST_STEPS:
            self._samples += samples
            self._seconds += seconds
            self._data += data_seconds
            self._wait += wait_seconds

    @property
    def elapsed(self) -> float:
        """Seconds since this process began to train."""
        return time.perf_counter() - self._began

    @property
    def samples_per_second(self) -> float | None:
        """Of all ranks, over the last steps."""
        if len(self._recent) < 2:
            return None
        elapsed = self._recent[-1][0] - self._recent[0][0]
        samples = sum(count for _, count in list(self._recent)[1:])
        return samples / elapsed if elapsed > 0 else None

    def to_json(self, *, world_size: int, threads: int) -> dict[str, Any]:
        """Totals since this process began; of so few steps that nothing was measured there are no speeds.

        scalingEfficiency: the part of a step that is not spent waiting for others; with one rank it is 1.
        """
        seconds = self._seconds
        what: dict[str, Any] = {"steps": self._steps, "worldSize": world_size, "threads": threads}
        if seconds <= 0:
            return what
        return what | {
            "samplesPerSecond": round(self._samples / seconds, 1),
            "samplesPerSecondPerRank": round(self._samples / seconds / world_size, 1),
            "dataFraction": round(self._data / seconds, 4),
            "communicationFraction": round(self._wait / seconds, 4) if world_size > 1 else 0.0,
            "scalingEfficiency": round(1 - self._wait / seconds, 4) if world_size > 1 else 1.0,
        }
