"""Gradients of kernels that reach past a tiny image.

With a stride of 2 and one pixel left, such as deep in a torchvision network on images of 8x8, some taps of a 3x3 kernel
meet nothing but padding. Their gradient is zero; oneDNN's bf16 convolution leaves it unwritten (seen with torch 2.15
and AVX512_BF16), and what lay in memory there would move the weights: another way in each run, and to NaN at times.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_CONVOLUTION: Final = torch.ops.aten.convolution.default
_BACKWARD: Final = torch.ops.aten.convolution_backward.default


class IdleTaps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Around a backward: a convolution's weight gets a gradient of zero at the taps that meet no pixel.

    Around a forward, which must not be a compiled one: see whether there are such taps.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = False
        """Whether a convolution has had such taps."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Or else torch imports its compiler to keep it away from here: see `devices.use_deterministic`.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is _CONVOLUTION:
            image, weight, _, strides, paddings, dilations, transposed = args[:7]
            idle = _idle(image, weight, made, strides, paddings, dilations, transposed=transposed)
            self.found = self.found or idle is not None
        elif func is _BACKWARD and made[1] is not None:
            output, image, weight, _, strides, paddings, dilations, transposed = args[:8]
            idle = _idle(image, weight, output, strides, paddings, dilations, transposed=transposed)
            if idle is not None:
                made[1].masked_fill_(idle.to(made[1].device), 0)
        return made


def _idle(
    image: Tensor,
    weight: Tensor,
    output: Tensor,
    strides: list[int],
    paddings: list[int],
    dilations: list[int],
    *,
    transposed: bool,
) -> Tensor | None:
    """[N, C, ...], [O, C / groups, ...], [N, O, ...] -> as `idle_taps`. A transposed convolution's kernel stands at the
    pixels of the image, and reads the output's gradient."""
    under, places = (output, image) if transposed else (image, output)
    sizes = (tuple(tensor.shape[2:]) for tensor in (under, places, weight))
    return idle_taps(*sizes, tuple(strides), tuple(paddings), tuple(dilations))


@functools.lru_cache(maxsize=256)
def idle_taps(
    sizes: tuple[int, ...],
    places: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    paddings: tuple[int, ...],
    dilations: tuple[int, ...],
) -> Tensor | None:
    """Which taps meet nothing but padding, wherever the kernel stands: bool, of the kernel's shape; None if none do.

    Args:
        sizes: of the image, by dimension, as are the others.
        places: where the kernel stands, the first of them with the padding before the image.
    """
    idle = torch.zeros(kernel, dtype=torch.bool)
    for dimension, (size, count, taps, stride, padding, dilation) in enumerate(
        zip(sizes, places, kernel, strides, paddings, dilations, strict=True)
    ):
        for tap in range(taps):
            offset = tap * dilation - padding
            first = max(0, -(offset // stride))  # the first place where this tap is not before the image
            if first >= count or first * stride + offset >= size:
                idle.select(dimension, tap).fill_(True)
    return idle if bool(idle.any()) else None
