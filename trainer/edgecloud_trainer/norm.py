"""Batch normalisation per virtual shard, whatever number of shards a forward pass holds.

Plain BatchNorm normalises over what a rank happens to hold, so its result changes with the number of ranks. Here each
shard is normalised by its own statistics, and the running ones get one update per step, weighted by samples, over all
shards of all ranks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from edgecloud_trainer.models import ModelError


class RowsError(ModelError):
    """What a BatchNorm sees can't be shared out over the shards."""


class ShardBatchNorm(_BatchNorm):
    """What a BatchNorm becomes, before its own class in the order of methods: the same layer in all but its forward.

    So whoever holds the layer holds this one; its hooks, its `isinstance` and what else its class has stay as they are.
    """

    shard_sizes: Sequence[int]
    shard_moments: list[Tensor]
    """For each call in the last forward, by shard: samples * mean, then samples * variance, [shards, 2 * C].

    One call as a rule; none in evaluation mode or in a layer that is left out; several where blocks share the layer or
    a checkpointed block is computed again.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] -> the same shape. In training, N is the sum of `shard_sizes`, or a multiple of it: where an
        image is several rows, one after the other.

        Raises:
            RowsError: there are several shards, and N is something else.
        """
        if not self.training and self.running_mean is not None:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return self.by_shard(input, self.weight, self.bias)

    def by_shard(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """Normalise each shard by its own statistics, and keep them."""
        sizes = self.shard_sizes if self.training and self.shard_sizes else (x.shape[0],)
        parts = torch.split(x, _rows(sizes, x.shape[0])) if len(sizes) > 1 else (x,)
        rows: list[Tensor] = []
        outputs = [self._normalise(part, size, rows, weight, bias) for part, size in zip(parts, sizes, strict=True)]
        if rows:  # only now: a checkpointed block that is computed again may break off within this layer
            self.shard_moments.append(torch.stack(rows))
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _normalise(
        self, part: Tensor, samples: int, rows: list[Tensor], weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        if self.running_mean is None or not self.training or not self.track_running_stats:
            return functional.batch_norm(part, None, None, weight, bias, training=True, eps=self.eps)
        # The statistics come out of the normalisation itself: a momentum of 1 puts them into fresh buffers.
        mean, variance = torch.empty_like(self.running_mean), torch.empty_like(self.running_mean)
        mean.zero_()
        variance.zero_()
        output = functional.batch_norm(part, mean, variance, weight, bias, training=True, momentum=1.0, eps=self.eps)
        rows.append(torch.cat((mean, variance)).mul_(samples))
        return output

    def gathered_moments(self) -> Tensor:
        """The moments of the last forward, summed over its shards, [2 * C]; zeros if it didn't come by here.

        Of several calls it is their mean. (Plain BatchNorm moves its statistics with each call, and so, by the same
        means and variances, further in a step.)
        """
        assert self.running_mean is not None
        calls = [rows.sum(0) for rows in self.shard_moments]
        if not calls:
            return self.running_mean.new_zeros(2 * self.running_mean.numel())
        return torch.stack(calls).mean(0) if len(calls) > 1 else calls[0]

    def take_up_moments(self, moments: Tensor, samples: int) -> None:
        """Take up the sum of `moments` [2 * C] over all shards of the step that came by here, `samples` in all.

        With no samples nothing changes: not even the number of batches, which `momentum: None` goes by.
        """
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None or samples == 0:
            return
        self.num_batches_tracked += 1
        momentum = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        mean, variance = (moments / samples).chunk(2)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Its class can be found under no name: it is made again.
        made: Any = super().__reduce_ex__(protocol)
        _, _, *rest = made
        return _blank, (_own_class(self),), *rest


def _rows(sizes: Sequence[int], count: int) -> list[int]:
    """How many of `count` rows are of each shard, which has so many images."""
    each, left = divmod(count, sum(sizes))
    if left or not each:
        raise RowsError(
            f"trainer.model: a BatchNorm sees other rows than images ({count} of {sum(sizes)} images), and can't tell"
            " which shard they are of: write trainer.shards: 1, with one worker, or trainer.deterministic: true"
        )
    return [each * size for size in sizes]


class _OwnForward(ShardBatchNorm):
    """Of a class with a forward of its own, such as one with an activation behind: what that has normalised by this
    layer's statistics, by `super().forward` or by itself, is normalised by shard."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return super(ShardBatchNorm, self).forward(*args, **kwargs)
        count = self.num_batches_tracked
        before = None if count is None else count.clone()
        try:
            with _ByShard(self):
                return super(ShardBatchNorm, self).forward(*args, **kwargs)
        finally:
            if count is not None and before is not None:  # which `take_up_moments` moves, once a step
                self.num_batches_tracked = count
                count.copy_(before)


class _ByShard(TorchFunctionMode):
    """Within it, `functional.batch_norm` with a layer's statistics is by shard."""

    def __init__(self, layer: ShardBatchNorm) -> None:
        super().__init__()
        self._layer = layer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            x, mean, weight, bias, training = _arguments(*args, **kwargs)
            own = mean is self._layer.running_mean if mean is not None else weight is self._layer.weight
            if training and own:
                return self._layer.by_shard(x, weight, bias)
        return func(*args, **kwargs)


def _arguments(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, bool]:
    """Of `functional.batch_norm`: those that count here."""
    return input, running_mean, weight, bias, training


_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")
_PLAIN: Final = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
"""What is by shard anyway. (A SyncBatchNorm's own would add up over ranks.)"""


@functools.cache
def _made(own: Any) -> type[ShardBatchNorm]:
    """Of a BatchNorm's class, that by shard; of the same name, which models ask for at times."""
    first = ShardBatchNorm if own.forward in _PLAIN else _OwnForward
    names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own.__name__, (first, own), names)


def _own_class(layer: ShardBatchNorm) -> type[_BatchNorm]:
    own: type[_BatchNorm] = type(layer).__bases__[1]
    return own


def _blank(own: Any) -> ShardBatchNorm:
    made = _made(own)
    return made.__new__(made)


def convert(model: nn.Module) -> list[ShardBatchNorm]:
    """Make every BatchNorm of a model one by shard, in its place; those that keep statistics, in a fixed order.

    Raises:
        ModelError: one adds up over ranks by itself.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, ShardBatchNorm):
            own: Any = type(module)
            if issubclass(own, nn.SyncBatchNorm) and own.forward not in _PLAIN:
                raise ModelError(
                    f"trainer.model: {own.__name__} is a SyncBatchNorm with a forward of its own, which adds"
                    " up over GPUs by itself: derive it from BatchNorm2d"
                )
            module.__class__ = _made(own)
            assert isinstance(module, ShardBatchNorm)
            module.shard_sizes, module.shard_moments = (), []
    return [m for m in model.modules() if isinstance(m, ShardBatchNorm) and m.running_mean is not None]


def buffer_names(model: nn.Module) -> set[str]:
    """What a converted model's state dict calls the running statistics, and the counts, of its norms."""
    return {
        f"{prefix}{'.' if prefix else ''}{name}"
        for prefix, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, ShardBatchNorm)
        for name, _ in module.named_buffers(recurse=False)
        if name in _STATISTICS  # a class of the user's may have more
    }


