"""Ranks that meet: real processes with a real store."""

from __future__ import annotations

import datetime
import os
import socket
from dataclasses import replace

import pytest

from edgecloud_trainer.settings import Settings
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import Rank, ended

LIMIT_SECONDS = 2.0


def meet(settings: Settings) -> object:
    """Join, and hear of the others."""
    from edgecloud_trainer import devices, group

    if "LIMIT" in os.environ:
        group.TIMEOUT = datetime.timedelta(seconds=float(os.environ["LIMIT"]))  # type: ignore[misc]
    device = devices.choose(settings)
    group.join(settings, replace(device, backend=os.environ.get("BACKEND", device.backend)))
    if "DATA" in os.environ:
        group.agree(settings, {}, data=os.environ["DATA"])
    return group.gather_objects(settings.rank, settings)


@pytest.mark.parametrize("first", [0, 1])
def test_a_rank_may_take_longer_to_come_than_an_exchange_may_take(first: int) -> None:
    port, limit = free_port(), str(LIMIT_SECONDS)
    early = Rank(meet, first, port, LIMIT=limit)
    with ended(early):
        assert early.silent_for(LIMIT_SECONDS + 1), "it waits"
        late = Rank(meet, 1 - first, port, LIMIT=limit)
        with ended(late):
            assert [early.end(), late.end()] == [("[0, 1]", 0)] * 2


@pytest.mark.parametrize("other", ["b" * 64, "a" * 64])
def test_ranks_with_different_images_are_refused(other: str) -> None:
    """Also where nothing has to be exact: every rank would train on its own images, and the job succeed."""
    port = free_port()
    ranks = [Rank(meet, 0, port, DATA="a" * 64), Rank(meet, 1, port, DATA=other)]
    with ended(*ranks):
        ends = [one.end() for one in ranks]
    same = other[0] == "a"
    assert [code for _, code in ends] == ([0, 0] if same else [1, 1]), ends
    assert ["the workers see different images" in said for said, _ in ends] == [not same] * 2


@pytest.mark.parametrize("gpus", [0, 1])
def test_ranks_with_gpus_and_ranks_without_are_refused(gpus: int) -> None:
    """A group of NCCL's and one of gloo's would wait for each other for ten minutes, and then fail, again and again."""
    port = free_port()
    ranks = [Rank(meet, rank, port, BACKEND="nccl" if rank == gpus else "gloo") for rank in (0, 1)]
    with ended(*ranks):
        ends = [one.end() for one in ranks]
    for said, code in ends:
        assert code == 1
        assert "MixtureError" in said and f"gloo on rank {1 - gpus}, nccl on rank {gpus}" in said
        assert "trainer.device: cpu, or ask for GPUs in every pool" in said


def arithmetic(settings: Settings) -> object:
    """What a rank computes in, that would take the one of the environment by itself: any CPU does each, slowly."""
    import torch

    from edgecloud_trainer import devices, group

    found = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[os.environ["GOOD"]]
    return group.join(settings, replace(devices.choose(settings), autocast=found)).autocast


@pytest.mark.parametrize(
    ("good", "sync", "computes"),
    [
        (("bf16", "fp16"), "every", ["torch.float16"] * 2),
        (("fp16", "bf16"), "local", ["torch.float16", "torch.bfloat16"]),
        (("fp32", "bf16"), "every", ["None", "torch.bfloat16"]),
    ],
)
def test_ranks_that_add_up_their_gradients_scale_them_alike(
    good: tuple[str, str], sync: str, computes: list[str]
) -> None:
    """Of an A100 and a V100 one took bf16 and one fp16, whose gradients are 65536 times as large."""
    port = free_port()
    job = {"trainer": {"data": {"name": "digits"}, "precision": "auto", "sync": {"mode": sync}}}
    ranks = [Rank(arithmetic, rank, port, job=job, GOOD=good[rank]) for rank in (0, 1)]
    with ended(*ranks):
        assert [one.end() for one in ranks] == [(said, 0) for said in computes]


def test_a_port_that_is_taken_ends_rank_0_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rank = Rank(meet, 0, other.getsockname()[1])
        with ended(rank):
            said, code = rank.end()
    assert code == 1
    assert "EADDRINUSE" in said
