"""Differences of weights in 8 bits: each row scaled by its largest entry over all ranks, rounded at random.

Rounding up or down with the chance that makes the mean right (Alistarh et al., "QSGD", 2017) needs no memory of past
errors, so that a checkpoint need not hold one for each rank. Rounded numbers are integers at a scale that all ranks
share: their sum is the same in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

LEVELS: Final = 127
"""Of an int8, in each direction."""


def rows(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """How each tensor is cut into rows, (number, length): [O, ...] by its first dimension, a vector as one."""
    return [(t.shape[0], t.numel() // t.shape[0]) if t.ndim >= 2 else (1, t.numel()) for t in tensors]


def row_lengths(layout: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """int64 [R]: the lengths of all rows of all tensors, one after the other."""
    return torch.cat([torch.full((number,), length, dtype=torch.int64, device=device) for number, length in layout])


def largest_by_row(flat: Tensor, layout: Sequence[tuple[int, int]]) -> Tensor:
    """float32 [N] -> float32 [R]: the largest magnitude of each row; NaN or infinite if the row holds such a one."""
    pieces = torch.split(flat, [number * length for number, length in layout])
    return torch.cat([p.view(number, length).abs().amax(1) for p, (number, length) in zip(pieces, layout, strict=True)])


def compressed(flat: Tensor, largest: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """float32 [N] -> int8 [N], with `largest` of each row [R] over all ranks; `restored` undoes it, but for rounding.

    The values must be finite. generator: on the CPU; its numbers decide what is rounded up.
    """
    unit = (largest / LEVELS).repeat_interleave(lengths)
    scaled = torch.where(unit > 0, flat / unit, torch.zeros_like(flat))
    chance = torch.rand(flat.shape, generator=generator).to(flat.device)
    return (scaled + chance).floor_().clamp_(-LEVELS, LEVELS).to(torch.int8)


def restored(total: Tensor, largest: Tensor, lengths: Tensor) -> Tensor:
    """A sum of compressed values, integers [N] -> float32 [N]."""
    return total.float().mul_((largest / LEVELS).repeat_interleave(lengths))
