"""The random numbers that a model of the user's may draw: torch's, and those that Python and numpy keep for all."""

from __future__ import annotations

import random
from typing import Final

import numpy as np
import torch

_NUMPY_BITS: Final = 32
"""What numpy takes of a seed."""


def seed_all(number: int) -> None:
    """Begin all of them anew, by a number >= 0: a layer may be left out by any of them."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number & (1 << _NUMPY_BITS) - 1)
