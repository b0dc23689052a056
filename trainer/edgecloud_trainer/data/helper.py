"""Processes that decode images for this one: of small images most of the time goes into Python, one thread at a time.

Each is `python -m edgecloud_trainer.data.decoder`, answers over a socket that it inherits, and ends when this process
does, however that ends. That it isn't forked keeps it free of our threads, locks and files.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Pipe
from threading import Lock
from typing import Final

from edgecloud_trainer.data.dataset import PassingError
from edgecloud_trainer.data.decode import Decoded, Encoded, decode_some
from edgecloud_trainer.data.resize import Size

UP: Final = "up"
"""The first that a process says."""
_END_SECONDS: Final = 10.0


class Helpers:
    """Some of these processes."""

    def __init__(self, count: int) -> None:
        """Start them; they are of use when they have come up."""
        self._all = [_Helper() for _ in range(count)]
        self._idle = list(self._all)
        self._lock = Lock()

    def decode(self, files: Sequence[Encoded], size: Size | None) -> list[Decoded]:
        """As `decode_some`, in one of the processes; here, if there is none that is idle and alive.

        Raises:
            DataError: trouble that may pass.
        """
        with self._lock:
            helper = next((helper for helper in self._idle if helper.is_up()), None)
            if helper is not None:
                self._idle.remove(helper)
        if helper is None or (done := helper.ask(files, size)) is None:
            return decode_some(files, size)
        with self._lock:
            self._idle.append(helper)
        return done

    def close(self) -> None:
        """End them."""
        for helper in self._all:
            helper.hang_up()
        for helper in self._all:
            helper.wait()


class _Helper:
    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        self._up = False
        try:
            # -P: the folder that the command runs in may be a data set, and its files are no modules of ours.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "edgecloud_trainer.data.decoder", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent
            )
        finally:
            theirs.close()

    def is_up(self) -> bool:
        """Whether it has come up, and would answer now."""
        try:
            if not self._up and self._connection.poll():
                self._connection.recv()
                self._up = True
        except (OSError, EOFError):
            return False
        return self._up

    def ask(self, files: Sequence[Encoded], size: Size | None) -> list[Decoded] | None:
        """What became of the files; None if the process has gone."""
        try:
            self._connection.send((files, size))
            answer = self._connection.recv()
        except (OSError, EOFError):
            return None
        if isinstance(answer, str):
            raise PassingError(answer)
        done: list[Decoded] = answer
        return done

    def hang_up(self) -> None:
        self._connection.close()

    def wait(self) -> None:
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
