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
    # Beyond these a double can't hold the scale itself; such sums are of numbers far below any gradient's.
    return max(-1000, min(1000, WORD_BITS - headroom - exponent))


def to_grid(values: Tensor, exponent: int) -> Tensor:
    """float tensor -> int64 tensor of the same shape: each value times 2 ** exponent, rounded to the nearest.

    A float32 times a power of two is exact in a double, so the rounding is the only one.
    """
    return torch.ldexp(values.double(), torch.tensor(exponent, device=values.device)).round_().to(torch.int64)


def from_grid(total: Tensor, exponent: int, dtype: torch.dtype) -> Tensor:
    """The sum as floats again. Rounds once, to a double, and once more to dtype; both depend on the sum alone."""
    return torch.ldexp(total.double(), torch.tensor(-exponent, device=total.device)).to(dtype)
