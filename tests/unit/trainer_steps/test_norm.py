"""Batch normalisation by shard."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from edgecloud_trainer import norm
from edgecloud_trainer.models import ModelError

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
    assert norm.seen(norms) == [sum(SIZES)] * 2
    norm.take_up(norms, moments, norm.seen(norms))
    norm.take_up(others, summed, norm.seen(norms))
    for one, other in zip(together.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_running_statistics_are_weighted_by_samples() -> None:
    layer = nn.BatchNorm1d(1, momentum=0.5)
    module = nn.Sequential(layer)
    norms = norm.convert(module)
    norm.set_sizes(module, (2, 4))
    module(torch.tensor([[0.0], [2.0], [10.0], [10.0], [12.0], [12.0]]))
    norm.take_up(norms, norm.gathered(norms), norm.seen(norms))
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
    norm.take_up([], torch.empty(0), norm.seen([]))


class Blocks(nn.Module):
    """Normalises before and after, by one layer or two, all of it checkpointed or not."""

    def __init__(self, *, shared: bool = False, checkpointed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.checkpointed = checkpointed
        self.first = nn.BatchNorm2d(6)
        self.convolution = nn.Conv2d(6, 6, 3)
        self.second = nn.Sequential(self.first if shared else nn.BatchNorm2d(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = checkpoint(self.block, x, use_reentrant=False) if self.checkpointed else self.block(x)
        assert isinstance(found, torch.Tensor)
        return found.tanh()

    def block(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(self.convolution(self.first(x)))
        return found


def updated(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its buffers after a step's forward and backward."""
    norms = norm.convert(module)
    norm.set_sizes(module, SIZES)
    module(images()).sum().backward()
    norm.take_up(norms, norm.gathered(norms), norm.seen(norms))
    return dict(module.named_buffers())


def test_a_block_that_is_computed_again_for_its_gradient() -> None:
    found = updated(Blocks(checkpointed=True))
    for name, expected in updated(Blocks()).items():
        assert torch.equal(found[name], expected), name


def test_a_layer_that_blocks_share_takes_up_the_mean_of_its_calls() -> None:
    shared, apart = updated(Blocks(shared=True)), updated(Blocks())
    assert list(shared) == [name for name in apart if name.startswith("first")], "it is one layer"
    for name in ("running_mean", "running_var"):
        mean = (apart[f"first.{name}"] + apart[f"second.0.{name}"]) / 2
        torch.testing.assert_close(shared[f"first.{name}"], mean)
    assert int(shared["first.num_batches_tracked"]) == 1


class Partly(nn.Module):
    """Normalises only what is positive, and beside that by fixed statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.some, self.never = (nn.BatchNorm1d(2, momentum=None) for _ in range(2))
        self.fixed = nn.BatchNorm1d(2)

    def train(self, mode: bool = True) -> Partly:
        super().train(mode)
        self.fixed.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fixed(x)
        return self.some(x) if bool((x > 0).all()) else x


def test_a_layer_that_a_shard_leaves_out() -> None:
    """Its statistics are of the shards that came by; where none did they stay to the last bit, as does their count."""
    module = Partly().train()
    norms = norm.convert(module)
    x = torch.rand(6, 2, generator=torch.Generator().manual_seed(0)) + 1
    for layer in norms:
        assert layer.running_mean is not None and layer.num_batches_tracked is not None
        layer.running_mean.fill_(0.3)
        layer.num_batches_tracked.fill_(3)
    before = {name: value.clone() for name, value in module.named_buffers()}
    moments, counts = torch.zeros(12), torch.zeros(3, dtype=torch.int64)
    for part in (x[:4], -x[4:]):
        norm.set_sizes(module, [len(part)])
        module(part)
        moments += norm.gathered(norms)
        counts += torch.tensor(norm.seen(norms))
    assert counts.tolist() == [4, 0, 0]
    norm.take_up(norms, moments, counts.tolist())
    after = dict(module.named_buffers())
    assert int(after["some.num_batches_tracked"]) == 4
    normalised = (x[:4] - 0.3) / (1 + module.fixed.eps) ** 0.5
    torch.testing.assert_close(after["some.running_mean"], 0.75 * torch.full((2,), 0.3) + 0.25 * normalised.mean(0))
    for name, value in before.items():
        assert name.startswith("some") or torch.equal(after[name], value), name


def test_one_layer_of_two_names() -> None:
    module = nn.Module()
    module.norm = nn.BatchNorm2d(6)
    module.alias = module.norm
    assert norm.convert(module) == [module.norm]
    assert module.alias is module.norm


def test_a_layer_over_tokens_weighs_by_images() -> None:
    """Its rows are more than the images; they count by the images all the same, as in every other layer."""
    module = nn.Sequential(nn.Flatten(0, 1), nn.BatchNorm1d(5, momentum=1.0))
    norms = norm.convert(module)
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    for sizes in ([4], [1, 3]):
        norm.set_sizes(module, sizes)
        found = module(x).reshape(x.shape)
        expected = torch.cat(
            [functional.batch_norm(part.flatten(0, 1), None, None, training=True) for part in torch.split(x, sizes)]
        )
        torch.testing.assert_close(found, expected.reshape(x.shape))
    norm.set_sizes(module, [4])
    module(x)
    norm.take_up(norms, norm.gathered(norms), norm.seen(norms))
    assert norms[0].running_mean is not None
    torch.testing.assert_close(norms[0].running_mean, x.mean((0, 1)))


class ReLUBehind(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


class ByItself(nn.BatchNorm2d):
    """As timm's BatchNormAct2d does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        x = functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps
        )
        return x.relu()


