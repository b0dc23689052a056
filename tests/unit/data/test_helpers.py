"""Processes that help with decoding: the same images, whoever dies."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgecloud_trainer.data import DataError, parallel
from edgecloud_trainer.data.dataset import PassingError
from edgecloud_trainer.data.decode import Decoded, Encoded
from edgecloud_trainer.data.helper import Helpers
from edgecloud_trainer.data.parallel import decode_all
from tests.unit.trainer.pictures import encoded, pixels, write

WITHIN = 60.0


def files(count: int) -> list[Encoded]:
    """Some small images; every tenth is broken."""
    return [
        Encoded(str(number), f"set/{number}", partial(bytes, b"" if number % 10 == 9 else encoded(pixels(number))))
        for number in range(count)
    ]


PIXELS = [pixels(number) for number in range(50)]


def check(done: list[Decoded], count: int) -> None:
    assert [one.name for one in done] == [str(number) for number in range(count)]
    for number, one in enumerate(done):
        if number % 10 == 9:
            assert isinstance(one.pixels, DataError) and str(one.pixels).startswith(f"set/{number} isn't an image")
        else:
            assert np.array_equal(one.pixels, PIXELS[number])  # type: ignore[arg-type]


def decoders() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "edgecloud_trainer.data.decoder" in child.cmdline()]


def given_back() -> list[int]:
    """By each of them. Bytes, and nearly all of them pixels."""
    return [process.io_counters().write_chars for process in decoders()]


def until_up(helpers: Helpers) -> None:
    deadline = time.monotonic() + WITHIN
    while not all(helper.is_up() for helper in helpers._all):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_they_give_what_is_decoded_here() -> None:
    with closing(Helpers(2)) as helpers:
        check(helpers.decode(files(20), None), 20)  # they aren't there yet
        until_up(helpers)
        check(helpers.decode(files(20), None), 20)
        assert len(decoders()) == 2
    assert not decoders()


def test_one_that_was_killed_is_done_without() -> None:
    with closing(Helpers(2)) as helpers:
        until_up(helpers)
        for process in decoders():
            process.kill()
        for _ in range(3):
            check(helpers.decode(files(20), None), 20)


def trouble() -> bytes:
    raise PassingError("the storage doesn't answer")


def test_trouble_that_may_pass_is_raised() -> None:
    with closing(Helpers(1)) as helpers:
        until_up(helpers)
        with pytest.raises(DataError, match="the storage doesn't answer") as caught:
            helpers.decode([*files(3), Encoded("a", "a", trouble)], None)
        assert caught.value.passing
        check(helpers.decode(files(3), None), 3)


def test_they_are_called_for_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only then. The images come in their order, in whatever process they were decoded."""
    few = list(decode_all(files(50), threads=2, helpers=True))
    assert not decoders()
    check([one for several in few for one in several], 50)
    monkeypatch.setattr(parallel, "_ALONE_SECONDS", 0.0)
    some = files(50)
    done: list[Decoded] = []
    deadline, helped = time.monotonic() + WITHIN, False
    for number, several in enumerate(decode_all(itertools.cycle(some), threads=2, helpers=True)):
        done += several
        if number % 20 == 0 and (helped := len(given := given_back()) == 2 and min(given) > 100_000):
            break
        assert time.monotonic() < deadline
    assert helped
    for round_ in range(len(done) // 50):
        check(done[50 * round_ : 50 * (round_ + 1)], 50)
    deadline = time.monotonic() + WITHIN
    while decoders():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_none_outlives_a_command_that_is_killed(tmp_path: Path) -> None:
    one = encoded(pixels(0, size=(300, 300)), "JPEG", quality=95)
    write(tmp_path / "set", {f"{name}/{number:04}.jpg": one for name in ("cat", "dog") for number in range(1000)})
    code = (
        "import edgecloud_trainer.data.parallel as p; p._ALONE_SECONDS = 0; p.usable_cpus = lambda: 2.0\n"
        "from edgecloud.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "data", "prepare", tmp_path / "set", "--out", tmp_path / "a.images"]
    with subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL) as process:
        children: list[psutil.Process] = []
        deadline = time.monotonic() + WITHIN
        while len(children) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            children = psutil.Process(process.pid).children()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    gone, alive = psutil.wait_procs(children, timeout=WITHIN)
    assert len(gone) == 2 and not alive


def test_they_take_no_code_from_the_folder_that_the_command_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the folder of a data set that somebody else has made."""
    write(tmp_path, {"numpy.py": b"open('was-run', 'w')\n", "edgecloud_trainer/__init__.py": b"open('was-run', 'w')\n"})
    monkeypatch.chdir(tmp_path)
    with closing(Helpers(1)) as helpers:
        until_up(helpers)
    assert not (tmp_path / "was-run").exists()
