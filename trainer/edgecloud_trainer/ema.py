"""An exponential mean of the weights, for evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Keeps the mean of a model's floating-point state; what is counted in integers is copied.

    So is a buffer that holds infinity from the beginning (an attention mask, say): its mean would be NaN.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._meant = {
            name
            for name, value in self.state.items()
            if value.is_floating_point() and bool(torch.isfinite(value).all())
        }

    @torch.no_grad()
    def update(self, model: nn.Module, number: int, steps: int = 1) -> None:
        """Take the model's state in, that of the last so many steps, the newest of which was step `number` (from 0)."""
        weight = 1 - math.prod(decay_at(step, self._decay) for step in range(number - steps + 1, number + 1))
        for name, value in model.state_dict().items():
            if name in self._meant:
                self.state[name].lerp_(value, weight)
            else:
                self.state[name].copy_(value)

    @torch.no_grad()
    def take_up(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such a state."""
        for name, value in self.state.items():
            value.copy_(state[name])


def decay_at(number: int, decay: float) -> float:
    """The part of the mean that step `number` (from 0) leaves.

    It grows up to decay: the mean begins as untrained weights, of which a decay of 0.999 would leave a third after a
    thousand steps. It depends on the number alone, so that a training that goes on is the undisturbed one.
    """
    return min(decay, (1 + number) / (10 + number))
