"""How many images a network is shown at once: a large one's would fill the memory, and end the worker."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgecloud_trainer import group, results
from edgecloud_trainer.confusion import Confusion
from edgecloud_trainer.data import Dataset, Images
from edgecloud_trainer.devices import Device
from edgecloud_trainer.evaluation import Evaluation, evaluate, images_at_once
from edgecloud_trainer.settings import Settings
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import Rank, ended

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


MANY = 1_501


class Knows(nn.Module):
    """Says the class that an image shows in three digits of 28, and the next one of every fifth."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        said = ((x[:, 0, 0] * 255).round().long() * torch.tensor([784, 28, 1])).sum(1)
        logits = torch.zeros(len(x), MANY)
        logits[torch.arange(len(x)), (said + (said % 5 == 0)) % MANY] = 1
        return logits


def numbered() -> Dataset:
    labels = np.arange(0, MANY, 10)
    pixels = np.stack([labels // 784, labels // 28 % 28, labels % 28], axis=1).astype(np.uint8)
    images = Images(pixels=pixels[:, None, None], labels=labels)
    return Dataset(
        name="numbered", train=images, validation=None, test=images, classes=tuple(map(str, range(MANY))), mean=(0.0,),
        std=(1.0,), digest="0" * 64,
    )  # fmt: skip


def evaluated(said: Settings) -> object:
    group.join(said, CPU)
    dataset = numbered()
    found = evaluate(Knows(), dataset.test, dataset, CPU, rank=said.rank, world_size=2)
    return hashlib.sha256(found.confusion.cells.tobytes()).hexdigest()


def test_many_classes_on_two_ranks() -> None:
    """What is met is counted and exchanged, not all that could be."""
    port, dataset = free_port(), numbered()
    ranks = [Rank(evaluated, rank, port) for rank in (0, 1)]
    found = evaluate(Knows(), dataset.test, dataset, CPU)
    said = found.to_json()
    assert "confusion" not in said and said["accuracy"] == 0
    assert said["confusionCells"] == [[one, (one + 1) % MANY, 1] for one in range(0, MANY, 10)]
    assert said["perClass"]["10"] == {"total": 1, "correct": 0, "accuracy": 0.0}
    with ended(*ranks):
        assert [rank.end() for rank in ranks] == [(hashlib.sha256(found.confusion.cells.tobytes()).hexdigest(), 0)] * 2


def test_very_many_classes(tmp_path: Path) -> None:
    """Their matrix would have 3.2 GB; what is written and drawn goes by what was met."""
    labels = np.arange(20_000)
    confusion = Confusion.counted(labels, np.minimum(labels, 12_000), len(labels))
    found = Evaluation(classes=tuple(map(str, labels)), confusion=confusion, loss=0.5)
    results.write_json(tmp_path / "evaluation.json", found.to_json())
    results.draw_confusion(found, tmp_path / "confusion.png")
    assert (tmp_path / "evaluation.json").stat().st_size < 6e6
    assert (found.correct, confusion.matrix().shape) == (12_001, (1000, 1000))


@settings(max_examples=40)
@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=9), min_size=1, max_size=4))
def test_cells_add_up_as_matrices_do(ranks: list[list[tuple[int, int]]]) -> None:
    each = [Confusion.counted(*np.array(pairs, np.int64).reshape(-1, 2).T, 5) for pairs in ranks]
    most = max(len(one.cells) for one in each)
    padded = [torch.from_numpy(np.concatenate([one.cells, np.zeros((most - len(one.cells), 3), int)])) for one in each]
    total = each[0]._sum(padded)
    matrices = np.sum([one.matrix() for one in each], axis=0)
    np.testing.assert_array_equal(total.matrix(), matrices)
    np.testing.assert_array_equal(total.cells, Confusion.of(matrices).cells)
    assert total.matrix(most=2).tolist() == [
        [matrices[:3, :3].sum(), matrices[:3, 3:].sum()], [matrices[3:, :3].sum(), matrices[3:, 3:].sum()]
    ]  # fmt: skip
