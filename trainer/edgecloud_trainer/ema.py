"""An exponential mean of the weights, for evaluation."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Keeps the mean of a model's ordinary values; what is counted in integers, or is none from the beginning, is
    copied."""

    def __init__(self, model: nn.Module, decay: float, *, ordinary: Collection[str]) -> None:
        """ordinary: the names of those values, as `ordinary.names` gives them."""
        self._decay = decay
        self.ordinary = ordinary
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, number: int, steps: int = 1) -> None:
        """Take the model's state in, that of the last so many steps, the newest of which was step `number` (from 0)."""
        weight = 1 - math.prod(decay_at(step, self._decay) for step in range(number - steps + 1, number + 1))
        for name, value in model.state_dict().items():
            if name in self.ordinary:
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
