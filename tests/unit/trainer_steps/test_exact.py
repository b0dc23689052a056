"""Sums that don't depend on order."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_trainer import exact

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=64), st.randoms())
def test_any_order_and_grouping_gives_the_same_bits(values: list[float], shuffled: random.Random) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    exponent = exact.scale_exponent(float(tensor.abs().max()), len(values))
    grid = exact.to_grid(tensor, exponent)
    places = list(range(len(values)))
    shuffled.shuffle(places)
    cut = shuffled.randrange(len(places) + 1)
    one, other = grid[places[:cut]].sum(), grid[places[cut:]].sum()
    assert torch.equal(one + other, grid.sum())


@given(st.lists(FLOATS, min_size=1, max_size=64))
def test_the_sum_is_the_sum(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    largest = float(tensor.abs().max())
    exponent = exact.scale_exponent(largest, len(values))
    total = exact.from_grid(exact.to_grid(tensor, exponent).sum(), exponent, torch.float64)
    true = math.fsum(values)
    assert abs(float(total) - true) <= len(values) * (largest * 2.0**-50 + 2.0**-100)


@given(FLOATS.filter(lambda value: value != 0), st.integers(1, 4096))
def test_no_overflow(largest: float, addends: int) -> None:
    exponent = exact.scale_exponent(abs(largest), addends)
    each = int(exact.to_grid(torch.tensor([abs(largest)], dtype=torch.float32), exponent)[0])
    assert each * addends < 2**63


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_has_no_scale(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        exact.scale_exponent(value, 2)


def test_zero() -> None:
    assert exact.scale_exponent(0.0, 5) == 0
    assert int(exact.to_grid(torch.zeros(1), 0)[0]) == 0
