"""How many are let in: connections in all and of an address, requests of a worker."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.coordinator.door import REQUESTS_A_SECOND, REQUESTS_AT_ONCE, Bucket, Door


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=200))
def test_never_more_than_fit(script: list[tuple[bool, str]]) -> None:
    door, inside = Door(limit=8, of_address=4), Counter[str]()
    for comes, address in script:
        if comes:
            fits = inside.total() < 8 and inside[address] < 4
            assert door.enter(address) == fits
            inside[address] += fits
        elif inside[address]:
            door.leave(address)
            inside[address] -= 1
        assert door.open == inside.total()


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
