"""`sync: local`: ranks train on their own for some steps, then what they learnt is brought together.

After Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models" (2023): the mean of the
ranks' differences is the gradient of an outer optimiser, SGD with Nesterov's momentum. The differences travel in 8
bits. Every sum is one of integers, the ranks' own optimisers begin anew after each exchange, the least of their loss
scales (of fp16) is all ranks' then, and what no sum is made of becomes rank 0's (see `alike`): so all ranks hold the
same state then, rank 0's checkpoint holds all there is, and a training that goes on from it is the undisturbed one, to
the last bit, as long as the number of ranks is the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch import distributed as dist

from edgecloud.api.trainer import SyncSpec
from edgecloud_trainer import compression, exact
from edgecloud_trainer.reduction import NONE, Wishes, settle

_WORDS: Final = 6
"""Beside the rows' scales: the two wishes, how the loss is scaled, the buffers' scale, and whether all is finite."""


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """What an exchange came to. wishes: whatever any rank wishes; finite: whether all ranks' weights are; scaling: the
    least of each of its two values on any rank that scales its loss, and huge where none does."""

    wishes: Wishes
    finite: bool
    scaling: tuple[float, int]
    wait_seconds: float


class OuterSync:
    """Holds the weights that all ranks had in common last, and the outer optimiser's momentum."""

    def __init__(self, model: nn.Module, spec: SyncSpec, *, world_size: int, ordinary: Collection[str]) -> None:
        """ordinary: the names of those values, as `ordinary.names` gives them."""
        self._spec = spec
        self._world_size = world_size
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._model = model
        self._at_first = dict(model.named_buffers())
        self.use_buffers(ordinary)
        self._layout = compression.rows(list(self._named.values()))
        self._common = self._flat()
        self._momentum = torch.zeros_like(self._common)
        self._lengths = compression.row_lengths(self._layout, self._common.device)

    def use_buffers(self, ordinary: Collection[str]) -> None:
        """Bring those of the buffers together from now on. On all ranks the same: they are sent in a row."""
        self._names = [name for name in self._at_first if name in ordinary]

    def _buffers(self) -> list[Tensor]:
        """Those of now: a forward may have put others in their places. All ranks' have the same shapes, in any case."""
        now = dict(self._model.named_buffers(remove_duplicate=False))
        pairs = [(self._at_first[name], now.get(name)) for name in self._names]
        return [first if one is None or one.shape != first.shape else one for first, one in pairs]

    def due(self, number: int, total_steps: int) -> bool:
        """Whether step `number` (from 0) is followed by an exchange: every so many steps, and at the end."""
        return (number + 1) % self._spec.every_steps == 0 or number + 1 == total_steps

    def steps_since(self, number: int) -> int:
        """Steps that an exchange after step `number` (from 0) is for: the last one may be for fewer."""
        return number % self._spec.every_steps + 1

    @torch.no_grad()
    def exchange(
        self, *, share: float, seed: int, wishes: Wishes = NONE, scaling: Sequence[float] | None = None
    ) -> Exchanged:
        """Bring the ranks' weights together; on return all hold the same ones.

        Args:
            share: this rank's part of the samples, over all ranks 1.
            seed: of the rounding; another for each rank and step.
            wishes: this rank's.
            scaling: by what this rank scales its loss, and for how many steps it has; None: it doesn't.
        """
        difference = (self._flat() - self._common).mul_(share)
        held = self._buffers()
        buffers = torch.cat([b.reshape(-1).float() for b in held]) if held else torch.zeros(1)
        buffers = buffers.to(difference.device).mul(share)
        by_row = compression.largest_by_row(difference, self._layout)
        # Of a maximum of negatives comes the minimum.
        wanted = by_row.new_tensor([wishes.stop, wishes.save, *(-value for value in scaling or (math.inf, math.inf))])
        sizes = torch.stack((buffers.abs().max(), by_row.max()))
        # A maximum of NaN is not to be relied on between ranks.
        broken = torch.where(torch.isfinite(sizes).all(), 0.0, 1.0).reshape(1)
        words = torch.cat((wanted, sizes[:1], broken))
        largest = torch.nan_to_num(torch.cat((by_row, words)))
        settle(largest.device, self._world_size)
        began = time.perf_counter()
        if self._world_size > 1:
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        settle(largest.device, self._world_size)
        waited = time.perf_counter() - began
        stop, save, scale, steps, buffer_scale, wrong = largest[-_WORDS:].tolist()
        wishes, least = Wishes(stop=stop > 0, save=save > 0), (-scale, int(-steps))
        if wrong:
            return Exchanged(wishes=wishes, finite=False, scaling=least, wait_seconds=waited)
        scales = largest[:-_WORDS]
        generator = torch.Generator().manual_seed(seed)
        mine = compression.compressed(difference, scales, self._lengths, generator)
        exponent = exact.scale_exponent(buffer_scale, self._world_size)
        grid = exact.to_grid(buffers, exponent)
        settle(grid.device, self._world_size)
        began = time.perf_counter()
        total = summed(mine, self._world_size)
        if self._world_size > 1:
            dist.all_reduce(grid)
        settle(grid.device, self._world_size)
        waited += time.perf_counter() - began
        self._move(compression.restored(total, scales, self._lengths))
        if held:
            flat = exact.from_grid(grid, exponent, torch.float32)
            for buffer, piece in zip(held, torch.split(flat, [b.numel() for b in held]), strict=True):
                buffer.copy_(piece.view(buffer.shape))
        return Exchanged(wishes=wishes, finite=True, scaling=least, wait_seconds=waited)

    def _move(self, difference: Tensor) -> None:
        """One step of the outer optimiser, from the last common weights."""
        spec = self._spec
        self._momentum.mul_(spec.outer_momentum).add_(difference)
        self._common += spec.outer_learning_rate * (difference + spec.outer_momentum * self._momentum)
        pieces = torch.split(self._common, [p.numel() for p in self._named.values()])
        for parameter, piece in zip(self._named.values(), pieces, strict=True):
            parameter.copy_(piece.view(parameter.shape))

    @torch.no_grad()
    def _flat(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1).float() for p in self._named.values()])

    def state(self) -> dict[str, Tensor]:
        """The momentum, by the name of the parameter; what else there is are the weights themselves."""
        pieces = torch.split(self._momentum, [p.numel() for p in self._named.values()])
        return {name: m.view(p.shape) for (name, p), m in zip(self._named.items(), pieces, strict=True)}

    def take_up(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint: after the model has its weights."""
        self._common = self._flat()
        self._momentum = torch.cat([state[name].reshape(-1).to(self._common.device) for name in self._named])


def sum_type(ranks: int) -> torch.dtype:
    """What holds the sum of so many ranks' compressed values."""
    return torch.int16 if ranks * compression.LEVELS <= torch.iinfo(torch.int16).max else torch.int32


def summed(values: Tensor, world_size: int) -> Tensor:
    """int8 [N] -> `sum_type` [N], the sum over all ranks. Over a rank's link go 3 bytes for each value, from 259 ranks
    on 5.

    Each rank gets all ranks' parts of its own stretch, adds them up, and tells the sums to all.
    """
    kind = sum_type(world_size)
    if world_size == 1:
        return values.to(kind)
    length = -(-values.numel() // world_size)
    sent = torch.zeros(world_size * length, dtype=torch.int8, device=values.device)
    sent[: values.numel()] = values
    parts = torch.empty_like(sent)
    dist.all_to_all_single(parts, sent)
    total = parts.view(world_size, length).sum(0, dtype=kind)
    # As bytes: not every backend knows 16-bit integers.
    everything = torch.empty(world_size * length, dtype=kind, device=values.device)
    dist.all_gather_into_tensor(everything.view(torch.uint8), total.view(torch.uint8))
    return everything[: values.numel()]
