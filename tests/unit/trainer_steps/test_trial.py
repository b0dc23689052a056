"""What can't be trained is told before the first step, and what can is left as it was."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from edgecloud_trainer import data, devices, models, trial
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.models import ModelError
from edgecloud_trainer.settings import Settings, SettingsError, read
from edgecloud_trainer.shards import even
from edgecloud_trainer.steps import Stepper


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return data.load(settings().trainer.data, seed=0, cache=tmp_path_factory.mktemp("data"))


def settings(*, ranks: int = 1, **trainer: Any) -> Settings:
    spec = {"data": {"name": "digits"}, "precision": "fp32", **trainer}
    return replace(read({"EDGECLOUD_TRAINER": json.dumps({"trainer": spec})}), world_size=ranks)


def stepper(said: Settings, dataset: Dataset, model: nn.Module | None = None) -> Stepper:
    model = models.build("edgenet", classes=10, channels=1, height=8, width=8) if model is None else model
    return Stepper(said, devices.choose(said), dataset, model)


def few(dataset: Dataset, images: int) -> Dataset:
    train = dataset.train
    return replace(dataset, train=replace(train, pixels=train.pixels[:images], labels=train.labels[:images]))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    ("images", "batch", "shards", "expected"),
    [
        (
            1000,
            16,
            12,
            "a batch of 16 in 12 shards leaves shards of one image, and edgenet takes two at least: it fails",
        ),
        (1000, 16, 12, "(ValueError: Expected more than 1 value per channel when training, got input size"),
        (1000, 23, 12, "; write shards: 11 or less, or batchSize: 24 or more"),
        (20, 128, 12, "a batch of 20 in 12 shards leaves"),
        (20, 128, 12, "; write shards: 10 or less"),
        (5, 128, 12, "; write shards: 2 or less"),
        (1000, 1, 1, "; write batchSize: 2 or more"),
        (1, 128, 12, "; give it more images"),
    ],
)
def test_shards_of_one_image(
    digits: Dataset, images: int, batch: int, shards: int, expected: str, deterministic: bool
) -> None:
    said = settings(batchSize=batch, shards=shards, deterministic=deterministic)
    with pytest.raises(SettingsError) as caught:
        stepper(said, few(digits, images))
    assert str(caught.value).startswith("trainer.shards: a batch of ")
    assert expected in str(caught.value)
    assert images < 24 or "batchSize" in str(caught.value)


def test_the_remedy_leaves_a_shard_for_each_rank(digits: Dataset) -> None:
    with pytest.raises(SettingsError, match=r"; write batchSize: 24 or more$"):
        stepper(settings(batchSize=16, ranks=9), digits)


@pytest.mark.parametrize(("batch", "shards"), [(23, 11), (24, 12)])
def test_the_remedy_is_one(digits: Dataset, batch: int, shards: int) -> None:
    said = settings(batchSize=batch, shards=shards, deterministic=True)
    assert stepper(said, digits).step(0, even(shards, 1)).samples == batch


def test_shards_of_one_image_are_enough_for_others(digits: Dataset) -> None:
    model = models.build("article-cnn", classes=10, channels=1, height=8, width=8)
    stepper(settings(batchSize=12), digits, model)


class Outputs(NamedTuple):
    logits: Tensor
    aux: Tensor


class Own(nn.Module):
    """Does something to its logits in training."""

    def __init__(self, do: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.do = do
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> object:
        logits = self.head(x.flatten(1))
        return self.do(logits) if self.training else logits


def raises(_logits: Tensor) -> Tensor:
    raise RuntimeError("on purpose\nand more")


def leaves(_logits: Tensor) -> Tensor:
    raise SystemExit(0)


def wants_eight(logits: Tensor) -> Tensor:
    assert len(logits) >= 8
    return logits


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        (lambda logits: Outputs(logits, logits), "own:net makes Outputs of {both} images in training mode: one tensor"),
        (
            lambda logits: logits[:, :9],
            "own:net makes [{both}, 9] of {both} images in training mode: one tensor of logits",
        ),
        (lambda logits: logits.detach(), "own:net makes logits without a gradient in training mode"),
        (leaves, "own:net fails in training mode on shards of {one} images (SystemExit: 0): correct it"),
        (raises, "own:net fails in training mode on shards of {one} images (RuntimeError: on purpose): correct it, or"),
    ],
)
@pytest.mark.parametrize(("batch", "one"), [(12, 2), (96, 8)])
def test_what_breaks_in_training_only(
    digits: Dataset, do: Callable[[Tensor], object], expected: str, batch: int, one: int
) -> None:
    with pytest.raises(ModelError) as caught:
        stepper(settings(batchSize=batch, model="own:net"), digits, Own(do))
    assert expected.format(one=one, both=2 * one) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_wants_more_than_a_few_gets_its_shard(digits: Dataset) -> None:
    said = settings(batchSize=96, deterministic=True)
    stepper(said, digits, Own(wants_eight)).step(0, even(12, 1))
    with pytest.raises(ModelError, match="on shards of 4 images"):
        stepper(settings(batchSize=48, deterministic=True), digits, Own(wants_eight))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
        OSError(errno.ESTALE, "Stale file handle"),
        ConnectionResetError("by peer"),
    ],
)
def test_what_another_try_may_do_is_tried_again(digits: Dataset, error: Exception) -> None:
    def fail(_logits: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        stepper(settings(), digits, Own(fail))
    assert caught.value is error


@pytest.mark.parametrize("kind", [AssertionError, NotImplementedError])
def test_an_error_that_only_speaks_of_cuda_is_the_models(digits: Dataset, kind: type[Exception]) -> None:
    def fail(_logits: Tensor) -> Tensor:
        raise kind("without CUDA")

    with pytest.raises(ModelError, match=f"{kind.__name__}: without CUDA"):
        stepper(settings(), digits, Own(fail))


def test_a_model_of_double_precision_only(digits: Dataset) -> None:
    """Its function has set torch's default, which is no steps' precision."""
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ModelError, match="dtype"):
            stepper(settings(model="own:net"), digits, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    finally:
        torch.set_default_dtype(torch.float32)


class Extra(nn.Linear):
    """Holds something beside parameters and buffers."""

    def __init__(self, extra: object) -> None:
        super().__init__(64, 10)
        self.extra = extra

    def get_extra_state(self) -> object:
        return self.extra

    def set_extra_state(self, state: object) -> None:
        self.extra = state


def with_complex(name: str) -> nn.Module:
    model = nn.Linear(64, 10)
    values = torch.ones(2, dtype=torch.complex64)
    if name == "buffer":
        model.register_buffer(name, values)
    else:
        model.register_parameter(name, nn.Parameter(values))
    return model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Extra({"seen": 3}), "1._extra_state is a dict, and a tensor is needed: have get_extra_state return one, or"),
        (with_complex("buffer"), "tensor '1.buffer' cannot be saved: torch.complex64, "),
        (with_complex("weights"), "tensor '1.weights' cannot be saved: torch.complex64, "),
        (Extra(torch.ones(3)), None),
    ],
)
def test_what_a_checkpoint_cant_hold(digits: Dataset, model: nn.Module, expected: str | None) -> None:
    """The first checkpoint found out, and so did that of each restart."""
    said, model = settings(model="own:net", emaDecay=0.9), nn.Sequential(nn.Flatten(), model)
    if expected is None:
        stepper(said, digits, model)
        return
    with pytest.raises(ModelError) as caught:
        stepper(said, digits, model)
    assert str(caught.value).startswith("own:net can't be kept in a checkpoint: ")
    assert expected in str(caught.value)


class Functional(nn.BatchNorm1d):
    """Normalises in a way that nobody can put the shards into."""

    def forward(self, input: Tensor) -> Tensor:
        found: Tensor = torch.batch_norm(
            input, self.weight, self.bias, self.running_mean, self.running_var, self.training, 0.1, self.eps, False
        )
        return found


def test_what_can_not_be_normalised_by_shard(digits: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Functional(10))
    with pytest.raises(ModelError) as caught:
        stepper(settings(model="own:net"), digits, model)
    assert str(caught.value) == (
        "own:net normalises in training mode by itself, not by shard, and moves 2.running_mean: have the BatchNorm's"
        " forward call super().forward, or torch.nn.functional.batch_norm with its running_mean"
    )


class OneRowMore(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(torch.cat((input, input[:1])))[: len(input)]


class Scatters(torch.autograd.Function):
    """Its backward needs an operation of which torch has no deterministic form, as those of some poolings on a GPU."""

    @staticmethod
    def forward(_context: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_context: object, *gradients: Tensor) -> Tensor:
        return gradients[0].clone().put_(torch.tensor([0]), torch.ones(1))


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_what_has_no_deterministic_form(digits: Dataset, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = settings(deterministic=True, model="own:net")
    model = Own(Scatters.apply if name == "backward" else lambda logits: Scatters.backward(None, logits))
    cpu = devices.choose(said)
    assert not trial.backwards(said, cpu) and trial.backwards(said, replace(cpu, device=torch.device("cuda")))
    monkeypatch.setattr(trial, "backwards", lambda *_: True)
    stepper(said, digits, Own(Scatters.apply))  # not asked for: works
    torch._C._set_deterministic_algorithms(True, warn_only=False)
    try:
        with pytest.raises(ModelError) as caught:
            stepper(said, digits, model)
    finally:
        torch._C._set_deterministic_algorithms(False, warn_only=False)
    assert str(caught.value) == (
        "own:net can't be trained with deterministic: true here (RuntimeError: put_ does not have a deterministic"
        " implementation): write trainer.deterministic: false, or take another model such as edgenet"
    )


@pytest.mark.parametrize(("ranks", "works"), [(1, False), (12, True)])
def test_shards_that_a_rank_has_together(digits: Dataset, ranks: int, works: bool) -> None:
    """A normalisation over other rows than images can't tell its shards; alone, a shard is all there is."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), OneRowMore(10))
    said = settings(ranks=ranks)
    if works:
        stepper(said, digits, model)
    else:
        with pytest.raises(
            ModelError, match=r"^trainer\.model: a BatchNorm sees other rows than images \(5 of 4 images"
        ):
            stepper(said, digits, model)


