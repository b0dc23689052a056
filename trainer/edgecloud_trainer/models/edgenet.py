"""EdgeNet: a small convolutional network that learns fast on a CPU.

After the CIFAR-10 record recipes (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024): a first layer that
whitens patches instead of being trained, convolutions that begin as the identity, pooling early.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgecloud_trainer.hashing import hashes, key_of

_WIDTHS: Final = (64, 256, 256)
_HEAD_GAIN: Final = 3.0
"""Small logits at first, and one learning rate for the head and the convolutions. Tried on CIFAR-10: 1, 3 and 8."""
_FULL: Final = 32
"""Images with a longer side are taken in steps of several pixels, so that about 32x32 places are left; of elongated
ones in smaller steps, where of the shorter side too few would be left to be pooled."""
_MAX_DIRECTIONS: Final = 24
_MIN_VARIANCE: Final = 5e-4
_FIT: Final = 21
"""Which images the first layer is fitted to, as a purpose of random numbers."""
_MAX_IMAGES: Final = 5000
_MIN_IMAGES: Final = 64
"""Of large images some places are left out before it would be fewer."""
_MAX_PRODUCTS: Final = 2**36
"""Multiplications for the patches' moments: some seconds. Reached from about 180x180 pixels on, in colour."""
_BATCH_BYTES: Final = 32 * 1024 * 1024
"""Of patches that are held at once."""


class EdgeNet(nn.Module):
    """Whitening, then groups of two convolutions with pooling between them, then a scaled linear layer."""

    test_time_mirror = False
    """Whether evaluation shall look at the mirrored image too: the loop sets it where training mirrors."""

    def __init__(self, *, classes: int, channels: int, height: int, width: int) -> None:
        """Images of at least 4x4 pixels."""
        super().__init__()
        # Two places of the shorter side are the fewest that a group can pool.
        stride = max(1, min(round(max(height, width) / _FULL), (min(height, width) - 1) // 2))
        kernel = stride + 1
        directions = min(channels * kernel * kernel, _MAX_DIRECTIONS)
        self.whiten = nn.Conv2d(channels, 2 * directions, kernel, stride=stride, bias=False)
        self.whiten.weight.requires_grad = False
        side = (min(height, width) - kernel) // stride + 1
        groups = max(1, min(len(_WIDTHS), round(math.log2(side + 1)) - 1))
        widths = (2 * directions, *_WIDTHS[:groups])
        self.groups = nn.Sequential(*(_Group(fan_in, fan_out) for fan_in, fan_out in pairwise(widths)))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> logits [N, classes]."""
        features = self.groups(nn.functional.gelu(self.whiten(x))).amax((2, 3))
        logits: Tensor = self.head(features) * (_HEAD_GAIN / self.head.in_features)
        return logits

    @torch.no_grad()
    def whiten_by(self, pixels: npt.NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the first layer's weights from patches: the directions in which they vary, each scaled to variance 1.

        They are those that the layer looks at, of at most 5,000 images spread over all; of large images of fewer.

        Args:
            pixels: uint8 [N, C, H, W].
            mean, std: what the input is normalised with.
        """
        kernel, stride = self.whiten.kernel_size[0], self.whiten.stride[0]
        area = kernel * kernel
        first, second, number = _moments(pixels, kernel, stride)
        # Patches are summed up as they are, in whole numbers; what normalising makes of the sums comes afterwards.
        scale = np.repeat(1 / (255 * np.array(std)), area)
        shift = np.repeat(-np.array(mean) / np.array(std), area)
        mixed = np.outer(scale * first, shift) / number
        variance = np.outer(scale, scale) * second / number + mixed + mixed.T + np.outer(shift, shift)
        values, vectors = np.linalg.eigh(variance)
        filters = (vectors / np.sqrt(np.maximum(values, 0) + _MIN_VARIANCE)).T[::-1]
        filters = filters * np.sign(filters[np.arange(len(filters)), np.abs(filters).argmax(1)])[:, None]
        chosen = torch.from_numpy(filters[: self.whiten.out_channels // 2].copy())
        weight = torch.cat((chosen, -chosen)).reshape(self.whiten.weight.shape)
        self.whiten.weight.copy_(weight)


def _moments(
    pixels: npt.NDArray[np.uint8], kernel: int, stride: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    """Sums of patches [D] and of their products [D, D], and their number.

    Sums of whole numbers under 2^53 are exact in float64, so that no order of summing and no size of a batch changes a
    bit: `sampling` leaves at most 2^32 patches (of 2x2 pixels or more), and a product is at most 255^2.
    """
    _, channels, height, width = pixels.shape
    size = channels * kernel * kernel
    images, every = sampling(channels, height, width, kernel, stride)
    ids = _spread(len(pixels), images)
    step = every * stride
    batch = max(1, _BATCH_BYTES // (_places(height, width, kernel, step) * size * 8))
    first, second, total = np.zeros(size), np.zeros((size, size)), 0
    for start in range(0, len(ids), batch):
        windows = np.lib.stride_tricks.sliding_window_view(
            pixels[ids[start : start + batch]], (kernel, kernel), axis=(2, 3)
        )[:, :, ::step, ::step]
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, size).astype(np.float64)
        first += patches.sum(0)
        second += patches.T @ patches
        total += len(patches)
    return first, second, total


def sampling(channels: int, height: int, width: int, kernel: int, stride: int) -> tuple[int, int]:
    """How many images are looked at, and in both directions at every how-manieth place. Pure.

    All places of 5,000 images, unless that is too much work: then fewer images, and fewer places before they are too
    few to stand for all.
    """
    products = (channels * kernel * kernel) ** 2
    for every in count(1):
        places = _places(height, width, kernel, every * stride)
        images = _MAX_PRODUCTS // (places * products)
        if images >= _MIN_IMAGES or places == 1:
            break
    return max(1, min(images, _MAX_IMAGES)), every


def _places(height: int, width: int, kernel: int, step: int) -> int:
    return ((height - kernel) // step + 1) * ((width - kernel) // step + 1)


def _spread(number: int, wanted: int) -> npt.NDArray[np.int64]:
    """At most so many of `number` ids, ascending, each at a random place of its own stretch.

    Sets often lie class by class, and some by turns, so that neither the first ones nor every n-th one stand for all.
    """
    begins = np.arange(min(wanted, number) + 1) * number // min(wanted, number)
    inside = hashes(key_of(_FIT), np.arange(len(begins) - 1)) % np.diff(begins).astype(np.uint64)
    ids: npt.NDArray[np.int64] = begins[:-1] + inside.astype(np.int64)
    return ids


class _Group(nn.Module):
    """Two convolutions, each normalised; the first one is pooled before that, so that what follows is a quarter."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.first = _convolution(fan_in, fan_out)
        self.pool = nn.MaxPool2d(2)
        self.first_norm = _norm(fan_out)
        self.second = _convolution(fan_out, fan_out)
        self.second_norm = _norm(fan_out)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.first_norm(self.pool(self.first(x))))
        return nn.functional.gelu(self.second_norm(self.second(x)))


def _convolution(fan_in: int, fan_out: int) -> nn.Conv2d:
    """3x3, its first outputs a copy of its inputs."""
    convolution = nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:fan_in])
    return convolution


def _norm(channels: int) -> nn.BatchNorm2d:
    """Only its bias is trained: the convolution behind it can scale."""
    norm = nn.BatchNorm2d(channels, momentum=0.4)
    norm.weight.requires_grad = False
    return norm
