"""A rank that looks for rank 0: real sockets, and a clock of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecloud_trainer import reaching, train
from edgecloud_trainer.reaching import GIVE_UP_SECONDS, UnreachableError, reach
from edgecloud_trainer.settings import Settings
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import Rank, ended

DAY = 86400.0
HERE = "127.0.0.1"
TRY_SECONDS = 0.02


class Clock:
    """Goes on by half a minute whenever somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += 30.0


@pytest.fixture
def silent() -> Iterator[tuple[socket.socket, int]]:
    """A port whose packets are dropped, as by a NetworkPolicy: its queue is full."""
    with socket.socket() as server, contextlib.ExitStack() as waiting:
        server.bind((HERE, 0))
        server.listen(0)
        port = server.getsockname()[1]
        with contextlib.suppress(TimeoutError):
            while True:
                waiting.enter_context(socket.create_connection((HERE, port), timeout=TRY_SECONDS))
        yield server, port


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_rank_that_gets_no_answer_says_so_and_gives_up(
    silent: tuple[socket.socket, int], caplog: pytest.LogCaptureFixture
) -> None:
    """It was silent for a day, and the job Running."""
    clock, (_, port) = Clock(), silent
    began = clock()
    with pytest.raises(UnreachableError, match=rf"^rank 3 can't reach rank 0 at 127.0.0.1:{port} \(timed out\), and"):
        reach(HERE, port, rank=3, limit=DAY, each=TRY_SECONDS, clock=clock, sleep=clock.sleep)
    assert clock() - began == GIVE_UP_SECONDS
    assert len(warnings(caplog)) == 4, "one a minute"
    assert "can't reach rank 0 at" in warnings(caplog)[0] and "is there a NetworkPolicy" in warnings(caplog)[0]


def test_an_answer_after_some_minutes_is_one(
    silent: tuple[socket.socket, int], caplog: pytest.LogCaptureFixture
) -> None:
    clock, (server, port) = Clock(), silent

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock() == 1120.0:
            server.settimeout(TRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                while True:
                    server.accept()[0].close()

    reach(HERE, port, rank=1, limit=DAY, each=TRY_SECONDS, clock=clock, sleep=sleep)
    assert clock() == 1120.0
    assert len(warnings(caplog)) == 1


def test_a_rank_0_that_is_yet_to_listen_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """It may be decoding its images."""
    clock, port = Clock(), free_port()
    with contextlib.ExitStack() as server:

        def sleep(seconds: float) -> None:
            clock.sleep(seconds)
            if clock() == 2500.0:
                server.enter_context(socket.create_server((HERE, port)))

        reach(HERE, port, rank=1, limit=DAY, clock=clock, sleep=sleep)
    assert clock() == 2500.0
    assert warnings(caplog) == []


def test_a_rank_0_that_never_listens_is_given_up_after_the_limit() -> None:
    clock = Clock()
    with pytest.raises(UnreachableError, match=r"\(Connection refused\), and has tried for 20 minutes"):
        reach(HERE, free_port(), rank=1, limit=1200.0, clock=clock, sleep=clock.sleep)


def impatient(_: Settings) -> object:
    reaching.GIVE_UP_SECONDS = 0.0  # type: ignore[misc]
    reach.__kwdefaults__["each"] = TRY_SECONDS
    return train.main([]), Path(os.environ["EDGECLOUD_FAILURE_FILE"]).read_text()


def test_a_rank_that_gets_no_answer_may_have_one_in_another_round(
    silent: tuple[socket.socket, int], tmp_path: Path
) -> None:
    rank = Rank(
        impatient,
        1,
        silent[1],
        EDGECLOUD_FAILURE_FILE=str(tmp_path / "why"),
        EDGECLOUD_CHECKPOINT_DIR=str(tmp_path / "saved"),
        EDGECLOUD_RESULTS_DIR=str(tmp_path / "results"),
    )
    with ended(rank):
        said, code = rank.end()
    assert code == 0 and said.startswith("(75, ") and "Transient" in said and "reach rank 0 at" in said