class Changes(nn.Module):
    """Changes in training whatever it can: buffers and parameters in place and not, a counter, random numbers."""

    counts: Tensor
    last: Tensor
    wide: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.norm = nn.BatchNorm2d(1)
        self.register_buffer("counts", torch.full((1,), 3.0))
        self.register_buffer("last", torch.zeros(1))
        self.register_buffer("wide", torch.zeros(1).expand(4))
        self.head = nn.Linear(64, 10)
        self.dropout = nn.Dropout()
        self.codebook, self.sizes = (nn.Parameter(torch.ones(2), requires_grad=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.counts += 1
            self.last = x.sum().reshape(1) + 1
            self.codebook.data.mul_(0.9)
            self.sizes = nn.Parameter(self.sizes * 0.9, requires_grad=False)
            self.head.weight.data.clamp_(max=0.01)
        logits: Tensor = self.dropout(self.head(self.norm(x).flatten(1)))
        return logits


@pytest.mark.parametrize("backwards", [False, True])
def test_nothing_is_left_of_it(digits: Dataset, backwards: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "backwards", lambda *_: backwards)
    model = Changes()
    model.dropout.eval()
    last, sizes = model.last, model.sizes
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    tried = stepper(settings(), digits, model)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.last is last and model.sizes is sizes and model.calls == 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert (tried.norms[0].shard_moments, tried.norms[0].shard_sizes) == ([], ())
    assert all(parameter.grad is None for parameter in model.parameters())
