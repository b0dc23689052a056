"""Time that passes only when nobody has anything left to do: a minute of a controller's life takes milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, TypeVar

import pytest

from edgecloud_operator.controller import children, controller
from edgecloud_operator.coordinator import desk

T = TypeVar("T")
BEGAN: Final = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


class _Selector(selectors.DefaultSelector):
    """Where a loop would sleep until its next timer, its clock jumps there."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits, and nothing will ever happen"
            self.now += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def stand_still(self, seconds: float) -> None:
        """As if the process had been stopped for so long: time passes, and nobody does anything."""
        self._clock.now += seconds


class SimulatedDatetime(datetime):
    """The wall clock, which goes with the loop's."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return (BEGAN + timedelta(seconds=asyncio.get_running_loop().time())).astimezone(tz)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that ask for the time ask the simulated clock."""
    for module in (children, controller, desk):
        monkeypatch.setattr(module, "datetime", SimulatedDatetime)


def simulate(scenario: Coroutine[Any, Any, T], *, within: float = 3600.0) -> T:
    """Run a scenario in simulated time; one that takes longer than that fails."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(asyncio.wait_for(scenario, within))


def now() -> float:
    """Simulated seconds since the beginning."""
    return asyncio.get_running_loop().time()
