"""What is hard to keep exact: batch normalisation, and dropout of two kinds. `model: dropout_net:build`"""

from __future__ import annotations

from torch import nn


def build(*, classes: int, channels: int, height: int, width: int) -> nn.Module:
    """Images of any size from 4x4 on."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.1),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32, momentum=None), nn.GELU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 16, classes),
    )  # fmt: skip