def weighty_counts(model: nn.Module) -> set[str]:
    """Those of them that a layer's statistics go by. Ranks by themselves may have moved them differently, where a
    forward leaves the layer out at times."""
    made = {id(m.num_batches_tracked) for m in model.modules() if isinstance(m, ShardBatchNorm) and m.momentum is None}
    return {name for name, buffer in model.named_buffers(remove_duplicate=False) if id(buffer) in made}


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """What `buffer_names` names, copied. No forward of a layer by shard moves it."""
    names, buffers = buffer_names(model), model.named_buffers(remove_duplicate=False)
    return {name: value.detach().clone() for name, value in buffers if name in names}


def set_sizes(model: nn.Module, sizes: Sequence[int]) -> None:
    """Say how many samples each shard of the next forward has, and forget what was gathered before."""
    for module in model.modules():
        if isinstance(module, ShardBatchNorm):
            module.shard_sizes, module.shard_moments = sizes, []


def gathered(norms: Sequence[ShardBatchNorm], **like: Any) -> Tensor:
    """The moments of the last forward, summed over its shards, of all norms in a row; empty without norms."""
    return torch.cat([norm.gathered_moments() for norm in norms]) if norms else torch.empty(0, **like)


def seen(norms: Sequence[ShardBatchNorm]) -> list[int]:
    """How many samples each norm's moments are of: all of the last forward, or none where it didn't come by."""
    return [sum(norm.shard_sizes) if norm.shard_moments else 0 for norm in norms]


def take_up(norms: Sequence[ShardBatchNorm], moments: Tensor, samples: Sequence[int]) -> None:
    """Give each norm its part of the summed moments, and of how many samples they are."""
    sizes = [2 * norm.running_mean.numel() for norm in norms if norm.running_mean is not None]
    parts = torch.split(moments, sizes) if sizes else ()
    for norm, part, count in zip(norms, parts, samples, strict=True):
        norm.take_up_moments(part, count)
