"""Waiting for a round, and leaving an heir behind that waits for the next.

The launcher says a process's round on its standard input: a line of JSON, the environment. If that is a socket, two
descriptors come with it: an heir's standard input and output. The heir is a fork from before anything of the round, so
it is as ready as its parent was, costs milliseconds, and shares its memory. It has to be a child of the launcher's, for
whoever is waited for and watched over is; the kernel makes it one when the process between the two ends.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

LINE_BYTES: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
_INPUT, _OUTPUT, _ERRORS = 0, 1, 2


def wait(*, heirs: bool, fit: Callable[[], bool] = lambda: True) -> dict[str, str] | None:
    """The environment of this process's round; None: there will be none.

    Args:
        heirs: whether this process may be forked.
        fit: asked in a fork, whether it is good for anything.

    Raises:
        ValueError: what was said is no environment.
    """
    launcher = os.getppid()
    while True:
        line, ends = _receive()
        try:
            heir = heirs and len(ends) == 2 and bool(line) and _leave_heir(ends, launcher, fit)
        finally:
            for end in ends:
                os.close(end)
        if heir:
            continue
        if not line:
            return None
        said = json.loads(line)
        if not isinstance(said, dict):
            raise ValueError(f"the environment of a round is an object, not {line[:80]!r}")
        return {str(name): str(value) for name, value in said.items()}


def _receive() -> tuple[bytes, Sequence[int]]:
    """The next line, and the descriptors that came with it; empty when the launcher has gone."""
    if not stat.S_ISSOCK(os.fstat(_INPUT).st_mode):
        return sys.stdin.buffer.readline(), ()
    ends = array.array("i")
    line = b""
    with socket.socket(fileno=os.dup(_INPUT)) as end:
        while not line.endswith(b"\n") and len(line) < LINE_BYTES:
            data, ancillary, _, _ = end.recvmsg(1 << 16, socket.CMSG_SPACE(2 * ends.itemsize))
            for level, kind, value in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    ends.frombytes(value[: len(value) - len(value) % ends.itemsize])
            if not data:
                return b"", ends
            line += data
    return line, ends


def _leave_heir(ends: Sequence[int], launcher: int, fit: Callable[[], bool]) -> bool:
    """Fork; true in the heir. Where there can be none the launcher starts another process the long way."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            return False
    except OSError:
        return False
    between = os.getpid()
    try:
        os.setsid()  # at once: what kills this rank's processes must not find its heir among them
        if not fit() or os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    _settle(ends, launcher, between)
    return True


def _settle(ends: Sequence[int], launcher: int, between: int) -> None:
    """Become a child of the launcher that is bound to it as its other children are, or end."""
    try:
        while os.getppid() == between:
            time.sleep(0.0002)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != launcher:
            os._exit(0)
        os.setsid()
        os.dup2(ends[0], _INPUT)
        os.dup2(ends[1], _OUTPUT)
        os.dup2(ends[1], _ERRORS)
        os.write(_INPUT, json.dumps({"pid": os.getpid()}).encode())
    except (OSError, AttributeError):
        os._exit(1)
