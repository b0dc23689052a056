"""Gradients of ranks that don't use the same parameters, with real processes and gloo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn

from edgecloud_trainer import reduction
from tests.unit.trainer_steps.ranks import CONTEXT

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


def take_part(rank: int, store: str, said: Connection) -> None:
    """What a rank does: all steps. Says what each parameter's gradient is after each of them, and what it can't do."""
    from torch import distributed as dist

    reduction.BUCKET_BYTES = 1  # type: ignore[misc]  # a bucket for each parameter
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    parameters = [nn.Parameter(torch.zeros(3)) for _ in range(4)]
    fast = reduction.FastReduction(parameters, 2)
    found: list[list[float]] = []
    for uses in STEPS:
        backward(parameters, uses[rank], rank)
        fast.finish(part())
        found.append([float(parameter.grad[0]) for parameter in parameters if parameter.grad is not None])
    try:
        backward(parameters, (3, 3), rank)
        problem = ""
    except RuntimeError as error:
        problem = str(error)
    said.send((found, problem))
    said.close()
    os._exit(0)  # as a training process ends: what torch leaves to its destructors may abort


def test_ranks_that_use_different_parameters(tmp_path: Path) -> None:
    """Each fills its buckets in an order of its own, and they must be sent in one: what is sent first is added up."""
    ends, processes = [], []
    for rank in range(2):
        mine, theirs = CONTEXT.Pipe(duplex=False)
        processes.append(CONTEXT.Process(target=take_part, args=(rank, str(tmp_path / "store"), theirs)))
        processes[-1].start()
        theirs.close()
        ends.append(mine)
    try:
        assert all(end.poll(60) for end in ends), "not a word"
        found, problems = zip(*(end.recv() for end in ends), strict=True)
    finally:
        for process in processes:
            process.kill()
            process.join()
    expected = [
        [sum(10**rank * (place + 1) * uses[rank].count(place) for rank in range(2)) for place in range(4)]
        for uses in STEPS
    ]
    assert found == (expected, expected)
    for problem in problems:  # the first part of the gradient has left
        assert "use_reentrant=False" in problem
