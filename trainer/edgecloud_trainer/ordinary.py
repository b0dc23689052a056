"""Which of a model's values are ordinary numbers: those that are averaged, summed over ranks, and looked at.

An attention mask holds infinity, or what stands for it, from the beginning, and is to: its mean would be NaN, its sum
has no scale, and it is no trouble of the training.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_LARGEST: Final = 2.0**30
"""At the beginning. All buffers' sums have one scale: beside an attention mask's -3e38, a variance would be rounded to
nothing."""


def names(model: nn.Module) -> frozenset[str]:
    """Of the floating-point values in its state dict, and of its other buffers; of a model that has just been made.

    What they are later doesn't count: a training that goes on from a checkpoint has to be the undisturbed one.
    """
    tensors = {**dict(model.named_buffers()), **model.state_dict()}
    return frozenset(name for name, value in tensors.items() if isinstance(value, Tensor) and _is_ordinary(value))


def _is_ordinary(value: Tensor) -> bool:
    if not value.is_floating_point():
        return False
    return value.numel() == 0 or bool(torch.linalg.vector_norm(value.detach(), ord=float("inf")) <= _LARGEST)
