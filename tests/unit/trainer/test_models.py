"""Networks: every kind builds, fits the images, trains; what doesn't fit says so."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.augment import to_input
from edgecloud_trainer.data import load
from edgecloud_trainer.models import ModelError, build, initialise
from edgecloud_trainer.models.edgenet import EdgeNet, sampling
from edgecloud_trainer.order import batch_ids, steps_per_epoch

SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (4, 20, 31), (1, 4, 100), (1, 80, 6)]
FAMILIES = [
    ("resnet18", 3, 16),
    ("resnet18", 1, 8),
    ("resnet18", 2, 65),
    ("mobilenet_v3_small", 3, 32),
    ("mobilenet_v2", 1, 32),
    ("squeezenet1_1", 3, 32),
    ("shufflenet_v2_x0_5", 1, 32),
    ("efficientnet_b0", 1, 32),
    ("regnet_x_400mf", 1, 32),
    ("mnasnet0_5", 1, 32),
    ("googlenet", 1, 32),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are no faster with more, and far slower where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(before)


def pixels(count: int, channels: int, height: int, width: int) -> np.ndarray:
    """Smooth pictures, as neighbouring pixels of real ones are alike."""
    random = np.random.Generator(np.random.PCG64(count))
    coarse = random.integers(0, 256, (count, channels, -(-height // 4), -(-width // 4)))
    smooth = coarse.repeat(4, 2).repeat(4, 3)[:, :, :height, :width] + random.integers(
        -20, 20, (count, 1, height, width)
    )
    return smooth.clip(0, 255).astype(np.uint8)


def one_step(model: nn.Module, channels: int, height: int, width: int) -> None:
    """Forward and backward give finite gradients for all that is trained."""
    images = to_input(
        pixels(4, channels, height, width), (0.5,) * channels, (0.25,) * channels, torch.float32, torch.channels_last
    )
    assert all(module.training for module in model.modules())
    logits = model(images)
    assert logits.shape == (4, 7)
    assert logits.dtype == torch.float32
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("channels", "height", "width"), SIZES)
@pytest.mark.parametrize("name", ["article-cnn", "edgenet"])
def test_built_in(name: str, channels: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    model = build(name, classes=7, channels=channels, height=height, width=width)
    initialise(model, pixels(50, channels, height, width), mean=(0.5,) * channels, std=(0.25,) * channels)
    one_step(model, channels, height, width)


@pytest.mark.parametrize(("name", "channels", "side"), FAMILIES)
def test_torchvision(name: str, channels: int, side: int) -> None:
    torch.manual_seed(0)
    one_step(build(name, classes=7, channels=channels, height=side, width=side), channels, side, side)


def test_residual_networks_keep_the_resolution_of_small_images() -> None:
    small, large = (build("resnet18", classes=2, channels=3, height=side, width=side) for side in (64, 224))
    assert small.layer1(small.maxpool(small.conv1(torch.zeros(1, 3, 32, 32)))).shape[2:] == (32, 32)
    assert large.layer1(large.maxpool(large.conv1(torch.zeros(1, 3, 32, 32)))).shape[2:] == (8, 8)


def test_a_new_first_convolution_is_as_loud_as_the_old_one() -> None:
    torch.manual_seed(0)
    usual, grey = (build("mobilenet_v2", classes=2, channels=channels, height=32, width=32) for channels in (3, 1))
    old, new = usual.features[0][0].weight, grey.features[0][0].weight
    assert new.shape == (32, 1, 3, 3)
    assert float(new.detach().std() / old.detach().std()) == pytest.approx(3**0.5, rel=0.2)


def test_the_same_seed_gives_the_same_weights() -> None:
    for name in ("article-cnn", "edgenet", "resnet18"):
        states = []
        for _ in range(2):
            torch.manual_seed(3)
            states.append(build(name, classes=3, channels=3, height=32, width=32).state_dict())
            after = torch.rand(1)
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        torch.manual_seed(4)
        assert not torch.equal(after, torch.rand(1))


# -- EdgeNet


def whitened(model: EdgeNet, images: torch.Tensor) -> torch.Tensor:
    """[D, P]: the first half of the first layer's outputs."""
    half = model.whiten.out_channels // 2
    return model.whiten(images)[:, :half].transpose(0, 1).reshape(half, -1)


@pytest.mark.parametrize(("channels", "height", "width"), SIZES)
def test_whitening(channels: int, height: int, width: int) -> None:
    """Over the places that it looks at, each output has variance 1 and none has to do with another."""
    model = EdgeNet(classes=2, channels=channels, height=height, width=width)
    images, mean, std = pixels(100, channels, height, width), (0.4,) * channels, (0.3,) * channels
    initialise(model, images, mean=mean, std=std)
    out = whitened(model, to_input(images, mean, std, torch.float32, torch.contiguous_format)).detach().double()
    moments = (out @ out.T / out.shape[1]).numpy()
    np.testing.assert_allclose(moments - np.diag(np.diag(moments)), 0, atol=2e-3)
    assert np.diag(moments).max() < 1.001
    assert np.diag(moments)[0] > 0.99
    half = model.whiten.out_channels // 2
    assert torch.equal(model.whiten.weight[:half], -model.whiten.weight[half:])


