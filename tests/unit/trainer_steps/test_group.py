"""Ranks that meet: real processes with a real store."""

from __future__ import annotations

import contextlib
import datetime
import json
import multiprocessing
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest

from tests.ports import free_port

LIMIT_SECONDS = 2.0
# One import of torch for all ranks: each is a fork of a process that has done nothing but that.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["edgecloud_trainer.group", "edgecloud_trainer.devices"])


def take_part(environment: dict[str, str], said: Connection) -> None:
    """What a rank does; says that it is ready, and at last what it got, or the exception."""
    os.environ.update(environment)
    from edgecloud_trainer import devices, group, settings

    if "LIMIT" in environment:
        group.TIMEOUT = datetime.timedelta(seconds=float(environment["LIMIT"]))  # type: ignore[misc]
    read = settings.read()
    said.send("ready")
    code = 1
    try:
        device = devices.choose(read)
        group.join(read, replace(device, backend=environment.get("BACKEND", device.backend)))
        if "DATA" in environment:
            group.agree(read, {}, data=environment["DATA"])
        said.send(str(group.gather_objects(read.rank, read)))
        code = 0
    except Exception as error:
        said.send(repr(error))
    finally:
        group.leave()
    os._exit(code)  # as a training process ends: what torch leaves to its destructors may abort


class Rank:
    """A rank in a process of its own."""

    def __init__(self, rank: int, port: int, **more: str) -> None:
        environment = {
            "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "EDGECLOUD_TRAINER": json.dumps({"trainer": {"data": {"name": "digits"}, "precision": "fp32"}}), **more,
        }  # fmt: skip
        self._said, end = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=take_part, args=(environment, end))
        self.process.start()
        end.close()
        assert self._read() == "ready"

    def silent_for(self, seconds: float) -> bool:
        """Whether it has nothing to say in that time."""
        return not self._said.poll(seconds)

    def end(self) -> tuple[str, int | None]:
        """What it said, and its exit code."""
        said = self._read()
        self.process.join(60)
        return said, self.process.exitcode

    def _read(self) -> str:
        assert self._said.poll(60), "not a word"
        return str(self._said.recv())


@contextlib.contextmanager
def ended(*ranks: Rank) -> Iterator[None]:
    try:
        yield
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.join()


@pytest.mark.parametrize("first", [0, 1])
def test_a_rank_may_take_longer_to_come_than_an_exchange_may_take(first: int) -> None:
    port, limit = free_port(), str(LIMIT_SECONDS)
    early = Rank(first, port, LIMIT=limit)
    with ended(early):
        assert early.silent_for(LIMIT_SECONDS + 1), "it waits"
        late = Rank(1 - first, port, LIMIT=limit)
        with ended(late):
            assert [early.end(), late.end()] == [("[0, 1]", 0)] * 2


@pytest.mark.parametrize("other", ["b" * 64, "a" * 64])
def test_ranks_with_different_images_are_refused(other: str) -> None:
    """Also where nothing has to be exact: every rank would train on its own images, and the job succeed."""
    port = free_port()
    ranks = [Rank(0, port, DATA="a" * 64), Rank(1, port, DATA=other)]
    with ended(*ranks):
        ends = [one.end() for one in ranks]
    same = other[0] == "a"
    assert [code for _, code in ends] == ([0, 0] if same else [1, 1]), ends
    assert ["the workers see different images" in said for said, _ in ends] == [not same] * 2


@pytest.mark.parametrize("gpus", [0, 1])
def test_ranks_with_gpus_and_ranks_without_are_refused(gpus: int) -> None:
    """A group of NCCL's and one of gloo's would wait for each other for ten minutes, and then fail, again and again."""
    port = free_port()
    ranks = [Rank(rank, port, BACKEND="nccl" if rank == gpus else "gloo") for rank in (0, 1)]
    with ended(*ranks):
        ends = [one.end() for one in ranks]
    for said, code in ends:
        assert code == 1
        assert "MixtureError" in said and f"gloo on rank {1 - gpus}, nccl on rank {gpus}" in said
        assert "trainer.device: cpu, or ask for GPUs in every pool" in said


def test_a_port_that_is_taken_ends_rank_0_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rank = Rank(0, other.getsockname()[1])
        with ended(rank):
            said, code = rank.end()
    assert code == 1
    assert "EADDRINUSE" in said
