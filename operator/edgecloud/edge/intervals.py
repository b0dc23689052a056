"""How sure a part of a number of images is."""

from __future__ import annotations

import math
from typing import Final

Z95: Final = 1.959964
"""Deviations on either side that hold 95 % of a normal distribution."""


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion: unlike the textbook one it stays within 0 and 1."""
    if total == 0:
        return 0.0, 1.0
    part, z2 = correct / total, Z95**2
    middle = (part + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 * math.sqrt(part * (1 - part) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)
