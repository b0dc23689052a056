"""Differences in 8 bits, and the exchange of `sync: local` on one rank."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgecloud.api.trainer import SyncSpec
from edgecloud_trainer import compression, ordinary, outer
from edgecloud_trainer.outer import OuterSync, sum_type, summed
from edgecloud_trainer.reduction import Wishes

SHAPES = ((5, 3, 2), (4,), (2, 7))


def differences(seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([scale * torch.randn(shape, generator=generator).reshape(-1) for shape in SHAPES])


LAYOUT = compression.rows([torch.empty(shape) for shape in SHAPES])
LENGTHS = compression.row_lengths(LAYOUT, torch.device("cpu"))


def test_rows() -> None:
    assert LAYOUT == [(5, 6), (1, 4), (2, 7)]
    assert LENGTHS.tolist() == [6] * 5 + [4] + [7] * 2


@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([1e-30, 1e-4, 1.0, 1e30]))
def test_a_sum_is_off_by_less_than_a_level_for_each_rank(seed: int, ranks: int, scale: float) -> None:
    parts = [differences(seed + rank, scale) for rank in range(ranks)]
    largest = torch.stack([compression.largest_by_row(part, LAYOUT) for part in parts]).amax(0)
    total = torch.zeros(parts[0].numel(), dtype=torch.int16)
    for rank, part in enumerate(parts):
        generator = torch.Generator().manual_seed(seed + rank)
        total += compression.compressed(part, largest, LENGTHS, generator)
    level = (largest / compression.LEVELS).repeat_interleave(LENGTHS)
    error = (compression.restored(total, largest, LENGTHS) - torch.stack(parts).sum(0)).abs()
    assert bool((error <= 1.001 * ranks * level).all())


def test_rounding_is_right_in_the_mean() -> None:
    part = differences(1)
    largest = compression.largest_by_row(part, LAYOUT)
    found = [
        compression.restored(
            compression.compressed(part, largest, LENGTHS, torch.Generator().manual_seed(seed)).to(torch.int16),
            largest,
            LENGTHS,
        )
        for seed in range(2000)
    ]
    level = (largest / compression.LEVELS).repeat_interleave(LENGTHS)
    # The mean of 2000 roundings, each off by less than a level with deviation under half of one.
    assert bool(((torch.stack(found).mean(0) - part).abs() < 0.06 * level).all())


def test_a_row_of_zeros_stays_zero() -> None:
    zeros = torch.zeros(48)
    largest = compression.largest_by_row(zeros, LAYOUT)
    found = compression.compressed(zeros, largest, LENGTHS, torch.Generator())
    assert not found.any()
    assert not compression.restored(found.to(torch.int16), largest, LENGTHS).any()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


def moved(model: nn.Sequential, by: float = 0.1) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)), alpha=by)


def sync(**fields: float) -> SyncSpec:
    return SyncSpec.parse({"mode": "local", "everySteps": 4, **fields})


def outer_sync(model: nn.Module, **fields: float) -> OuterSync:
    return OuterSync(model, sync(**fields), world_size=1, ordinary=ordinary.names(model))


def test_when_an_exchange_is_due() -> None:
    outer = outer_sync(network())
    assert [number for number in range(10) if outer.due(number, 10)] == [3, 7, 9]


def test_alone_the_plain_outer_step_takes_over_what_was_learnt() -> None:
    model = network()
    outer = outer_sync(model, outerLearningRate=1.0, outerMomentum=0.0)
    moved(model)
    learnt = copy.deepcopy(model.state_dict())
    assert outer.exchange(share=1.0, seed=0, wishes=Wishes(stop=True)).wishes == Wishes(stop=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, learnt[name], atol=0.01, rtol=0.0)


def test_going_on_from_its_state_is_the_same() -> None:
    one = network()
    first = outer_sync(one)
    moved(one)
    first.exchange(share=1.0, seed=1)
    other = copy.deepcopy(one)
    second = outer_sync(other)
    second.take_up({name: value.clone() for name, value in first.state().items()})
    for model, each in ((one, first), (other, second)):
        moved(model, 0.05)
        assert each.exchange(share=1.0, seed=2).wishes == Wishes()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_is_told(wrong: float) -> None:
    model = network()
    outer = outer_sync(model)
    before = copy.deepcopy(outer.state())
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = wrong
    assert not outer.exchange(share=1.0, seed=0).finite
    for name, value in outer.state().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("mask", [float("-inf"), torch.finfo(torch.float32).min])
def test_a_mask_is_left_alone_and_leaves_the_statistics_alone(mask: float) -> None:
    model = network()
    model.register_buffer("mask", torch.tensor([0.0, mask]))
    outer = outer_sync(model)
    model[1].running_var.fill_(0.25)
    assert outer.exchange(share=1.0, seed=0).finite
    assert model.mask.tolist() == [0.0, mask]
    assert model[1].running_var.tolist() == [0.25] * 4


def test_the_buffers_are_those_of_now() -> None:
    """A forward may put another tensor in a buffer's place; of another shape, it is left alone."""
    model = network()
    model.register_buffer("mean", torch.zeros(3))
    model.register_buffer("last", torch.zeros(3))
    outer = outer_sync(model)
    model.mean, model.last = torch.ones(3), torch.ones(2)
    assert outer.exchange(share=0.5, seed=0).finite
    assert (model.mean.tolist(), model.last.tolist()) == ([0.5] * 3, [1.0] * 2)


def test_alone_the_sum_is_the_value() -> None:
    values = torch.arange(-127, 128).to(torch.int8)
    assert summed(values, 1).tolist() == list(range(-127, 128))


@pytest.mark.parametrize("ranks", [2, 258, 259, 1024])
def test_a_sum_over_as_many_ranks_as_there_may_be_fits(ranks: int) -> None:
    """Of the largest value that each can have: in 16 bits too many would make it negative."""
    largest = torch.full((ranks,), compression.LEVELS, dtype=torch.int8)
    assert int(largest.sum(0, dtype=sum_type(ranks))) == ranks * compression.LEVELS
    assert sum_type(258) == torch.int16, "half the bytes, while they do"


def test_both_exchanges_are_timed_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is only given its work by them: it is waited for before and after each, as in every step's exchange."""
    settled: list[tuple[torch.device, int]] = []
    monkeypatch.setattr(outer, "settle", lambda *given: settled.append(given))
    outer_sync(network()).exchange(share=1.0, seed=0)
    assert settled == [(torch.device("cpu"), 1)] * 4
