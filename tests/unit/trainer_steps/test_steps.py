"""A step against the loop that a PyTorch tutorial would write, on the same images."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecloud_trainer import data, devices, group, models, optimizers
from edgecloud_trainer.augment import to_input
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.order import batch_ids
from edgecloud_trainer.settings import Settings, read
from edgecloud_trainer.shards import even
from edgecloud_trainer.steps import Stepper

STEPS = 8
SGD = {"name": "sgd", "learningRate": 0.05, "momentum": 0.9, "nesterov": True, "weightDecay": 0.001}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return data.load(settings().trainer.data, seed=0, cache=tmp_path_factory.mktemp("data"))


def settings(**trainer: Any) -> Settings:
    spec = {
        "data": {"name": "digits"}, "batchSize": 96, "epochs": 2, "optimizer": SGD, "precision": "fp32",
        "schedule": {"name": "constant", "warmupFraction": 0.0}, **trainer,
    }  # fmt: skip
    return read({"EDGECLOUD_TRAINER": json.dumps({"trainer": spec})})


def model_of(name: str, dataset: Dataset) -> nn.Module:
    channels, height, width = dataset.shape
    torch.manual_seed(0)
    built = models.build(name, classes=10, channels=channels, height=height, width=width)
    models.initialise(built, dataset.train.pixels, mean=dataset.mean, std=dataset.std)
    return built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def trained(dataset: Dataset, model: nn.Module, steps: int = STEPS, **trainer: Any) -> tuple[nn.Module, list[float]]:
    """The model after some steps of ours, and the losses."""
    said = settings(**trainer)
    stepper = Stepper(said, devices.choose(said), dataset, copy.deepcopy(model))
    outcomes = [stepper.step(number, even(said.trainer.shards, 1)) for number in range(steps)]
    assert [outcome.samples for outcome in outcomes] == [96] * steps
    return stepper.model, [outcome.loss for outcome in outcomes]


def plainly_trained(dataset: Dataset, model: nn.Module, *, smoothing: float) -> tuple[nn.Module, list[float]]:
    model, losses = copy.deepcopy(model).train(), []
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": SGD["weightDecay"]},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=SGD["learningRate"], momentum=SGD["momentum"], nesterov=SGD["nesterov"],
    )  # fmt: skip
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    for number in range(STEPS):
        _, ids = batch_ids(0, number, len(dataset.train.labels), 96)
        images = to_input(
            dataset.train.pixels[ids], dataset.mean, dataset.std,
            dtype=torch.float32, memory_format=torch.channels_last,
        )  # fmt: skip
        loss = criterion(model(images), torch.from_numpy(np.ascontiguousarray(dataset.train.labels[ids])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def distance(one: nn.Module, other: nn.Module) -> float:
    """Of the weights, relative to their size."""
    own, theirs = (torch.cat([p.detach().reshape(-1).double() for p in m.parameters()]) for m in (one, other))
    return float((own - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_as_the_plain_loop(digits: Dataset, deterministic: bool, smoothing: float) -> None:
    """Losses, and so the gradients behind them, and weights: equal within rounding."""
    model = model_of("article-cnn", digits)
    expected, losses = plainly_trained(digits, model, smoothing=smoothing)
    found, own = trained(digits, model, deterministic=deterministic, labelSmoothing=smoothing, shards=5)
    assert own == pytest.approx(losses, rel=1e-5)
    assert distance(found, expected) < 1e-6
    assert distance(expected, model) > 1e-2, "it has moved at all"


@pytest.mark.parametrize("model", ["article-cnn", "edgenet"])
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.01), ("muon", 0.01), ("adamw", 0.001)])
def test_fast_is_deterministic_within_rounding(digits: Dataset, model: str, optimizer: str, rate: float) -> None:
    """With augmentation, EMA, clipping, and batch norm by shard.

    At a rate that a training would really use: at ten times that AdamW throws article-cnn about, and roundings grow.
    """
    within = 1e-4
    more = {
        "optimizer": {"name": optimizer, "learningRate": rate, "gradientClipNorm": 1.0}, "emaDecay": 0.9,
        "data": {"name": "digits", "augment": "flip-crop"}, "shards": 6,
    }  # fmt: skip
    begin = model_of(model, digits)
    exact, losses = trained(digits, begin, deterministic=True, **more)
    fast, others = trained(digits, begin, **more)
    assert others == pytest.approx(losses, rel=within)
    assert distance(fast, exact) < within
    assert distance(exact, begin) > 10 * within, "it has moved far more than that"


@pytest.mark.parametrize(
    ("model", "optimizer"), [("article-cnn", "sgd"), ("article-cnn", "adamw"), ("edgenet", "muon")]
)
def test_going_on_is_the_same_to_the_last_bit(digits: Dataset, optimizer: str, model: str) -> None:
    """State comes back from a checkpoint contiguous, whatever strides the weights have (channels last)."""
    said = settings(optimizer={"name": optimizer, "learningRate": 0.01}, deterministic=True, shards=3)
    begin = model_of(model, digits)
    whole, _ = trained(digits, begin, steps=6, optimizer=said.optimizer.dump(), deterministic=True, shards=3)
    first = Stepper(said, devices.choose(said), digits, copy.deepcopy(begin))
    second = Stepper(said, devices.choose(said), digits, copy.deepcopy(begin))
    assignment = even(said.trainer.shards, 1)
    for number in range(3):
        first.step(number, assignment)
    second.model.load_state_dict({name: value.contiguous() for name, value in first.model.state_dict().items()})
    for one, other in zip(first.optimizers, second.optimizers, strict=True):
        state = copy.deepcopy(one.state_dict())
        for values in state["state"].values():
            values |= {name: v.contiguous() for name, v in values.items() if isinstance(v, torch.Tensor)}
        optimizers.take_up(other, state)
    for number in range(3, 6):
        second.step(number, assignment)
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_shards_do_not_change_the_mean(digits: Dataset) -> None:
    """Without batch norm the number of shards is nothing but bookkeeping."""
    model = model_of("article-cnn", digits)
    one, _ = trained(digits, model, shards=1)
    many, _ = trained(digits, model, shards=13)
    assert distance(many, one) < 1e-5


@pytest.mark.parametrize("deterministic", [True, False])
def test_alone_there_is_nobody_to_wait_for(digits: Dataset, deterministic: bool) -> None:
    said = settings(deterministic=deterministic)
    stepper = Stepper(said, devices.choose(said), digits, model_of("article-cnn", digits))
    assert stepper.step(0, even(said.trainer.shards, 1)).wait_seconds == 0.0


class Left(nn.Module):
    """Leaves one of its layers out at every other call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.norm, self.now_and_then, self.never = (nn.BatchNorm2d(1, momentum=None) for _ in range(3))
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, self.calls = self.norm(x), self.calls + 1
        logits: torch.Tensor = self.head((self.now_and_then(x) if self.calls % 2 else x).flatten(1))
        return logits


