"""Whose status is written next: a training before a job that only begins, and that before what people look at. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from edgecloud_operator.core.writes import WriteClass
from edgecloud_operator.kube.pace import Pace

STATUS_WRITES: Final = 50.0
"""Status writes of all jobs together, a second, in the long run."""
STATUS_BURST: Final = 100
"""Status writes at once after a quiet time: a hundred jobs may be accepted in the same moment."""
BEGINNING_WRITES: Final = 45.0
"""Of these, writes that no round waits for: a training finds room beside any number of jobs that only begin."""
SHOWN_WRITES: Final = 30.0
"""Of these again, writes that are only looked at: progress, and what blocks a job."""

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Whoever may wait stands in more lines than one; the last one is everybody's, and never long."""

    def __init__(self) -> None:
        rounds: Pace[K] = Pace(STATUS_WRITES, STATUS_BURST)
        beginnings: Pace[K] = Pace(BEGINNING_WRITES, STATUS_BURST)
        shown: Pace[K] = Pace(SHOWN_WRITES, int(SHOWN_WRITES))
        self._lines: dict[WriteClass, tuple[Pace[K], ...]] = {
            "round": (rounds,),
            "beginning": (beginnings, rounds),
            "shown": (shown, beginnings, rounds),
        }

    def wait(self, key: K, kind: WriteClass, now: float) -> float:
        """Seconds until the key may write; 0: it may now, and that has been counted."""
        lines = self._lines[kind]
        # Where it has a place already, it has been through what comes before.
        first = next((number for number, line in enumerate(lines) if line.has_place(key)), 0)
        return next((wait for line in lines[first:] if (wait := line.wait(key, now)) > 0), 0.0)