class OfAnotherClass(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.BatchNorm2d.forward(self, input).relu()


def hooked() -> nn.Module:
    layer = nn.BatchNorm2d(6)
    layer.register_forward_hook(lambda _module, _arguments, output: output.relu())
    return layer


@pytest.mark.parametrize("make", [lambda: ReLUBehind(6), lambda: ByItself(6), lambda: OfAnotherClass(6), hooked])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_a_layer_does_beside(make: Callable[[], nn.Module], checkpointed: bool) -> None:
    """It is done in training too, and of the rest the layer is as any other."""
    plain, own = Blocks(checkpointed=checkpointed), Blocks(checkpointed=checkpointed)
    plain.first, own.first = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU()), nn.Sequential(make(), nn.Identity())
    for (name, expected), (other, found) in zip(updated(plain).items(), updated(own).items(), strict=True):
        assert name == other
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    before = norm.statistics(own)
    norm.set_sizes(own, SIZES)
    norm.set_sizes(plain, SIZES)
    assert torch.equal(own(images()), plain(images()))
    assert all(torch.equal(value, before[name]) for name, value in norm.statistics(own).items())
    own.eval()
    plain.eval()
    assert torch.equal(own(images()), plain(images()))


class Listed(nn.Module):
    """Goes through its layers by a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6)
        self.layers = [self.norm]

    def train(self, mode: bool = True) -> Listed:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def test_a_layer_stays_the_object_that_it_was() -> None:
    module = Listed()
    layer = module.norm
    norms = norm.convert(module)
    assert norms == [layer] == module.layers and module.norm is layer
    assert norm.convert(module) == norms, "once more changes nothing"
    assert type(layer).__name__ == "BatchNorm2d" and not module.train().norm.training


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(6), ReLUBehind(6), nn.SyncBatchNorm(6)])
def test_a_converted_layer_is_copied_and_saved(layer: nn.Module) -> None:
    model = nn.Sequential(layer)
    norm.convert(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert type(other[0]) is type(layer)
        for one in (model, other):
            norm.set_sizes(one, SIZES)
        assert torch.equal(model(images()), other(images()))
        assert norm.seen([other[0]]) == [sum(SIZES)]


class AddsUp(nn.SyncBatchNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


def test_a_layer_that_adds_up_over_ranks_by_itself_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^trainer\.model: AddsUp is a SyncBatchNorm with a forward of its own"):
        norm.convert(nn.Sequential(AddsUp(6)))


def test_statistics_that_are_no_longer_tracked_stay() -> None:
    module = Blocks()
    module.first.track_running_stats = False
    before = {name: value.clone() for name, value in module.first.named_buffers()}
    updated(module)
    assert all(torch.equal(value, before[name]) for name, value in module.first.named_buffers())


def test_rows_of_no_shard() -> None:
    module = nn.Sequential(nn.BatchNorm1d(2))
    norm.convert(module)
    norm.set_sizes(module, (2, 2))
    with pytest.raises(
        norm.RowsError, match=r"other rows than images \(6 of 4 images\).*: write trainer\.shards: 1, with"
    ):
        module(torch.randn(6, 2))
    norm.set_sizes(module, (4,))
    module(torch.randn(6, 2))