def test_whitening_is_exact() -> None:
    """Neither the number of threads nor the order of the images nor the random state changes a bit."""
    images, results = pixels(600, 3, 32, 32), []
    for number, order in ((1, slice(None)), (2, slice(None, None, -1))):
        torch.set_num_threads(number)
        torch.manual_seed(number)
        model = build("edgenet", classes=2, channels=3, height=32, width=32)
        state = torch.get_rng_state()
        initialise(model, images[order], mean=(0.5,) * 3, std=(0.2,) * 3)
        assert torch.equal(state, torch.get_rng_state())
        results.append(model.whiten.weight.detach().clone())
    assert torch.equal(*results)


def test_whitening_of_large_images_takes_little_memory() -> None:
    """Patches of all places at once would be 80 MB an image."""
    model, images = EdgeNet(classes=2, channels=3, height=224, width=224), pixels(60, 3, 224, 224)
    tracemalloc.start()
    try:
        initialise(model, images, mean=(0.5,) * 3, std=(0.2,) * 3)
        assert tracemalloc.get_traced_memory()[1] < 128 * 2**20
    finally:
        tracemalloc.stop()


def test_whitening_looks_at_all_classes_of_a_set_that_lies_by_class() -> None:
    """Of more images than are needed; those of the first half show nothing. By turns is as good."""
    blank = np.zeros((5000, 1, 4, 4), np.uint8)
    first, by_turns = np.concatenate((blank, pixels(5000, 1, 4, 4))), np.empty((10000, 1, 4, 4), np.uint8)
    by_turns[::2], by_turns[1::2] = first[:5000], first[5000:]
    for images in (first, by_turns):
        model = EdgeNet(classes=2, channels=1, height=4, width=4)
        initialise(model, images, mean=(0.5,), std=(0.25,))
        out = whitened(model, to_input(images, (0.5,), (0.25,), torch.float32, torch.contiguous_format)).detach()
        assert (out @ out.T / out.shape[1]).diag()[0] == pytest.approx(1, abs=0.02)


@given(st.sampled_from([1, 3]), st.integers(4, 1500), st.integers(4, 1500))
def test_whitening_looks_at_no_more_than_it_has_time_for(channels: int, height: int, width: int) -> None:
    stride = max(1, min(round(max(height, width) / 32), (min(height, width) - 1) // 2))
    images, every = sampling(channels, height, width, stride + 1, stride)
    assert 1 <= images <= 5000
    step = stride * every
    places = ((height - stride - 1) // step + 1) * ((width - stride - 1) // step + 1)
    assert images * places * (channels * (stride + 1) ** 2) ** 2 <= 2**36
    assert images * places * 255**2 < 2**53
    assert images >= 64
    assert stride > 1 or (images, every) == (5000, 1)


def test_images_without_contrast() -> None:
    model = EdgeNet(classes=2, channels=3, height=32, width=32)
    initialise(model, np.full((10, 3, 32, 32), 100, np.uint8), mean=(0.4,) * 3, std=(1.0,) * 3)
    assert model.whiten.weight.isfinite().all()


def test_other_models_are_left_as_they_are() -> None:
    model = build("article-cnn", classes=2, channels=3, height=32, width=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model, pixels(10, 3, 32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_edgenet_learns_digits(tmp_path: Path) -> None:
    """A plain loop: 4 epochs of SGD are enough for 19 of 20."""
    dataset = load(DataSpec(name="digits"), seed=0, cache=tmp_path)
    torch.manual_seed(0)
    model = build("edgenet", classes=10, channels=1, height=8, width=8)
    initialise(model, dataset.train.pixels, mean=dataset.mean, std=dataset.std)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, nesterov=True)
    samples, batch = len(dataset.train), 64
    total = 4 * steps_per_epoch(samples, batch)
    for step in range(total):
        _, ids = batch_ids(0, step, samples, batch)
        images = to_input(dataset.train.pixels[ids], dataset.mean, dataset.std, torch.float32, torch.channels_last)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.from_numpy(dataset.train.labels[ids])).backward()
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / total)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        scores = model(to_input(dataset.test.pixels, dataset.mean, dataset.std, torch.float32, torch.channels_last))
    assert (scores.argmax(1).numpy() == dataset.test.labels).mean() > 0.95


# -- the user's own

OWN = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, classes, channels, height, width):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels * height * width, classes)
    def forward(self, x):
        return self.head(self.norm(x).flatten(1))
good = Net
frozen = lambda **fit: Net(**fit).requires_grad_(False)
number = 3
def none(**fit): return None
def raises(**fit): raise RuntimeError("on purpose")
def strange(other): return None
def wide(classes, **fit): return Net(classes=classes + 1, **fit)
class Leaves(Net):
    def forward(self, x): raise SystemExit(0)
