"""What takes long to make and is only looked at: made once, however many processes run tests."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A file or folder that `make` has made at the path it was given; all processes of a run share it.

    Whoever comes first makes it, and the others wait. If that fails, the next one tries.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / name).exists():
            partial = factory.mktemp(name) / name
            make(partial)
            partial.rename(shared / name)
    return shared / name
