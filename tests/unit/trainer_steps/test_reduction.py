"""Gradients of ranks that don't use the same parameters, with real processes and gloo."""

from __future__ import annotations

import json
from collections.abc import Sequence

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

    reduction.BUCKET_BYTES = 1  # type: ignore[misc]  # a bucket for each parameter
    group.join(settings, devices.choose(settings))
    parameters = [nn.Parameter(torch.zeros(3)) for _ in range(4)]
    fast = reduction.FastReduction(parameters, 2)
    found: list[list[float]] = []
    for uses in STEPS:
        backward(parameters, uses[settings.rank], settings.rank)
        fast.finish(part())
        found.append([float(parameter.grad[0]) for parameter in parameters if parameter.grad is not None])
    problem = ""
    try:
        backward(parameters, (3, 3), settings.rank)
    except ModelError as error:
        problem = str(error)
    return json.dumps([found, problem])


def test_pieces_are_larger_between_gpus() -> None:
    assert [reduction.bucket_bytes(torch.device(kind)) >> 20 for kind in ("cpu", "cuda")] == [1, 25]


def test_ranks_that_use_different_parameters() -> None:
    """Each fills its buckets in an order of its own, and they must be sent in one: what is sent first is added up."""
    port = free_port()
    ranks = [Rank(steps, rank, port) for rank in (0, 1)]
    with ended(*ranks):
        ends = [rank.end() for rank in ranks]
    assert [code for _, code in ends] == [0, 0], ends
    expected = [
        [sum(10**rank * (place + 1) * uses[rank].count(place) for rank in range(2)) for place in range(4)]
        for uses in STEPS
    ]
    for said, _ in ends:
        found, problem = json.loads(said)
        assert found == expected
        # The first part of the gradient has left; no other try would do better.
        assert problem.startswith("trainer.model: a parameter got its gradient in several parts")
        assert "use_reentrant=False" in problem
