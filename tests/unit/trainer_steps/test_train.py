"""A rank from its start to its end, as its launcher runs it."""

from __future__ import annotations

import os
import socket
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from edgecloud_trainer import devices, train
from edgecloud_trainer.settings import Settings
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import Rank, ended


def job(model: str) -> dict[str, Any]:
    """model: one of the functions here."""
    return {"trainer": {"data": {"name": "digits"}, "model": f"{__name__}:{model}", "precision": "fp32"}}


def folders(folder: Path) -> dict[str, str]:
    return {"EDGECLOUD_CHECKPOINT_DIR": str(folder / "saved"), "EDGECLOUD_RESULTS_DIR": str(folder / "results")}


class Alone(nn.Sequential):
    """Fails in rank 1's second step: the trial before the first one is a call as well."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + self.training
        if os.environ["RANK"] == "1" and self.calls > 1:
            raise RuntimeError("this rank alone")
        logits: torch.Tensor = super().forward(input)
        return logits


def alone(*, classes: int, channels: int, height: int, width: int) -> nn.Module:
    return Alone(nn.Flatten(), nn.Linear(channels * height * width, classes))


def rank_of_a_training(_: Settings) -> object:
    try:
        return train.main([])
    except RuntimeError as error:
        raise RuntimeError(f"joined: {dist.is_initialized()}; {error}") from error


def test_who_fails_alone_says_so_before_it_waits_for_the_others(tmp_path: Path) -> None:
    """Leaving NCCL's group it would wait for them, who are in an exchange. They notice its end at once."""
    port = free_port()
    ranks = [Rank(rank_of_a_training, rank, port, job=job("alone"), **folders(tmp_path)) for rank in (0, 1)]
    with ended(*ranks):
        ends = [one.end() for one in ranks]
    assert [code for _, code in ends] == [1, 1]
    assert "joined: True; this rank alone" in ends[1][0]
    assert "by peer" in ends[0][0]


class Tells(nn.Sequential):
    """Says what it is trained in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise ValueError(f"in {torch.get_autocast_dtype('cpu')}")
        logits: torch.Tensor = super().forward(input)
        return logits


def tells(*, classes: int, channels: int, height: int, width: int) -> nn.Module:
    return Tells(nn.Flatten(), nn.Linear(channels * height * width, classes))


def rank_on_a_gpu(_: Settings) -> object:
    """Of a kind that takes the environment's arithmetic; any CPU does each, slowly."""
    good: torch.dtype = getattr(torch, os.environ["GOOD"])
    devices._good = lambda device: good
    return train.main([]), Path(os.environ["EDGECLOUD_FAILURE_FILE"]).read_text()


def test_a_model_is_tried_in_the_arithmetic_that_the_ranks_agreed_on(tmp_path: Path) -> None:
    port = free_port()
    told = job("tells")
    told["trainer"]["precision"] = "auto"
    ranks = [
        Rank(
            rank_on_a_gpu, rank, port, job=told, GOOD=good, **folders(tmp_path),
            EDGECLOUD_FAILURE_FILE=str(tmp_path / f"why-{rank}"),
        )
        for rank, good in enumerate(("bfloat16", "float16"))
    ]  # fmt: skip
    with ended(*ranks):
        for said, code in [one.end() for one in ranks]:
            assert code == 0 and said.startswith("(2, ") and "in torch.float16" in said, said


def leaves() -> int:
    raise SystemExit(0)


def test_a_users_exit_is_no_end_of_a_training() -> None:
    """A forward that calls sys.exit(0) in some step: the job had succeeded."""
    assert train.ended(leaves) == 1
    assert train.ended(lambda: train.PREEMPTED) == 143


class Full(nn.Sequential):
    """Finds no memory at its first call, and says of each later one which it is."""

    calls = count(1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        call = next(Full.calls)
        if call == 1 or self.training:
            raise torch.OutOfMemoryError(f"call {call}")
        logits: torch.Tensor = super().forward(input)
        return logits


def full(*, classes: int, channels: int, height: int, width: int) -> nn.Module:
    return Full(nn.Flatten(), nn.Linear(channels * height * width, classes))


def standby(_: Settings) -> object:
    """One that hears of its round at once."""
    launcher, own = socket.socketpair()
    launcher.send(b'{"WORLD_SIZE": "1"}\n')
    os.dup2(own.fileno(), 0)
    return train.main(["--standby"])


def test_what_a_standby_met_is_tried_again_when_it_may_have_passed(tmp_path: Path) -> None:
    """The memory that it missed was the running rank's; each failure cost two restarts."""
    rank = Rank(standby, 0, free_port(), job=job("full"), **folders(tmp_path))
    with ended(rank):
        said, code = rank.end()
    assert (said, code) == ("OutOfMemoryError('call 3')", 1), "the trial before the first step"
