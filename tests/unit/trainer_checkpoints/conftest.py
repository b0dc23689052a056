"""Processes to kill, and small disks."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., tuple[ForkServerProcess, Connection]]
MakeDisk = Callable[[str], Path]


@pytest.fixture(scope="session")
def server() -> Any:
    """Processes from a server that has imported torch: a new one takes milliseconds, not seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.trainer_checkpoints.writers"])
    return context


@pytest.fixture
def start(server: Any) -> Iterator[Start]:
    """Starts a function of `writers` in a process; gives that, and the end of the pipe on which it says things."""
    started: list[ForkServerProcess] = []

    def begin(target: Callable[..., None], *arguments: object) -> tuple[ForkServerProcess, Connection]:
        ours, theirs = server.Pipe(duplex=False)
        process = server.Process(target=target, args=(theirs, *arguments))
        process.start()
        theirs.close()
        started.append(process)
        return process, ours

    yield begin
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Makes file systems of a given size, in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted: list[Path] = []

    def make(size: str) -> Path:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], check=False, capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        with suppress(OSError):
            subprocess.run(["umount", "--lazy", path], check=False)
