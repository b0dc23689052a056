"""Ranks for tests: real processes with a real store."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from edgecloud_trainer.settings import Settings

# One import of torch for all ranks: each is a fork of a process that has done nothing but that.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["edgecloud_trainer.training"])
WAIT_SECONDS = 60

Part = Callable[[Settings], object]
"""What a rank does; a function of a module."""


def _take_part(part: Part, environment: dict[str, str], said: Connection) -> None:
    """Says that it is ready, and at last what it got, or the exception."""
    os.environ.update(environment)
    from edgecloud_trainer import group, settings

    read = settings.read()
    said.send("ready")
    code = 1
    try:
        said.send(str(part(read)))
        group.leave()
        code = 0
    except Exception as error:
        said.send(repr(error))
    os._exit(code)  # as a training process ends: what torch leaves to its destructors may abort


class Rank:
    """A rank of two, in a process of its own."""

    def __init__(
        self, part: Part, rank: int, port: int, *, job: Mapping[str, Any] | None = None, **environment: str
    ) -> None:
        """job: what EDGECLOUD_TRAINER says."""
        environment = {
            "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "EDGECLOUD_TRAINER": json.dumps(job or {"trainer": {"data": {"name": "digits"}, "precision": "fp32"}}),
            **environment,
        }  # fmt: skip
        self._said, end = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=_take_part, args=(part, environment, end))
        self.process.start()
        end.close()
        assert self._read() == "ready"

    def silent_for(self, seconds: float) -> bool:
        """Whether it has nothing to say in that time."""
        return not self._said.poll(seconds)

    def end(self) -> tuple[str, int | None]:
        """What it said, and its exit code."""
        said = self._read()
        self.process.join(WAIT_SECONDS)
        return said, self.process.exitcode

    def _read(self) -> str:
        assert self._said.poll(WAIT_SECONDS), "not a word"
        return str(self._said.recv())


@contextlib.contextmanager
def ended(*ranks: Rank) -> Iterator[None]:
    try:
        yield
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.join()
