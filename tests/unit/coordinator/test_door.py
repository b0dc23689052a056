"""How many are let in: connections in all and of an address, requests of a worker."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.coordinator import door as module
from edgecloud_operator.coordinator.door import (
    MAX_OF_ADDRESS,
    MAX_OF_WORKER,
    MAX_STRANGERS,
    OF_ADDRESS_AT_ONCE,
    PATIENCE_SECONDS,
    REQUESTS_A_SECOND,
    REQUESTS_AT_ONCE,
    Bucket,
    Door,
    Visit,
)

MOVES = st.tuples(st.sampled_from(("enter", "know", "leave")), st.integers(0, 7))


@given(st.lists(MOVES, max_size=200))
def test_never_more_than_fit(script: list[tuple[str, int]]) -> None:
    """Of three addresses, and of two workers."""
    door, here = Door(limit=12, strangers=8, of_address=4, of_worker=3, patience=20.0), list[Visit]()
    for now, (move, which) in enumerate(script):
        if move == "enter":
            address, strangers = "abc"[which % 3], [visit for visit in here if not visit.worker]
            same = sum(visit.address == address for visit in strangers)
            room = len(strangers) < 8 or now - strangers[0].since >= 20
            visit = door.enter(address, now)
            assert (visit is not None) == (len(here) < 12 and same < 4 and room)
            here += [visit] if visit else []
        elif here and move == "know":
            visit, worker = here[which % len(here)], f"pod-{which % 2}"
            door.know(visit, visit.worker or worker)
            assert visit.inside and visit.worker and sum(other.worker == worker and other.inside for other in here) <= 3
        elif here:
            for _ in range(2):
                door.leave(here[which % len(here)])
        here = [visit for visit in here if visit.inside]
        assert door.open == len(here)


def test_strangers_of_a_few_addresses_keep_nobody_out() -> None:
    door, closed = Door(), list[str]()
    for address in range(30):
        for _ in range(2 * MAX_OF_ADDRESS):
            if visit := door.enter(f"10.0.0.{address}", 0.0):
                visit.close = partial(closed.append, visit.address)
    assert (door.open, closed) == (MAX_STRANGERS, [])
    assert door.enter("10.9.9.9", 1.0) is None, "they may be a thousand workers in the middle of their handshakes"
    worker = door.enter("10.9.9.9", PATIENCE_SECONDS)
    assert worker is not None
    door.know(worker, "pod")
    assert worker.inside
    assert (door.open, closed) == (MAX_STRANGERS, ["10.0.0.0"])


def test_a_workers_newest_connections_count() -> None:
    door, closed = Door(), list[int]()
    for number in range(10):
        visit = door.enter("10.0.0.1", 0.0)
        assert visit is not None
        visit.close = partial(closed.append, number)
        door.know(visit, "pod")
    assert (door.open, closed) == (MAX_OF_WORKER, list(range(10 - MAX_OF_WORKER)))


def test_strangers_that_come_to_nothing_are_paced() -> None:
    door, now, entered = Door(), 100.0, 0
    for _ in range(3000):
        now += 0.01
        if visit := door.enter("10.0.0.1", now):
            entered += 1
            door.leave(visit)
    assert entered == pytest.approx(OF_ADDRESS_AT_ONCE + 30 * REQUESTS_A_SECOND, abs=2)
    assert door.enter("10.0.0.2", now), "an address pays for itself"
    for _ in range(1000):
        now += 0.2
        visit = door.enter("10.0.0.1", now)
        assert visit is not None
        door.forgive(visit)
        door.leave(visit)


def test_what_is_remembered_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ADDRESSES", 50)
    door = Door()
    for number in range(500):
        if visit := door.enter(f"fd00::{number}", 0.0):
            door.leave(visit)
    assert len(door._buckets) == 50
    assert not (door._strangers or door._of_address or door._of_worker)


@given(st.lists(st.floats(0.0, 2.0), max_size=300))
def test_requests_in_any_time_are_bounded(pauses: list[float]) -> None:
    bucket, now, taken = Bucket(), 1000.0, []
    for pause in pauses:
        now += pause
        if bucket.take(now):
            taken.append(now)
    for first in range(0, len(taken), 7):
        for last in range(first, len(taken), 11):
            allowed = REQUESTS_AT_ONCE + REQUESTS_A_SECOND * (taken[last] - taken[first])
            assert last - first + 1 <= allowed + 1e-6


def test_a_launchers_own_rate_is_always_taken() -> None:
    bucket = Bucket()
    assert all(bucket.take(second / 5) for second in range(10_000))


def test_after_a_flood_it_is_soon_heard_again() -> None:
    bucket = Bucket()
    assert sum(bucket.take(50.0) for _ in range(10_000)) == REQUESTS_AT_ONCE
    assert bucket.take(50.15)
    assert not bucket.take(float("-inf"))  # a clock that goes back gives nothing
