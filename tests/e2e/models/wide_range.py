"""What one scale of 256 steps can't hold: channels whose sizes are far apart. `model: wide_range:build`"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DECADES = 8


class WideRange(nn.Module):
    """A network whose middle layer is blown up, channel by channel, and brought back: in fp32 no difference at all."""

    def __init__(self, *, classes: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.second = nn.Sequential(nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, classes))
        self.factors: Tensor
        self.register_buffer("factors", torch.logspace(0, DECADES, 32).reshape(1, 32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = self.first(x) * self.factors
        kernel = self.second[0].weight / self.factors
        features = nn.functional.conv2d(wide, kernel, self.second[0].bias)
        logits: Tensor = self.second[1:](features)
        return logits


def build(*, classes: int, channels: int, height: int, width: int) -> nn.Module:
    """Images of at least 4x4 pixels."""
    return WideRange(classes=classes, channels=channels, height=height, width=width)
