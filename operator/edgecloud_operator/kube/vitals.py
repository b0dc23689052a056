"""Whether the operator is stuck in a way that only a restart mends. Pure."""

from __future__ import annotations

from typing import Final

from edgecloud_operator.controller.workqueue import Backlog
from edgecloud_operator.kube.informer import Looked

STUCK_SECONDS: Final = 300.0
"""A request ends within 20 s, with or without an answer, and so does every part of the work on a job."""
LOOK_SECONDS: Final = 600.0
"""The cluster is listed anew every 240 s, or an attempt is made to."""


def ailment(backlog: Backlog, looked: Looked) -> str | None:
    """What is wrong, in a sentence; None if the operator is alive.

    An API server that is away or hangs is nothing that a restart would mend. Jobs may wait for long then, and each
    takes long; but requests go on being made and given up, and that counts.
    """
    if backlog.stuck > STUCK_SECONDS:
        return f"a job has been worked on for {backlog.stuck:.0f} s without a write's having ended"
    if backlog.idle > STUCK_SECONDS:
        return f"{backlog.depth} jobs wait, the first for {backlog.oldest:.0f} s, and nothing moves"
    if looked.tried_ago > LOOK_SECONDS:
        return f"for {looked.tried_ago:.0f} s the cluster was not heard of, and no attempt was made to list it"
    return None
