"""What the processes do that get killed: run in children of a server process that has torch imported already."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgecloud_trainer.checkpoints import AsyncSaver, CheckpointError, SupersededError
from tests.unit.trainer_checkpoints.material import WEIGHTS, is_genuine, save, state_of, store, tensors_of


def save_forever(said: Connection, folder: Path, round: int, first: int, keep: int, in_thread: bool) -> None:
    """Save step after step and say ("begins", step) and ("saved", step), or ("superseded", step) at the end."""
    to = store(folder, round, keep)
    step = first
    try:
        if in_thread:
            with AsyncSaver(to, on_saved=lambda saved: said.send(("saved", saved.step))) as saver:
                for step in itertools.count(first):
                    said.send(("begins", step))
                    saver.submit(step, tensors_of(step, round), state_of(step, round), weights=WEIGHTS)
                    saver.wait()
        for step in itertools.count(first):
            said.send(("begins", step))
            save(to, step)
            said.send(("saved", step))
            to.prune()
    except SupersededError:
        said.send(("superseded", step))


def crash_everywhere(said: Connection, base: Path, work: Path, twice: bool) -> None:
    """For each operation on files that a save with prune makes: do it up to there, die, see what can be chosen.

    With `twice` the process that comes after, and puts things back in order, dies as well, at one of its operations.
    Sends (operation, second operation or 0, round, step, genuine) for each; round 0 if nothing could be chosen.
    """

    def replace() -> None:
        to = store(work, 2, keep=1)
        save(to, 2)
        to.prune()

    def put_in_order() -> None:
        to = store(work, 3, keep=1)
        to.choose()
        to.prune()

    chance = random.Random(2)
    for first in itertools.count(1):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        died = _died(replace, first)
        second = chance.randrange(1, 25) if twice else 0
        if second:
            _died(put_in_order, second)
        loaded = store(work, 4).choose()
        found = (loaded.round, loaded.step, is_genuine(loaded)) if loaded else (0, 0, False)
        said.send((first, second, *found))
        if not died:
            return


def _died(what: Callable[[], None], at: int) -> bool:
    """Do something in a child that ends at once before its operation number `at` on files; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        count = itertools.count(1)

        def watch(event: str, _: tuple[Any, ...]) -> None:
            if (event.startswith("os.") or event == "open") and next(count) == at:
                os._exit(9)

        sys.addaudithook(watch)
        try:
            what()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), code
    return code == 9


def choose_as_nobody(said: Connection, folder: Path) -> None:
    """Choose as another user; says the step and what was rejected, or the kind of the error and its text."""
    _become_nobody()
    try:
        loaded = store(folder, 2).choose()
        said.send((loaded.step, loaded.rejected) if loaded else None)
    except CheckpointError as error:
        said.send((error.kind, str(error)))


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def save_as_nobody(said: Connection, folder: Path) -> None:
    """Try to save as a user who may not write there; says the kind of the error and its text."""
    _become_nobody()
    try:
        save(store(folder), 2)
        said.send(("saved", ""))
    except CheckpointError as error:
        said.send((error.kind, str(error)))
