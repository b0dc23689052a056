"""The network with its normalisation inside says what the training's evaluation says; folding changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecloud_trainer.devices import Device
from edgecloud_trainer.evaluation import logits_of
from edgecloud_trainer.export.errors import ConversionError
from edgecloud_trainer.export.folding import fold
from edgecloud_trainer.export.macs import macs
from edgecloud_trainer.export.network import EdgeNetwork, captured
from tests.unit.export.made import SHAPE, card, network, pixels, stir

CPU = Device(device=torch.device("cpu"), autocast=None, memory_format=torch.contiguous_format, backend="gloo")


def said(module: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits: np.ndarray = module(torch.from_numpy(images)).numpy()
    return logits


@pytest.mark.parametrize("mirror", [False, True])
def test_it_says_what_the_evaluation_says(mirror: bool) -> None:
    model, about, images = network("edgenet"), card(), pixels(9)
    with torch.no_grad():
        expected = logits_of(model, images, mean=about.mean, std=about.std, device=CPU, mirror=mirror).numpy()
    found = said(EdgeNetwork(model, about, mirror=mirror), images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    if not mirror:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_logits_of_another_precision(dtype: torch.dtype, mirror: bool) -> None:
    class Other(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)).repeat(1, 2)[:, :5].to(dtype)

    wrapped, images = EdgeNetwork(Other(), card(), mirror=mirror), pixels(4)
    with torch.no_grad():
        expected = logits_of(Other(), images, mean=card().mean, std=card().std, device=CPU, mirror=mirror)
    for module in (wrapped, captured(wrapped, SHAPE).module()):
        found = said(module, images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-2 if dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_is_captured_takes_any_number_of_images(count: int) -> None:
    wrapped = EdgeNetwork(network("edgenet"), card(), mirror=True)
    module, images = captured(wrapped, SHAPE).module(), pixels(count)
    np.testing.assert_allclose(said(module, images), said(wrapped, images), rtol=1e-5, atol=1e-5)


class Layers(nn.Module):
    """uint8 images through layers of floats."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.layers(images.to(torch.float32) / 255)
        return found


def negative(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    with torch.no_grad():
        stir(norm).weight[1] = -1.0
    return norm


def shared() -> nn.Module:
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    return Layers(convolution, stir(nn.BatchNorm2d(3)), nn.ReLU(), convolution, stir(nn.BatchNorm2d(3)))


@pytest.mark.parametrize(
    ("layers", "folded"),
    [
        pytest.param([nn.Conv2d(3, 4, 3), stir(nn.BatchNorm2d(4))], 1, id="behind a convolution"),
        pytest.param([nn.Conv2d(3, 4, 3, bias=False), stir(nn.BatchNorm2d(4)), nn.ReLU()], 1, id="without a bias"),
        pytest.param([nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), stir(nn.BatchNorm2d(4))], 1, id="behind a pooling"),
        pytest.param(
            [nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, padding=1), stir(nn.BatchNorm2d(4))], 1, id="that pads with -inf"
        ),
        pytest.param(
            [nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), negative(nn.BatchNorm2d(4))], 0, id="the largest becomes the smallest"
        ),
        pytest.param([nn.Conv2d(3, 4, 3), negative(nn.BatchNorm2d(4))], 1, id="without a pooling that is all the same"),
        pytest.param([nn.Conv2d(3, 4, 3), nn.ReLU(), stir(nn.BatchNorm2d(4))], 0, id="behind what is not linear"),
        pytest.param([stir(nn.BatchNorm2d(3)), nn.Conv2d(3, 4, 3)], 0, id="in front"),
        pytest.param([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)], 1, id="without weights of its own"),
        pytest.param([nn.Conv2d(4, 4, 3, groups=4), stir(nn.BatchNorm2d(4))], 1, id="channel by channel"),
    ],
)
def test_folding_changes_nothing(layers: list[nn.Module], folded: int) -> None:
    torch.manual_seed(1)
    shape = (4 if isinstance(layers[0], nn.Conv2d) and layers[0].groups == 4 else 3, 8, 8)
    module = Layers(*layers)
    graph_module, images = captured(module, shape).module(), pixels(6, shape)
    expected = said(module, images)
    assert fold(graph_module) == folded
    np.testing.assert_allclose(said(graph_module, images), expected, rtol=1e-4, atol=1e-5)
    left = sum(node.target is torch.ops.aten.batch_norm.default for node in graph_module.graph.nodes)
    assert left == 1 - folded


def test_weights_that_two_layers_share_are_folded_for_each_by_itself() -> None:
    module, images = shared(), pixels(4, (3, 8, 8))
    graph_module = captured(module, (3, 8, 8)).module()
    expected = said(module, images)
    assert fold(graph_module) == 2
    np.testing.assert_allclose(said(graph_module, images), expected, rtol=1e-4, atol=1e-5)


def test_a_value_that_others_need_too_is_left_alone() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 4, 3), stir(nn.BatchNorm2d(4))
            self.eval()

        def forward(self, images: Tensor) -> Tensor:
            found = self.convolution(images.float())
            return torch.cat((found, self.norm(found)))

    graph_module = captured(Both(), (3, 8, 8)).module()
    assert fold(graph_module) == 0


def test_the_original_stays_as_it_is() -> None:
    model = network("edgenet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(captured(EdgeNetwork(model, card(), mirror=False), SHAPE).module())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_that_looks_at_values_says_so() -> None:
    class Moody(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.float() if images.float().mean() > 100 else -images.float()

    with pytest.raises(ConversionError, match=r"torch.export can't follow this network .*: write its forward without"):
        captured(Moody(), SHAPE)


def test_work_is_counted() -> None:
    """A 3x3 convolution of 3 to 4 channels at 6x6 places, and a matrix of 144 by 5."""
    layers = Layers(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    assert macs(layers, (3, 8, 8)) == 3 * 4 * 9 * 36 + 144 * 5
    single = macs(EdgeNetwork(network("edgenet"), card(), mirror=False), SHAPE)
    assert macs(EdgeNetwork(network("edgenet"), card(), mirror=True), SHAPE) == 2 * single
