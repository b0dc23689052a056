"""Gradients of ranks that don't use the same parameters, with real processes and gloo."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import torch
from torch import nn

from edgecloud_trainer import reduction
from edgecloud_trainer.models import ModelError
from edgecloud_trainer.settings import Settings
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import Rank, ended

Uses = tuple[int, ...]
"""The parameters of a rank's step, from the first one used to the last; none without samples."""
STEPS: tuple[tuple[Uses, Uses], ...] = (
    ((0, 1, 2, 3), (0, 1, 2, 3)),
    ((0, 1, 2, 3), (0, 2)),
    ((0, 1, 2, 3), ()),
    ((0, 1, 2, 3), (3, 2, 1, 0)),
    ((1,), (2, 0)),
    ((1, 1, 2), (0, 0)),
    ((0, 1, 2, 3), (0, 1, 2, 3)),
)
"""For each step, what either rank uses. Used twice: as of a layer in two blocks, each checkpointed (reentrantly)."""


TYPES = (torch.float32, torch.float64, torch.float32, torch.bfloat16)


def backward(parameters: Sequence[nn.Parameter], uses: Uses, rank: int) -> None:
    """A gradient of 10 ** rank * (place + 1) for each of them, the last one used first."""
    for parameter in parameters:
        parameter.grad = None
    for place in reversed(uses):
        (10**rank * (place + 1) * parameters[place].sum()).backward()  # type: ignore[no-untyped-call]


def part() -> reduction.Part:
    zero = torch.zeros(())
    return reduction.Part(
        loss_sum=zero, correct=zero.long(), samples=0, wishes=reduction.NONE, moments=torch.zeros(0), seen=()
    )


def steps(settings: Settings) -> str:
    """What each parameter's gradient is after each of the steps, and what can't be done."""
    from edgecloud_trainer import devices, group

    group.join(settings, devices.choose(settings))
    found: list[list[float | None]] = []

    def of(parameters: Sequence[nn.Parameter], finish: Callable[[], object]) -> None:
        for uses in STEPS:
            backward(parameters, uses[settings.rank], settings.rank)
            finish()
            found.append([None if parameter.grad is None else float(parameter.grad[0]) for parameter in parameters])

    def parameters_of_types() -> list[nn.Parameter]:
        return [nn.Parameter(torch.zeros(3, dtype=dtype)) for dtype in TYPES]

    parameters = parameters_of_types()
    exact = reduction.ExactReduction(parameters, 2, shards=2)

    def finish_exactly() -> None:
        exact.take(part())
        exact.finish(reduction.NONE)

    of(parameters, finish_exactly)
    for size in (reduction.BUCKET_BYTES, 1):  # as few buckets as there can be, and one for each parameter
        reduction.BUCKET_BYTES = size  # type: ignore[misc]
        parameters = parameters_of_types()
        fast = reduction.FastReduction(parameters, 2)
        of(parameters, lambda fast=fast: fast.finish(part()))  # type: ignore[misc]
    problem = ""
    try:
        backward(parameters, (3, 3), settings.rank)
    except ModelError as error:
        problem = str(error)
    return json.dumps([found, problem])


def test_pieces_are_larger_between_gpus() -> None:
    assert [reduction.bucket_bytes(torch.device(kind)) >> 20 for kind in ("cpu", "cuda")] == [1, 25]


def test_ranks_that_use_different_parameters() -> None:
    """Each fills its buckets in an order of its own, and they must be sent in one: what is sent first is added up. Of
    several types, and exactly too."""
    port = free_port()
    ranks = [Rank(steps, rank, port) for rank in (0, 1)]
    with ended(*ranks):
        ends = [rank.end() for rank in ranks]
    assert [code for _, code in ends] == [0, 0], ends
    # None for one that nobody uses: with zeros, an optimiser would move it by decay and momentum.
    expected = [
        [sum(10**rank * (place + 1) * uses[rank].count(place) for rank in range(2)) or None for place in range(4)]
        for uses in STEPS
    ] * 3
    for said, _ in ends:
        found, problem = json.loads(said)
        assert found == expected
        # The first part of the gradient has left; no other try would do better.
        assert problem.startswith("trainer.model: a parameter got its gradient in several parts")
        assert "use_reentrant=False" in problem
