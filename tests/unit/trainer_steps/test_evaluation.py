"""How many images a network is shown at once: a large one's would fill the memory, and end the worker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecloud_trainer.data import Dataset, Images
from edgecloud_trainer.devices import Device
from edgecloud_trainer.evaluation import evaluate, images_at_once

CPU = Device(device=torch.device("cpu"), autocast=None, memory_format=torch.channels_last, backend="gloo")


class Counts(nn.Module):
    """Says of every image that it is of the first class, and remembers how many came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)


def black(count: int, height: int, width: int) -> Dataset:
    # One image that stands for all of them, as the memory of so many is not what this is about.
    pixels = np.broadcast_to(np.zeros((1, 1, height, width), np.uint8), (count, 1, height, width))
    images = Images(pixels=pixels, labels=np.arange(count) % 2)
    return Dataset(
        name="black", train=images, validation=None, test=images, classes=("a", "b"), mean=(0.5,), std=(1.0,),
        digest="0" * 64,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((1, 8, 8), 500), ((3, 32, 32), 500), ((3, 64, 64), 500), ((1, 64, 64), 500), ((3, 65, 64), 492),
        ((3, 224, 224), 40), ((1, 224, 224), 40), ((3, 1024, 1024), 1), ((3, 8192, 8192), 1),
    ],
)  # fmt: skip
def test_fewer_the_larger_they_are(shape: tuple[int, int, int], count: int) -> None:
    assert images_at_once(shape) == count


def test_a_network_is_no_surer_for_having_seen_the_mirror_image() -> None:
    """What it says of both alike it says of them together."""
    model, dataset = Counts(), black(2, 8, 8)
    once = evaluate(model, dataset.test, dataset, CPU)
    model.test_time_mirror = True  # type: ignore[assignment]
    both = evaluate(model, dataset.test, dataset, CPU)
    assert model.seen == [2, 2, 2]
    assert both.loss == pytest.approx(once.loss)


def test_an_evaluation_keeps_to_it() -> None:
    model, dataset = Counts(), black(90, 224, 224)
    found = evaluate(model, dataset.test, dataset, CPU)
    assert model.seen == [40, 40, 10]
    assert (found.total, found.correct) == (90, 45)
