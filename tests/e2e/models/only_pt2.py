"""A network with an operation that ONNX has no words for. `model: only_pt2:build`"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bessel(nn.Module):
    """Bounded, smooth, and in no opset."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j1(x.detach().float()).to(x.dtype) + x


def build(*, classes: int, channels: int, height: int, width: int) -> nn.Module:
    """Images of any size."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), Bessel(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, classes)
    )
