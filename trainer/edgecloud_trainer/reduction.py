"""How the ranks' parts of a step become one: gradients, statistics and wishes, in one exchange."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch import distributed as dist

from edgecloud_trainer import exact
from edgecloud_trainer.models import ModelError

BUCKET_BYTES: Final = 1 << 20
"""Gradients are sent off in pieces of this size, while the rest of the backward pass runs."""
GPU_BUCKET_BYTES: Final = 25 << 20
"""Between GPUs, where a piece takes longer to start than to send; DistributedDataParallel's size."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a rank wants after a step, and all do if one does. stop: leave at a checkpoint; save: write a checkpoint."""

    stop: bool = False
    save: bool = False


NONE: Final = Wishes()


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a step came to over all ranks. wishes: whatever any rank wishes; seen: as in Part."""

    loss_sum: float
    correct: int
    samples: int
    wishes: Wishes
    moments: Tensor
    seen: Sequence[int]
    finite: bool
    wait_seconds: float


@dataclass(frozen=True, kw_only=True)
class Part:
    """One rank's part beside the gradients.

    moments: of the batch norms, summed over its shards, float32 [M]; seen: for each of them, of how many samples.
    """

    loss_sum: Tensor
    correct: Tensor
    samples: int
    wishes: Wishes
    moments: Tensor
    seen: Sequence[int]


def settle(device: torch.device, ranks: int) -> None:
    """Before a time is taken: wait for what a GPU has been given to do, or the wait for others would seem to be it.

    Of the current stream only: the exchanges under way are in others. A single rank has nobody to wait for.
    """
    if device.type == "cuda" and ranks > 1:
        torch.cuda.current_stream(device).synchronize()


def bucket_bytes(device: torch.device) -> int:
    """How large the pieces are; on all ranks alike, for their devices are."""
    return GPU_BUCKET_BYTES if device.type == "cuda" else BUCKET_BYTES


class FastReduction:
    """Sums gradients as floats, in buckets that leave during the backward pass.

    A bucket leaves when it is full and all before it have left. All ranks so send theirs in one order, though each
    fills them in an order of its own: a rank may leave a layer out, or have no samples at all. The backends add up what
    comes first on each rank, whatever it is.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], world_size: int) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._world_size = world_size
        self._buckets: list[_Bucket] = []
        self._sent = 0
        """How many buckets have left in this step."""
        self._work: list[dist.Work] = []
        if world_size > 1:
            self._make_buckets()

    def _make_buckets(self) -> None:
        # Gradients become ready from the last layer to the first.
        pile: list[nn.Parameter] = []
        size, enough = 0, bucket_bytes(self._parameters[0].device) if self._parameters else 0
        for parameter in reversed(self._parameters):
            if pile and _sum_dtype(pile[0]) != _sum_dtype(parameter):
                self._buckets.append(_Bucket(pile))
                pile, size = [], 0
            pile.append(parameter)
            size += parameter.numel() * parameter.element_size()
            if size >= enough:
                self._buckets.append(_Bucket(pile))
                pile, size = [], 0
        if pile:
            self._buckets.append(_Bucket(pile))
        for bucket in self._buckets:
            for place, parameter in enumerate(bucket.parameters):
                parameter.register_post_accumulate_grad_hook(self._hook(bucket, place))  # type: ignore[no-untyped-call]

    def _hook(self, bucket: _Bucket, place: int) -> Callable[[Tensor], None]:
        def hook(_parameter: Tensor) -> None:
            bucket.put(place)
            while self._sent < len(self._buckets) and self._buckets[self._sent].full:
                self._send()

        return hook

    def _send(self) -> None:
        self._work.append(self._buckets[self._sent].send())
        self._sent += 1

    def finish(self, part: Part) -> Totals:
        """Wait until every gradient (in .grad) is the sum over all ranks, and say what the step came to.

        A parameter that got none on any rank has none: an optimiser moves it by decay and momentum otherwise.
        """
        moments, waited = part.moments.numel(), 0.0
        rest = torch.cat(
            (
                part.moments.double(),
                torch.stack((part.loss_sum.double(), part.correct.double())),
                part.moments.new_tensor(
                    [part.samples, part.wishes.stop, part.wishes.save, *_given(self._parameters), *part.seen],
                    dtype=torch.float64,
                ),
            )
        )
        if self._world_size > 1:
            settle(rest.device, self._world_size)
            began = time.perf_counter()
            while self._sent < len(self._buckets):  # one has a parameter without a gradient in this step
                self._send()
            self._sent = 0
            self._work.append(dist.all_reduce(rest, async_op=True))
            for work in self._work:
                work.wait()
            self._work.clear()
            settle(rest.device, self._world_size)  # on a GPU, wait() only had this stream wait
            waited = time.perf_counter() - began
            for bucket in self._buckets:
                bucket.take_back()
        loss_sum, correct, samples, stop, save, *more = rest[moments:].tolist()
        given, seen = more[: len(self._parameters)], more[len(self._parameters) :]
        _leave_out(self._parameters, given)
        return Totals(
            loss_sum=loss_sum,
            correct=round(correct),
            samples=round(samples),
            wishes=Wishes(stop=stop > 0, save=save > 0),
            moments=rest[:moments].float(),
            seen=[round(count) for count in seen],
            finite=_finite(loss_sum),
            wait_seconds=waited,
        )


