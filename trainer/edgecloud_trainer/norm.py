"""Batch normalisation per virtual shard, whatever number of shards a forward pass holds.

Plain BatchNorm normalises over what a rank happens to hold, so its result changes with the number of ranks. Here each
shard is normalised by its own statistics, and the running ones get one update per step, weighted by samples, over all
shards of all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ShardBatchNorm(nn.Module):
    """Stands in for a BatchNorm layer, with its parameters and buffers under their names."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.eps = norm.eps
        self.momentum = norm.momentum
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.training = norm.training
        self.sizes: Sequence[int] = ()
        self.moments: list[Tensor] = []
        """For each call in the last forward, by shard: samples * mean, then samples * variance, [shards, 2 * C].

        One call as a rule; none in evaluation mode or in a layer that is left out; several where blocks share the layer
        or a checkpointed block is computed again.
        """

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] -> the same shape. In training, N is the sum of `sizes`."""
        if not self.training and self.running_mean is not None:
            return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        sizes = self.sizes if self.training and self.sizes else (x.shape[0],)
        parts = torch.split(x, list(sizes)) if len(sizes) > 1 else (x,)
        rows: list[Tensor] = []
        outputs = [self._normalise(part, size, rows) for part, size in zip(parts, sizes, strict=True)]
        if rows:  # only now: a checkpointed block that is computed again may break off within this layer
            self.moments.append(torch.stack(rows))
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _normalise(self, part: Tensor, samples: int, rows: list[Tensor]) -> Tensor:
        if self.running_mean is None or not self.training:
            return functional.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps)
        # The statistics come out of the normalisation itself: a momentum of 1 puts them into fresh buffers.
        mean, variance = torch.empty_like(self.running_mean), torch.empty_like(self.running_mean)
        mean.zero_()
        variance.zero_()
        output = functional.batch_norm(
            part, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
        )
        rows.append(torch.cat((mean, variance)).mul_(samples))
        return output

    def gathered(self) -> Tensor:
        """The moments of the last forward, summed over its shards, [2 * C]; zeros if it didn't come by here.

        Of several calls it is their mean. (Plain BatchNorm moves its statistics with each call, and so, by the same
        means and variances, further in a step.)
        """
        assert self.running_mean is not None
        calls = [rows.sum(0) for rows in self.moments]
        if not calls:
            return self.running_mean.new_zeros(2 * self.running_mean.numel())
        return torch.stack(calls).mean(0) if len(calls) > 1 else calls[0]

    def update(self, moments: Tensor, samples: int) -> None:
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


def convert(model: nn.Module) -> list[ShardBatchNorm]:
    """Put a ShardBatchNorm in the place of every BatchNorm of a model; those that keep statistics, in a fixed order.

    A BatchNorm that stands in several places, or under several names, is replaced by the same one in all of them.
    """
    replaced: dict[nn.Module, ShardBatchNorm] = {}
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):  # named_children() leaves out a child's second name
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                if child not in replaced:
                    replaced[child] = ShardBatchNorm(child)
                setattr(module, name, replaced[child])
    return [m for m in model.modules() if isinstance(m, ShardBatchNorm) and m.running_mean is not None]


def buffer_names(model: nn.Module) -> set[str]:
    """What a converted model's state dict calls the running statistics, and the counts, of its norms."""
    return {
        f"{prefix}{'.' if prefix else ''}{name}"
        for prefix, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, ShardBatchNorm)
        for name, _ in module.named_buffers(recurse=False)
    }


def set_sizes(model: nn.Module, sizes: Sequence[int]) -> None:
    """Say how many samples each shard of the next forward has, and forget what was gathered before."""
    for module in model.modules():
        if isinstance(module, ShardBatchNorm):
            module.sizes, module.moments = sizes, []


def gathered(norms: Sequence[ShardBatchNorm], **like: Any) -> Tensor:
    """The moments of the last forward, summed over its shards, of all norms in a row; empty without norms."""
    return torch.cat([norm.gathered() for norm in norms]) if norms else torch.empty(0, **like)


def seen(norms: Sequence[ShardBatchNorm]) -> list[int]:
    """How many samples each norm's moments are of: all of the last forward, or none where it didn't come by."""
    return [sum(norm.sizes) if norm.moments else 0 for norm in norms]


def take_up(norms: Sequence[ShardBatchNorm], moments: Tensor, samples: Sequence[int]) -> None:
    """Give each norm its part of the summed moments, and of how many samples they are."""
    sizes = [2 * norm.running_mean.numel() for norm in norms if norm.running_mean is not None]
    parts = torch.split(moments, sizes) if sizes else ()
    for norm, part, count in zip(norms, parts, samples, strict=True):
        norm.update(part, count)
