"""The end of a rank that stands in an exchange on a GPU, and hears of nothing.

There it doesn't notice that another rank's process has gone, as gloo does, and Python's handler of SIGTERM waits for
the exchange to return: it would stand there until the launcher's SIGKILL, and the next round wait for that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from edgecloud import worker
from edgecloud_trainer.devices import Device

LOOK_SECONDS: Final = 0.2
STANDS_SECONDS: Final = 1.0
"""Without a step, when it is to end. One that still steps ends by itself, at a checkpoint."""
FAILED: Final = 1
"""Not 143: it didn't leave with the others."""


class Course(Protocol):
    done: int
    """Steps done."""

    def give_up(self) -> None:
        """Let what must not get lost be finished."""


def deaf(device: Device, ranks: int) -> bool:
    """Whether a rank there is one of those."""
    return device.device.type == "cuda" and ranks > 1


@contextmanager
def watched(course: Course) -> Iterator[None]:
    """End this process, past everything, if it is told to end and makes no step any more."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            done = course.done
            if worker.told_to_end() and not over.wait(STANDS_SECONDS) and course.done == done:
                course.give_up()
                os._exit(FAILED)

    threading.Thread(target=watch, name="ending", daemon=True).start()
    try:
        yield
    finally:
        over.set()