@pytest.mark.parametrize("deterministic", [True, False])
def test_layers_that_are_left_out_keep_their_statistics(digits: Dataset, deterministic: bool) -> None:
    model, _ = trained(digits, Left(), deterministic=deterministic, shards=5, steps=2)
    state = model.state_dict()
    counts = [int(state[f"{name}.num_batches_tracked"]) for name in ("norm", "now_and_then", "never")]
    assert counts == [2, 2 if deterministic else 1, 0], "each shard is a call there, each step here"
    assert float(state["never.running_mean"]) == 0.0
    assert float(state["now_and_then.running_var"]) == pytest.approx(1.0, rel=0.1), "its input is normalised"


def test_a_checkpoint_of_another_machine_is_no_exact_one() -> None:
    here = {"torch": "2.15", "isa": "AVX512", "threads": "1"}
    group.refuse_mixture(here, here)
    with pytest.raises(group.MixtureError, match="isa AVX2 there and AVX512 here"):
        group.refuse_mixture({**here, "isa": "AVX2"}, here)


class Drops(nn.Module):
    """Leaves its layer out now and then, by the numbers of Python's and numpy's that all share."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(64, 64), nn.Linear(64, 10)
        self.drawn: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        self.drawn += [random.random(), np.random.random()]
        return self.head(self.layer(x) if self.drawn[-1] > self.drawn[-2] else x)  # type: ignore[no-any-return]


def test_random_numbers_of_other_libraries_are_the_shards(digits: Dataset) -> None:
    """As torch's: whatever was drawn before, and whoever computes the shard."""
    said = settings(deterministic=True, shards=3)
    stepper = Stepper(said, devices.choose(said), digits, Drops())
    found = []
    for _ in range(2):
        stepper.model.drawn = []
        stepper.step(7, even(3, 1))
        found.append(stepper.model.drawn)
        random.random()
    assert found[0] == found[1] and len(set(found[0])) == 6


class Tiny(nn.Module):
    """Strides over one pixel, with the padding around it, when the memory is full of NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(nn.functional.adaptive_avg_pool2d(images, 1).repeat(1, 16, 1, 1))
        if features.requires_grad:
            features.register_hook(self.dirty)
        logits: torch.Tensor = self.head(features.flatten(1))
        return logits

    def dirty(self, _gradient: torch.Tensor) -> None:
        kept = [torch.full((count,), float("nan")) for count in (16, 144, 160, 1024) for _ in range(40)]
        del kept


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_memory_gets_into_the_weights(digits: Dataset, deterministic: bool) -> None:
    torch.manual_seed(0)
    model = Tiny()
    before = model.conv.weight.detach().clone()
    plain = {"name": "adamw", "learningRate": 0.01, "weightDecay": 0.0}
    after = trained(digits, model, precision="bf16", deterministic=deterministic, optimizer=plain)[0].conv.weight
    moved = (after != before).flatten(0, 1).any(0)
    assert moved.tolist() == [[False] * 3, [False, True, False], [False] * 3]
