"""How long a run takes: models timed by turns, so that whatever slows the machine down slows all of them alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgecloud.edge.card import Format
from edgecloud.edge.report import Interval, Latency, Ratio
from edgecloud.uncollected import uncollected

Times = npt.NDArray[np.float64]
"""Milliseconds of each run, in the order of the turns."""

RESAMPLES: Final = 1000
_BLOCK_VALUES: Final = 2**20
_SHORTEST: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is measured. The time is over all models together; the fewest turns are done however long they take."""

    seconds: float = 5.0
    warm_up: int = 5
    """Turns that aren't counted, and are cut short after half of the time."""
    fewest: int = 10
    most: int = 1000


def by_turns(
    runs: Sequence[Callable[[], object]],
    budget: Budget,
    *,
    seed: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Times]:
    """Time each of them once a turn, in an order that is drawn for each turn anew.

    Args:
        runs: what is timed, one or more.
        budget: when it is enough.
        seed: of the orders.
        clock: nanoseconds.

    Returns:
        For each of `runs` its times, as many as there were turns.
    """
    random = np.random.default_rng(seed)
    times: list[list[float]] = [[] for _ in runs]
    start = clock()
    end, warm = start + int(1e9 * budget.seconds), start + int(5e8 * budget.seconds)
    for turn in range(budget.warm_up):
        if turn and clock() > warm:
            break
        for run in runs:
            run()
    gc.collect()
    with uncollected():  # it would run in whichever model's time it fell due
        while len(times[0]) < budget.fewest or (len(times[0]) < budget.most and clock() < end):
            for place in random.permutation(len(runs)):
                began = clock()
                runs[place]()
                times[place].append(max(_SHORTEST, (clock() - began) / 1e6))
    return [np.array(one) for one in times]


def latency(times: Times, *, batch: int, threads: int, seed: int = 0) -> Latency:
    """The figures of one model. Pure.

    times: one or more, of runs with `batch` images.
    """
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    (medians,) = _resampled([times], seed)
    return Latency(
        p50=p50,
        p90=p90,
        p99=p99,
        p50_interval=_interval(medians, p50),
        batch=batch,
        threads=threads,
        runs=len(times),
    )


def ratio(times: Times, others: Times, *, against: Format, batch: int, threads: int, seed: int = 0) -> Ratio:
    """How long a model takes over how long another does, turn by turn in the same process. Pure.

    times, others: as `by_turns` gives them: equally many.
    """
    found = float(np.median(times) / np.median(others))
    mine, theirs = _resampled([times, others], seed)
    interval = _interval(mine / theirs, found)
    return Ratio(against=against, p50=found, interval=interval, faster=interval.high < 1, batch=batch, threads=threads)


def _interval(values: Times, found: float) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return Interval(low=min(float(low), found), high=max(float(high), found))


def _resampled(series: Sequence[Times], seed: int) -> list[Times]:
    """Medians of each series over turns drawn again, the same turns for all of them.

    Blocks of turns are drawn rather than single ones (a circular block bootstrap): what disturbs a run disturbs those
    beside it too, and to pretend otherwise would make the intervals too narrow.
    """
    count = len(series[0])
    length = math.isqrt(count - 1) + 1
    blocks = -(-count // length)
    random = np.random.default_rng(seed)
    medians: list[list[Any]] = [[] for _ in series]
    together = max(1, _BLOCK_VALUES // count)
    for start in range(0, RESAMPLES, together):
        rows = min(together, RESAMPLES - start)
        begins = random.integers(0, count, (rows, blocks, 1))
        chosen = ((begins + np.arange(length)) % count).reshape(rows, -1)[:, :count]
        for place, times in enumerate(series):
            medians[place].append(np.median(times[chosen], axis=1))
    return [np.concatenate(one) for one in medians]