def leaves(**fit): raise SystemExit(0)
def far(**fit): raise OSError("[Errno -3] Temporary failure in name resolution")
def double(**fit):
    torch.set_default_dtype(torch.float64)
    return Net(**fit)
def lost(**fit): open("/nowhere/weights.pt")
class Far(Net):
    def forward(self, x): raise ConnectionResetError("by peer")
def square(classes, channels, height, width): return Net(classes, channels, 32, 32)
def inner(classes, **fit):
    model = Net(classes, **fit)
    model.norm.eval()
    return model
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_models.py").write_text(OWN)
    (tmp_path / "their_broken.py").write_text("1 / 0\n")
    (tmp_path / "their_far.py").write_text("raise ConnectionResetError('by peer')\n")
    (tmp_path / "their_script.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("their_models", "their_broken", "their_script", "their_far"):
        sys.modules.pop(name, None)
    return "their_models"


def test_own_model(own: str) -> None:
    one_step(build(f"{own}:good", classes=7, channels=2, height=4, width=5), 2, 4, 5)


@pytest.mark.parametrize("name", ["their_models:Far", "their_models:far", "their_far:model"])
@pytest.mark.usefixtures("own")
def test_a_connection_that_breaks_is_no_fault_of_the_model(name: str) -> None:
    """Its function may have pretrained weights come."""
    with pytest.raises(OSError, match=r"^by peer$|^\[Errno -3\] Temporary"):
        build(name, classes=7, channels=2, height=4, width=5)


def test_own_model_keeps_what_is_in_evaluation_mode(own: str) -> None:
    model = build(f"{own}:inner", classes=7, channels=2, height=4, width=5)
    assert model.training
    assert model.head.training
    assert not model.norm.training


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("edgnet", 32, "no model is named edgnet. Did you mean edgenet or alexnet? There are article-cnn,"),
        ("resnet_18", 32, "no model is named resnet_18. Did you mean resnet18"),
        ("Transformer", 32, "no model is named Transformer. There are article-cnn, edgenet, torchvision's"),
        ("fasterrcnn_resnet50_fpn", 32, "no model is named fasterrcnn_resnet50_fpn."),
        ("alexnet", 32, "alexnet doesn't take images of 32x32 pixels with 3 channel(s) ("),
        ("inception_v3", 32, "inception_v3 doesn't take images of 32x32 pixels"),
        ("maxvit_t", 32, "maxvit_t doesn't take images of 32x32 pixels"),
        ("vit_b_16", 40, "vit_b_16 needs square images whose side is a multiple of 16, not 40x40: scale the images"),
        ("article-cnn", 3, "article-cnn doesn't take images of 3x3 pixels"),
        ("edgenet", 1, "edgenet doesn't take images of 1x1 pixels"),
        (
            "nowhere:model",
            32,
            "nowhere:model: nowhere can't be imported (ModuleNotFoundError: No module named 'nowhere'): start it",
        ),
        (
            "their_broken:model",
            32,
            "their_broken can't be imported (ZeroDivisionError: division by zero): correct it",
        ),
        (
            "their_script:model",
            32,
            "their_script ends its process when it is imported (SystemExit: 0): put what it does as a script under if",
        ),
        ("their_models:leaves", 32, "their_models:leaves failed (SystemExit: 0): "),
        (
            "their_models:Leaves",
            32,
            "their_models:Leaves doesn't take images of 32x32 pixels with 3 channel(s) (System",
        ),
        ("their_models:absent", 32, "their_models:absent: their_models has no function absent"),
        ("their_models:", 32, "their_models has no function (write one behind the colon)"),
        ("their_models:number", 32, "their_models has no function number"),
        (
            "their_models:double",
            32,
            "their_models:double doesn't take images of 32x32 pixels with 3 channel(s) (RuntimeError: ",
        ),
        ("their_models:none", 32, "their_models:none returned NoneType: a torch.nn.Module is needed"),
        (
            "their_models:raises",
            32,
            "their_models:raises failed (RuntimeError: on purpose): correct it",
        ),
        ("their_models:strange", 32, "their_models:strange failed (TypeError: strange() got an unexpected keyword"),
        (
            "their_models:strange",
            32,
            "'classes'): it is called with the keyword arguments classes, channels, height and",
        ),
        ("their_models:lost", 32, "their_models:lost failed (FileNotFoundError: [Errno 2] No such file or directory: "),
        ("their_models:frozen", 32, "their_models:frozen has no parameter that can be trained"),
        ("their_models:wide", 32, "their_models:wide makes [1, 8] of one image: logits [1, 7] are needed"),
        (
            "their_models:square",
            31,
            "their_models:square doesn't take images of 31x31 pixels with 3 channel(s) (RuntimeError: addmm: mat1",
        ),
    ],
)
@pytest.mark.usefixtures("own")
def test_sentence(name: str, size: int, expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(name, classes=7, channels=3, height=size, width=size)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (name == "edgenet" and "another model such as edgenet" in str(caught.value))