def _sum_dtype(parameter: Tensor) -> torch.dtype:
    """What its gradients are added up in: its own type, and float32 at least."""
    return torch.promote_types(parameter.dtype, torch.float32)


class _Bucket:
    """Some parameters' gradients in a row; the parameters are added up in one type."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.zeros(sum(sizes), dtype=_sum_dtype(parameters[0]), device=parameters[0].device)
        # Strides like the parameter's (channels last, say), as its gradient has: copying is a matter of memory then.
        self.views = [
            part.as_strided(parameter.shape, torch.empty_like(parameter, device="meta").stride())
            for part, parameter in zip(torch.split(self.flat, sizes), parameters, strict=True)
        ]
        self._there: set[int] = set()
        self._sent = False

    @property
    def full(self) -> bool:
        return len(self._there) == len(self.parameters)

    def put(self, place: int) -> None:
        """Take a gradient in.

        Raises:
            ModelError: another part of a gradient that has left already.
        """
        if self._sent:
            raise ModelError(
                "trainer.model: a parameter got its gradient in several parts, and the first one is on its way to the"
                " other ranks: call torch.utils.checkpoint with use_reentrant=False, or write"
                " trainer.deterministic: true"
            )
        gradient = self.parameters[place].grad
        assert gradient is not None
        self.views[place].copy_(gradient)
        self._there.add(place)

    def send(self) -> dist.Work:
        for view, parameter in zip(self.views, self.parameters, strict=True):
            if parameter.grad is None:
                view.zero_()
        self._sent = True
        work = dist.all_reduce(self.flat, async_op=True)
        assert work is not None
        return work

    def take_back(self) -> None:
        for view, parameter in zip(self.views, self.parameters, strict=True):
            # Until the next backward pass, which begins with none. The same tensor, but for half a float.
            parameter.grad = view.to(parameter.dtype)
        self._there, self._sent = set(), False


class ExactReduction:
    """Sums the shards' gradients as integers, so that the result doesn't depend on who computed which shard."""

    def __init__(self, parameters: Sequence[nn.Parameter], world_size: int, shards: int) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._world_size = world_size
        self._shards = shards
        self._gradients: list[Tensor] = []
        self._rest: list[Tensor] = []
        self._counts: list[Tensor] = []

    def take(self, part: Part) -> None:
        """Take in one shard: its gradients, in .grad, and the rest of its part. Call once for each shard."""
        flat = [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1).float() for p in self._parameters]
        self._gradients.append(torch.cat(flat))
        self._rest.append(torch.cat((part.moments.float(), part.loss_sum.float().reshape(1))))
        counts = [int(part.correct), part.samples, 0, 0, *_given(self._parameters), *part.seen]
        self._counts.append(torch.tensor(counts, dtype=torch.int64))

    def finish(self, wishes: Wishes) -> Totals:
        """Put the sums over all shards into .grad, and say what the step came to.

        A parameter that got none of any shard has none, as in the fast mode.
        """
        largest = torch.stack((_largest(self._gradients), _largest(self._rest)))
        waited = self._exchange(largest, dist.ReduceOp.MAX)
        finite = bool(torch.isfinite(largest).all())
        exponents = [exact.scale_exponent(value, self._shards) if finite else 0 for value in largest.tolist()]
        counts = torch.stack(self._counts).sum(0)
        counts[2], counts[3] = int(wishes.stop), int(wishes.save)
        counts = counts.to(largest.device)
        widths = [self._gradients[0].numel(), self._rest[0].numel(), counts.numel()]
        if finite:
            grid = torch.cat((_summed(self._gradients, exponents[0]), _summed(self._rest, exponents[1]), counts))
        else:
            grid = torch.cat((torch.zeros(sum(widths[:2]), dtype=torch.int64, device=largest.device), counts))
        waited += self._exchange(grid, dist.ReduceOp.SUM)
        gradients, rest, counts = torch.split(grid, widths)
        self._put_back(exact.from_grid(gradients, exponents[0], torch.float32))
        summed = exact.from_grid(rest, exponents[1], torch.float32)
        correct, samples, stops, saves, *more = counts.tolist()
        given, seen = more[: len(self._parameters)], more[len(self._parameters) :]
        _leave_out(self._parameters, given)
        self._gradients, self._rest, self._counts = [], [], []
        return Totals(
            loss_sum=float(summed[-1]),
            correct=correct,
            samples=samples,
            wishes=Wishes(stop=stops > 0, save=saves > 0),
            moments=summed[:-1],
            seen=seen,
            finite=finite,
            wait_seconds=waited,
        )

    def _exchange(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> float:
        """Reduce over all ranks, in place; the seconds that it took, without the arithmetic before it."""
        if self._world_size == 1:
            return 0.0
        settle(values.device, self._world_size)
        began = time.perf_counter()
        dist.all_reduce(values, op=how)
        settle(values.device, self._world_size)
        return time.perf_counter() - began

    def _put_back(self, flat: Tensor) -> None:
        sizes = [parameter.numel() for parameter in self._parameters]
        for part, parameter in zip(torch.split(flat, sizes), self._parameters, strict=True):
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(part.view(parameter.shape))


def _given(parameters: Sequence[nn.Parameter]) -> list[int]:
    """For each of them 1, or 0 where there is no gradient."""
    return [int(parameter.grad is not None) for parameter in parameters]


def _leave_out(parameters: Sequence[nn.Parameter], given: Sequence[float]) -> None:
    """Take the gradients away that nobody has given: they are zeros that have been made up."""
    for parameter, count in zip(parameters, given, strict=True):
        if not count:
            parameter.grad = None


def _summed(rows: Sequence[Tensor], exponent: int) -> Tensor:
    """The sum of the rows, on the grid."""
    total = exact.to_grid(rows[0], exponent)
    for row in rows[1:]:
        total += exact.to_grid(row, exponent)
    return total


def _largest(rows: Sequence[Tensor]) -> Tensor:
    """The largest magnitude, as a double; infinite if anything is not finite."""
    largest = torch.stack([torch.linalg.vector_norm(row, ord=float("inf")) for row in rows]).max().double()
    return torch.where(torch.isfinite(largest), largest, torch.full_like(largest, float("inf")))


def _finite(value: float) -> bool:
    return math.isfinite(value)
