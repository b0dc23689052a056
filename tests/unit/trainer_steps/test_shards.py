"""Who computes which shards."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgecloud_trainer.shards import balanced, even, own, rebalanced

SECONDS = st.floats(0.001, 100)


@given(st.integers(1, 64), st.integers(1, 16))
def test_even(shards: int, ranks: int) -> None:
    assume(ranks <= shards)
    assignment = even(shards, ranks)
    assert sum(assignment) == shards
    assert max(assignment) - min(assignment) <= 1


def test_more_ranks_than_shards() -> None:
    with pytest.raises(ValueError, match=r"trainer\.shards of at least 5"):
        even(4, 5)


@given(st.lists(SECONDS, min_size=1, max_size=4), st.integers(4, 10))
def test_balanced_is_optimal(seconds: list[float], shards: int) -> None:
    found = balanced(seconds, shards)
    assert sum(found) == shards
    assert min(found) >= 1

    def slowest(counts: tuple[int, ...]) -> float:
        return max(count * each for count, each in zip(counts, seconds, strict=True))

    ways = (counts for counts in itertools.product(range(1, shards + 1), repeat=len(seconds)) if sum(counts) == shards)
    assert slowest(found) <= min(map(slowest, ways)) * (1 + 1e-9)


def test_a_slow_node_gets_fewer() -> None:
    assert balanced([0.1, 0.2], 12) == (8, 4)
    assert rebalanced((6, 6), [0.1, 0.2]) == (8, 4)


def test_noise_moves_nothing() -> None:
    assert rebalanced((6, 6), [0.1, 0.105]) == (6, 6)
    assert rebalanced((6, 6), [0.1, float("nan")]) == (6, 6)
    assert rebalanced((6, 6), [0.1, 0.0]) == (6, 6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_every_shard_has_one_owner(counts: list[int]) -> None:
    assignment = tuple(counts)
    owned = [shard for rank in range(len(counts)) for shard in own(assignment, rank)]
    assert owned == list(range(sum(counts)))
