"""The line that curves.png draws through a noisy course."""

from __future__ import annotations

import math

import pytest

from edgecloud_trainer.results import _smoothed


def test_the_first_values_count_alike() -> None:
    """A mean of what there is so far: one that hangs on the first value shows minutes of learning that never were."""
    smooth = _smoothed([8.0, 4.0, 0.0, *[0.0] * 497])
    assert smooth[:3] == pytest.approx([8.0, 6.0, 4.0])
    assert smooth[-1] == pytest.approx(0.0, abs=1e-6)


def test_gaps_keep_the_last_value() -> None:
    nan = float("nan")
    smooth = _smoothed([nan, 2.0, nan, nan], part=1.0)
    assert math.isnan(smooth[0])
    assert smooth[1:] == [2.0, 2.0, 2.0]
