"""Batch normalisation by shard."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgecloud_trainer import norm

SIZES = (5, 5, 4)


def images() -> torch.Tensor:
    return torch.randn(sum(SIZES), 6, 7, 7, generator=torch.Generator().manual_seed(1))


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))


def test_each_shard_by_its_own_statistics() -> None:
    plain, sharded = model(), model()
    norm.convert(sharded)
    plain.train()
    sharded.train()
    norm.set_sizes(sharded, SIZES)
    found = sharded(images())
    expected = torch.cat([copy.deepcopy(plain)(part) for part in torch.split(images(), list(SIZES))])
    torch.testing.assert_close(found, expected)


def test_how_shards_are_put_together_does_not_matter() -> None:
    """One forward of three shards, or one each: the same running statistics."""
    together, apart = model(), model()
    norms, others = norm.convert(together), norm.convert(apart)
    norm.set_sizes(together, SIZES)
    together(images())
    moments = norm.gathered(norms)
    summed = torch.zeros_like(moments)
    for part in torch.split(images(), list(SIZES)):
        norm.set_sizes(apart, [len(part)])
        apart(part)
        summed += norm.gathered(others)
    torch.testing.assert_close(moments, summed)
    norm.take_up(norms, moments, sum(SIZES))
    norm.take_up(others, summed, sum(SIZES))
    for one, other in zip(together.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_running_statistics_are_weighted_by_samples() -> None:
    layer = nn.BatchNorm1d(1, momentum=0.5)
    module = nn.Sequential(layer)
    norms = norm.convert(module)
    norm.set_sizes(module, (2, 4))
    module(torch.tensor([[0.0], [2.0], [10.0], [10.0], [12.0], [12.0]]))
    norm.take_up(norms, norm.gathered(norms), 6)
    mean = (2 * 1.0 + 4 * 11.0) / 6
    assert norms[0].running_mean is not None
    assert float(norms[0].running_mean) == pytest.approx(0.5 * mean)
    assert int(norms[0].num_batches_tracked) == 1


def test_evaluation_uses_the_running_statistics() -> None:
    plain, sharded = model(), model()
    norm.convert(sharded)
    plain.eval()
    sharded.eval()
    torch.testing.assert_close(sharded(images()), plain(images()))


def test_state_keeps_its_names() -> None:
    plain, sharded = model(), model()
    norm.convert(sharded)
    assert list(sharded.state_dict()) == list(plain.state_dict())


def test_no_norms_no_moments() -> None:
    assert norm.gathered([]).numel() == 0
    norm.take_up([], torch.empty(0), 1)
