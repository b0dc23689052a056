"""An exponential mean of the weights, for evaluation."""

from __future__ import annotations

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
    def update(self, model: nn.Module, steps: int = 1) -> None:
        """Take the model's state in, that of the last so many steps."""
        weight = 1 - self._decay**steps
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
