"""The network of the article that EdgeCloud began with: four 3x3 convolutions and two linear layers."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from torch import Tensor, nn

_WIDTHS: Final = (32, 32, 64, 64)
_HIDDEN: Final = 256
_LARGE: Final = 64
"""While the longer side is longer than that, every convolution is followed by pooling, else every other one."""


class ArticleCNN(nn.Module):
    """Convolutions with ReLU, in pairs, each pair pooled; no normalisation, as in its time."""

    def __init__(self, *, classes: int, channels: int, height: int, width: int) -> None:
        """Images of at least 4x4 pixels."""
        super().__init__()
        layers: list[nn.Module] = []
        for index, (fan_in, fan_out) in enumerate(pairwise((channels, *_WIDTHS))):
            layers.append(nn.Conv2d(fan_in, fan_out, 3, padding=1))
            # Of elongated images, what the poolings behind need of the shorter side is left to them.
            spare = min(height, width) >= 2 ** (3 - index // 2)
            if index % 2 or (spare and max(height, width) > _LARGE):
                # The largest of four and the larger of it and 0: in either order the same, and so a quarter to rectify.
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            layers.append(nn.ReLU(inplace=True))
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(_WIDTHS[-1] * height * width, _HIDDEN)
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(_HIDDEN, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                assert module.bias is not None
                # Without normalisation the signal keeps its size only if the weights start at the right one.
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is self.head else "relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> logits [N, classes]."""
        features = self.features(x).flatten(1)
        logits: Tensor = self.head(self.activation(self.hidden(features)))
        return logits
