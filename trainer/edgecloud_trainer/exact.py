"""Sums that don't depend on order: floats become integers at a shared power-of-two scale, and integers add exactly.

Floating-point addition is not associative, so a sum over ranks depends on who summed what first, and with another
number of ranks the last bits differ. Here every addend is rounded once to a grid that all ranks share, which depends on
the largest addend alone; what follows is integer addition, the same in any order and any grouping.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

WORD_BITS: Final = 62
"""Bits of an int64 that a sum may fill: the sign and one bit are kept free."""
MAX_EXPONENT: Final = 100
"""2 ** 100 and its inverse are normal float32 numbers. Sums below 2 ** -38 lose bits by it, but keep 24 to 2 ** -76."""


def scale_exponent(largest: float, addends: int) -> int:
    """The power of two to multiply with, so that `addends` numbers of at most `largest` fit an int64 when summed.

    Raises:
        ValueError: largest is not finite.
    """
    if not math.isfinite(largest):
        raise ValueError("a sum of numbers that are not finite has no scale")
    if largest == 0.0:
        return 0
    _, exponent = math.frexp(largest)  # largest < 2 ** exponent
    headroom = max(1, addends).bit_length()
    return max(-MAX_EXPONENT, min(MAX_EXPONENT, WORD_BITS - headroom - exponent))


def to_grid(values: Tensor, exponent: int) -> Tensor:
    """float32 tensor -> int64 tensor of the same shape: each value times 2 ** exponent, rounded to the nearest.

    Multiplying a float with a power of two is exact, so the rounding is the only one.
    """
    return values.mul(2.0**exponent).round_().to(torch.int64)


def from_grid(total: Tensor, exponent: int, dtype: torch.dtype) -> Tensor:
    """The sum as floats again, rounded once; it depends on the sum alone."""
    return total.to(dtype).mul_(2.0**-exponent)
