"""How far fp16's loss is scaled, on a CPU, which computes in it as well; and ranks and shards that have no image."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecloud_trainer import devices, group
from edgecloud_trainer.data import Dataset, Images
from edgecloud_trainer.settings import Settings, read
from edgecloud_trainer.shards import even
from edgecloud_trainer.steps import LEAST_SCALE, NonFiniteError, Stepper
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import Rank, ended

SPEC = {"data": {"name": "digits"}, "precision": "fp32", "batchSize": 16, "shards": 2, "epochs": 9}


def noise() -> Dataset:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (32, 1, 8, 8), dtype=np.uint8)
    images = Images(pixels=pixels, labels=np.arange(32, dtype=np.int64) % 2)
    return Dataset(
        name="noise", train=images, validation=None, test=images, classes=("a", "b"), mean=(0.5,), std=(0.3,),
        digest="0" * 64,
    )  # fmt: skip


class Rooted(nn.Module):
    """Has a finite value, and one gradient that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.root = nn.Linear(64, 2), nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x.flatten(1)) + torch.sqrt(self.root * 0.0)
        return logits


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


def stepping(said: Settings, model: nn.Module, *, scale: float | None) -> Stepper:
    """scale: of the loss, in fp16; None: fp32."""
    device = replace(devices.choose(said), autocast=None if scale is None else torch.float16)
    stepper = Stepper(said, device, noise(), model)
    if scale is not None:
        stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": scale})
    return stepper


def alone(**trainer: Any) -> Settings:
    return read({"EDGECLOUD_TRAINER": json.dumps({"trainer": {**SPEC, **trainer}})})


@pytest.mark.parametrize("sync", [{"mode": "every"}, {"mode": "local", "everySteps": 4}], ids=lambda sync: sync["mode"])
def test_gradients_that_no_scale_makes_finite_end_it(sync: dict[str, Any]) -> None:
    """Each step is left out, and the loss says nothing: the training came to its end with the weights of its start."""
    stepper = stepping(alone(sync=sync), Rooted(), scale=2 * LEAST_SCALE)
    assert stepper.step(0, even(2, 1)).loss < 10
    assert stepper.step(1, even(2, 1)).loss < 10, "its scale was the least that may be"
    assert stepper.scaler.get_scale() == LEAST_SCALE / 2
    with pytest.raises(NonFiniteError, match="write precision: fp32"):
        for number in (2, 3):
            stepper.step(number, even(2, 1))


def two_steps(settings: Settings) -> object:
    """Two steps and the first exchange; this rank's scale afterwards, and whether it has moved."""
    torch.set_num_threads(1)
    scale = json.loads(os.environ["SCALE"])[settings.rank]
    stepper = stepping(settings, plain(), scale=scale)
    before = [parameter.detach().clone() for parameter in stepper.model.parameters()]
    group.join(settings, stepper.device)
    for number in (0, 1):
        stepper.step(number, even(2, 2))
    moved = any(not torch.equal(*pair) for pair in zip(before, stepper.model.parameters(), strict=True))
    scaling = stepper.scaler.state_dict()
    return json.dumps([moved, scaling.get("scale"), scaling.get("_growth_tracker")])


def together(scales: list[float | None], **trainer: Any) -> list[str]:
    port, job = free_port(), {"trainer": {**SPEC, **trainer}}
    ranks = [Rank(two_steps, rank, port, job=job, SCALE=json.dumps(scales)) for rank in (0, 1)]
    with ended(*ranks):
        return [rank.end()[0] for rank in ranks]


LOCAL = {"sync": {"mode": "local", "everySteps": 2}}


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ([1024.0, 512.0], ["[true, 512.0, 2]"] * 2),
        ([None, 512.0], ["[true, null, null]", "[true, 512.0, 2]"]),
        ([None, LEAST_SCALE / 2], ["NonFiniteError"] * 2),
    ],
    ids=["the least", "one scales nothing", "the other hears of it"],
)
def test_an_exchange_makes_the_scales_one(scales: list[float | None], expected: list[str]) -> None:
    """With `sync: local` each rank has found its own, and a checkpoint has rank 0's."""
    for said, word in zip(together(scales, **LOCAL), expected, strict=True):
        assert said.startswith(word), said


@pytest.mark.parametrize("trainer", [{}, LOCAL], ids=["every", "local"])
def test_a_rank_without_an_image_goes_along(trainer: dict[str, Any]) -> None:
    """From the first step on, when it has never scaled a loss of its own."""
    said = together([512.0, 512.0], batchSize=1, **trainer)
    assert said == [f"[true, 512.0, {2 if not trainer else 0}]"] * 2


@pytest.mark.parametrize("deterministic", [False, True])
def test_shards_without_an_image(deterministic: bool) -> None:
    """As of a set with fewer images than there are shards."""
    many, one = (alone(batchSize=3, shards=shards, deterministic=deterministic) for shards in (5, 1))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    stepper, whole = stepping(many, model, scale=None), stepping(one, copy.deepcopy(model), scale=None)
    assert stepper.step(0, even(5, 1)).loss == pytest.approx(whole.step(0, even(1, 1)).loss)
    for own, other in zip(stepper.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(own, other)
