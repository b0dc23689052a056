"""Reaching rank 0 before the store does: torch's would try for as long as a meeting may take, and say nothing."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

TRY_SECONDS: Final = 10.0
"""For one connection; what answers at all does so after a few lost packets."""
SAY_SECONDS: Final = 60.0
GIVE_UP_SECONDS: Final = 300.0
"""Without any answer. Another round meets elsewhere, or ends as this one, with its reason in the job's status."""
_PAUSES: Final = (0.02, 1.0)
"""Between two tries, in seconds: at first, and at most."""


class UnreachableError(RuntimeError):
    """Rank 0 can't be reached from here; in another round it may (exit code 75)."""


def reach(
    address: str,
    port: int,
    *,
    rank: int,
    limit: float,
    each: float = TRY_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Wait until rank 0 listens; if its machine doesn't answer at all, say so, and at last give up.

    A port that is refused, or a name that isn't known, is of a rank 0 that is yet to come.

    Args:
        address: of rank 0.
        rank: who waits.
        limit: how long to wait for it to listen, in seconds.
        each: for one try, in seconds.

    Raises:
        UnreachableError: nothing has answered for GIVE_UP_SECONDS, or nobody listened for `limit`.
    """
    began = clock()
    silent_since: float | None = None
    said = began
    pause, longest = _PAUSES
    while True:
        tried = clock()
        try:
            socket.create_connection((address, port), timeout=each).close()
            return
        except (ConnectionError, socket.gaierror) as error:
            silent_since, problem = None, error.strerror
        except OSError as error:  # it takes too long, there is no way there, or it is not allowed
            if silent_since is None:
                silent_since = said = tried
            problem = error.strerror or str(error)
        now = clock()
        silent = 0.0 if silent_since is None else now - silent_since
        where = f"rank {rank} can't reach rank 0 at {address}:{port} ({problem})"
        if silent >= GIVE_UP_SECONDS or now - began >= limit:
            raise UnreachableError(
                f"{where}, and has tried for {(silent or now - began) / 60:.0f} minutes: let the workers reach each"
                " other on all ports, which a NetworkPolicy, a firewall or a mesh between them may prevent"
            )
        if silent_since is not None and now - said >= SAY_SECONDS:
            said = now
            log.warning("%s: is there a NetworkPolicy, a firewall or a mesh between the workers?", where)
        sleep(pause)
        pause = min(longest, 1.5 * pause)
