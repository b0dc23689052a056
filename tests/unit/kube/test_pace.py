"""The bound on writes: never exceeded, never wasted, and fair."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.kube.pace import MAX_PLACES, Pace


def test_a_burst_and_then_one_after_the_other() -> None:
    pace: Pace[str] = Pace(10.0, 3)
    assert [pace.wait(key, 100.0) for key in "abc"] == [0.0, 0.0, 0.0]
    assert [round(pace.wait(key, 100.0), 6) for key in "de"] == [0.1, 0.2]
    assert pace.has_place("d")
    assert not pace.has_place("a")


def test_a_place_is_kept() -> None:
    pace: Pace[str] = Pace(10.0, 1)
    assert pace.wait("a", 0.0) == 0.0
    assert round(pace.wait("b", 0.0), 6) == 0.1
    assert round(pace.wait("c", 0.0), 6) == 0.2
    assert round(pace.wait("b", 0.05), 6) == 0.05  # asking again costs nothing
    assert pace.wait("c", 0.21) == 0.0
    assert pace.wait("b", 0.21) == 0.0


def test_quiet_time_is_not_saved_up_beyond_the_burst() -> None:
    pace: Pace[int] = Pace(10.0, 3)
    assert [pace.wait(key, 1000.0) == 0.0 for key in range(5)] == [True, True, True, False, False]


def test_who_never_comes_back_is_forgotten() -> None:
    pace: Pace[int] = Pace(1000.0, 1)
    for key in range(10 * MAX_PLACES):
        pace.wait(key, key / 10.0)
        pace.wait(-key, key / 10.0)
    assert len(pace._places) <= MAX_PLACES + 1


@given(st.floats(1, 100), st.integers(1, 50), st.lists(st.tuples(st.floats(0, 2), st.integers(0, 20)), max_size=200))
def test_no_window_has_more_than_it_may(rate: float, burst: int, asked: list[tuple[float, int]]) -> None:
    pace: Pace[int] = Pace(rate, burst)
    now, written = 0.0, []
    for later, key in asked:
        now += later
        if pace.wait(key, now) == 0.0:
            written.append(now)
    for first, begin in enumerate(written):
        for last in range(first, len(written)):
            assert last - first + 1 <= burst + rate * (written[last] - begin) + 1e-6 + rate * 1e-6 + _late(asked)


def _late(asked: list[tuple[float, int]]) -> int:
    """Places that were given, and taken up later than they came: a key may take up but one."""
    return len({key for _, key in asked})


@given(st.floats(1, 100), st.integers(1, 20), st.integers(1, 60))
def test_whoever_comes_back_in_time_gets_a_turn(rate: float, burst: int, keys: int) -> None:
    pace: Pace[int] = Pace(rate, burst)
    waits = {key: pace.wait(key, 0.0) for key in range(keys)}
    assert max(waits.values()) <= max(0, keys - burst) / rate + 1e-6
    for key, wait in waits.items():
        if wait > 0.0:
            assert pace.wait(key, wait + 1e-9) == 0.0
