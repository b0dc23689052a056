"""Timing by turns with a clock of the test's own, and the statistics of times."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.edge.latency import Budget, by_turns, latency, ratio

times = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60).map(np.array)


class Clock:
    """Time passes only where the test says so. Nanoseconds."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def takes(self, milliseconds: float, log: list[str], name: str) -> Callable[[], None]:
        def run() -> None:
            log.append(name)
            self.now += int(1e6 * milliseconds)

        return run


def test_each_has_its_turn() -> None:
    clock, log = Clock(), list[str]()
    runs = [clock.takes(2, log, "a"), clock.takes(5, log, "b"), clock.takes(1, log, "c")]
    found = by_turns(runs, Budget(seconds=1.0, warm_up=3, fewest=2, most=50), clock=clock)
    assert [one.tolist() for one in found] == [[2.0] * 50, [5.0] * 50, [1.0] * 50]
    turns = [log[start : start + 3] for start in range(0, len(log), 3)]
    assert len(turns) == 53
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 6, "the order changes"


@pytest.mark.parametrize(
    ("milliseconds", "budget", "turns", "warm"),
    [
        (10, Budget(seconds=1.0, warm_up=5, fewest=3, most=1000), 95, 5),
        (400, Budget(seconds=1.0, warm_up=5, fewest=3, most=1000), 3, 2),
        (60_000, Budget(seconds=1.0, warm_up=5, fewest=3, most=1000), 3, 1),
        (1, Budget(seconds=100.0, warm_up=0, fewest=3, most=7), 7, 0),
    ],
)
def test_the_budget(milliseconds: float, budget: Budget, turns: int, warm: int) -> None:
    clock, log = Clock(), list[str]()
    (found,) = by_turns([clock.takes(milliseconds, log, "a")], budget, clock=clock)
    assert len(found) == turns
    assert len(log) == turns + warm


def test_the_garbage_collector_is_on_again() -> None:
    def breaks() -> None:
        assert not gc.isenabled()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        by_turns([breaks], Budget(warm_up=0))
    assert gc.isenabled()


@given(times, st.integers(0, 2**32 - 1))
def test_figures_of_one_model(found: np.ndarray, seed: int) -> None:
    said = latency(found, batch=32, threads=4, seed=seed)
    assert found.min() <= said.p50 <= said.p90 <= said.p99 <= found.max()
    assert said.p50 == pytest.approx(float(np.median(found)))
    assert said.p50_interval is not None
    assert found.min() <= said.p50_interval.low <= said.p50 <= said.p50_interval.high <= found.max()
    assert (said.batch, said.threads, said.runs) == (32, 4, len(found))
    assert latency(found, batch=32, threads=4, seed=seed) == said


@given(times, st.floats(0.01, 100))
def test_a_model_that_takes_so_many_times_as_long(found: np.ndarray, factor: float) -> None:
    """Turn by turn the same factor: there is nothing uncertain about it, whatever disturbed the machine."""
    said = ratio(factor * found, found, against="onnx", batch=1, threads=1)
    for value in (said.p50, said.interval.low, said.interval.high):
        assert value == pytest.approx(factor)
    assert said.faster == (said.interval.high < 1)
    same = ratio(found, found, against="onnx", batch=1, threads=1)
    assert not same.faster


def test_no_speed_up_is_claimed_of_noise() -> None:
    """Two models of equal speed on a machine that is slow for a while now and then: hardly ever 'faster'."""
    random = np.random.default_rng(5)
    claims = 0
    for seed in range(100):
        burst = np.repeat(random.choice([1.0, 1.5], 20, p=[0.7, 0.3]), 10)
        first, second = (burst * random.lognormal(0, 0.1, 200) for _ in range(2))
        claims += ratio(first, second, against="onnx", batch=1, threads=1, seed=seed).faster
    assert claims <= 8
    really = ratio(0.8 * first, second, against="onnx", batch=1, threads=1)
    assert really.faster
    assert really.interval.low < 0.8 < really.interval.high


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(6)
    held = 0
    for seed in range(200):
        said = latency(random.lognormal(0, 0.3, 150), batch=1, threads=1, seed=seed).p50_interval
        held += said is not None and said.low <= 1.0 <= said.high
    assert 170 <= held <= 200
