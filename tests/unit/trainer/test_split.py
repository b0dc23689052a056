"""Holding images back: stratified, disjoint, complete, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_trainer.data.split import TEST, VALIDATION, stratified

label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=200)
fractions = st.floats(0.001, 0.999)


@given(label_lists, fractions, st.integers(0, 2**32 - 1))
def test_disjoint_complete_and_in_proportion(labels: list[int], fraction: float, seed: int) -> None:
    array = np.array(labels)
    kept, held = stratified(array, fraction, seed=seed, purpose=TEST)
    assert np.array_equal(np.sort(np.concatenate((kept, held))), np.arange(len(array)))
    assert np.array_equal(kept, np.sort(kept))
    assert np.array_equal(held, np.sort(held))
    short_of_one_each = False
    for label in np.unique(array):
        count, taken = int((array == label).sum()), int((array[held] == label).sum())
        assert taken < count
        assert abs(taken - fraction * count) <= 1 + 1e-9
        short_of_one_each |= fraction * count > count - 1
    if not short_of_one_each:
        assert len(held) == max(1, round(fraction * len(array)))


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        ((10, 10, 10), 0.1, (1, 1, 1)),
        ((5, 5, 5, 5), 0.1, (1, 1, 0, 0)),
        ((100, 1), 0.1, (10, 0)),
        ((1, 1), 0.5, (0, 0)),
        ((3, 3), 0.01, (1, 0)),
        ((2, 2), 0.99, (1, 1)),
        ((178, 182, 177), 0.2, (36, 36, 35)),
    ],
)
def test_how_many(counts: tuple[int, ...], fraction: float, expected: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    _, held = stratified(labels, fraction, seed=0, purpose=TEST)
    assert tuple(np.bincount(labels[held], minlength=len(counts))) == expected


def test_seed_and_purpose_choose_others() -> None:
    labels = np.arange(200) % 10
    held = [
        tuple(stratified(labels, 0.3, seed=seed, purpose=purpose)[1])
        for seed in (0, 1)
        for purpose in (TEST, VALIDATION)
    ]
    assert len(set(held)) == 4


def test_the_split_never_changes() -> None:
    """A test set that changed between versions would make accuracies that can't be compared."""
    assert stratified(np.arange(20) % 2, 0.25, seed=1, purpose=TEST)[1].tolist() == [5, 12, 14, 18, 19]
