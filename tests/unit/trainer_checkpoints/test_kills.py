"""kill -9 at any moment: the newest checkpoint that was reported is there, whole, or a later one."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.unit.trainer_checkpoints import writers
from tests.unit.trainer_checkpoints.conftest import Start
from tests.unit.trainer_checkpoints.material import SHARED_MEMORY, is_genuine, names, save, store

KILLS = 36


def said(connection: Connection, until: float) -> list[tuple[str, int]]:
    """What has been said by this time, or by the end if that comes before."""
    messages = []
    try:
        while connection.poll(max(0.0, until - time.monotonic())):
            messages.append(connection.recv())
    except EOFError:
        pass
    return messages


def test_killed_while_it_saves_in_a_loop(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    best = (0, 0)
    one_save = 0.05
    moments = set()
    for round in range(1, KILLS + 1):
        chance = random.Random(round)
        first = max(1, best[1] - chance.randrange(3))  # steps that are there already are written anew
        process, connection = start(writers.save_forever, folder, round, first, 2, bool(round % 2))
        begun = time.monotonic()
        messages = [connection.recv() for _ in range(2 * chance.randrange(1, 4))]
        one_save = max(0.005, (time.monotonic() - begun) / len(messages))
        messages += said(connection, time.monotonic() + 2 * one_save * chance.random())
        process.kill()
        process.join()
        messages += said(connection, time.monotonic() + 60)
        if saved := [step for what, step in messages if what == "saved"]:
            best = (round, saved[-1])
        begins = [step for what, step in messages if what == "begins"][-1]
        moments |= {name for name in names(folder) if name.startswith(".")}

        loaded = store(folder, round + 1, keep=2).choose()
        assert loaded is not None
        assert best <= (loaded.round, loaded.step) <= (round, begins)
        assert is_genuine(loaded)
        assert loaded.path.name == f"step-{loaded.step}"
        assert not loaded.rejected
        best = (loaded.round, loaded.step)
    assert moments, "no kill met a checkpoint that was being written: the moments are ill chosen"
    last = store(folder, KILLS + 1, keep=2)
    last.prune()
    assert len(names(folder)) == 2 and all(name.startswith("step-") for name in names(folder))


@pytest.mark.parametrize("twice", [False, True])
def test_dying_before_each_single_operation(start: Start, twice: bool) -> None:
    """A save that replaces a checkpoint of a lower round, a prune, and what puts things in order after them."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as room:
        base, work = Path(room, "base"), Path(room, "work")
        for step in (1, 2):
            save(store(base), step)
        process, connection = start(writers.crash_everywhere, base, work, twice)
        outcomes = said(connection, time.monotonic() + 60)
        process.join()
        shutil.rmtree(base)
    assert process.exitcode == 0
    assert len(outcomes) > 30
    assert {(round, step, genuine) for _, _, round, step, genuine in outcomes} == {(1, 2, True), (2, 2, True)}
    rounds = [round for _, _, round, _, _ in outcomes]
    assert rounds == sorted(rounds), "once the new one can be chosen it stays so"
