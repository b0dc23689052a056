"""One process at a time, by a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_POLL_SECONDS: Final = 0.1


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, which the holder may delete together with what it protects.

    Args:
        path: made if it isn't there.
        waiting: called time and again while another process holds it; may raise to give up.

    Raises:
        OSError: the file can't be made.
    """
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                time.sleep(_POLL_SECONDS)
                continue
            if leads_to(path, file.fileno()):
                yield
                return


def leads_to(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open file: to hold a lock on one that was deleted protects nothing."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
