"""Kernels that reach past a tiny image: which of their taps are idle, and what gradient those get."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from edgecloud_trainer.taps import IdleTaps, idle_taps

AXES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(1, 2))


@given(st.integers(1, 2).flatmap(lambda dimensions: st.lists(AXES, min_size=dimensions, max_size=dimensions)))
def test_no_output_depends_on_an_idle_tap(axes: list[tuple[int, int, int, int, int]]) -> None:
    sizes, kernel, strides, paddings, dilations = (tuple(values) for values in zip(*axes, strict=True))
    assume(all(n + 2 * p > d * (k - 1) for n, k, _, p, d in axes))
    convolve = {1: functional.conv1d, 2: functional.conv2d}[len(axes)]
    outputs = []
    for tap in itertools.product(*(range(k) for k in kernel)):
        weight = torch.zeros(1, 1, *kernel)
        weight[0, 0][tap] = 1.0
        outputs.append((tap, convolve(torch.ones(1, 1, *sizes), weight, None, strides, paddings, dilations)))
    idle = idle_taps(sizes, tuple(outputs[0][1].shape[2:]), kernel, strides, paddings, dilations)
    for tap, output in outputs:
        assert bool(output.any()) == (idle is None or not bool(idle[tap])), tap


def dirty() -> None:
    """Leave NaN in the memory that torch will take next."""
    for count in (64, 144, 1024, 9 * 16 * 16, 4096):
        kept = [torch.full((count,), float("nan")) for _ in range(30)]
        del kept


def gradient(layer: nn.Module, image: Tensor, weight: nn.Parameter, taps: IdleTaps | None) -> Tensor:
    """The weight's, of a backward in bf16 over dirty memory."""
    weight.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = layer(image)
    dirty()
    with taps or contextlib.nullcontext():
        made.float().square().sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return weight.grad.clone()


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module, *, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.inner, image, use_reentrant=self.reentrant)
        return out


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("around", ["bare", "checkpointed", "reentrant", "compiled"])
def test_idle_taps_get_no_gradient_whatever_lies_in_memory(
    kind: type[nn.Conv2d | nn.ConvTranspose2d], groups: int, around: str
) -> None:
    """Without it some are NaN here, on a CPU that multiplies in bf16."""
    torch.manual_seed(0)
    conv = kind(16, 16, 3, stride=2, padding=1, groups=groups).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layer = {
        "bare": lambda: conv,
        "checkpointed": lambda: Checkpointed(conv, reentrant=False),
        "reentrant": lambda: Checkpointed(conv, reentrant=True),
        "compiled": lambda: torch.compile(conv, backend="aot_eager"),
    }[around]()
    image = torch.randn(8, 16, 1, 1).to(memory_format=torch.channels_last).requires_grad_()
    for _ in range(10):
        got = gradient(layer, image, conv.weight, IdleTaps())
        assert got[:, :, 1, 1].abs().min() > 0
        got[:, :, 1, 1] = 0
        assert torch.equal(got, torch.zeros_like(got))


def test_nothing_else_changes_and_a_forward_tells_whether_anything_would() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding="same"),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        nn.Conv2d(16, 16, (1, 2), stride=(2, 1)),
    )
    image, taps = torch.randn(4, 3, 8, 8), IdleTaps()
    weight = layer[1].weight
    assert torch.equal(gradient(layer, image, weight, None), gradient(layer, image, weight, taps))
    for images, found in ((image, False), (image[..., :1, :], True)):
        with taps:
            layer(images)
        assert taps.found == found
