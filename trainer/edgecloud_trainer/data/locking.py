"""One process at a time, by a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

_POLL_SECONDS: Final = 0.1
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Of file systems that have none (some of NFS and FUSE)."""


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold a lock file, which the holder may delete together with what it protects.

    Args:
        path: made if it isn't there.
        waiting: called time and again while another process holds it; may raise to give up.

    Yields:
        Whether it is held. It isn't where the file system has no locks: others may be at it as well then.

    Raises:
        OSError: the file can't be made.
    """
    while True:
        with path.open("a") as file:
            if (held := take(file)) is False:
                waiting()
                time.sleep(_POLL_SECONDS)
            elif leads_to(path, file.fileno()):
                yield bool(held)
                return


def take(file: IO[Any]) -> bool | None:
    """Lock an open file, if nobody else has; None if its file system has no locks, so that nobody can say."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def leads_to(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open file: to hold a lock on one that was deleted protects nothing."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
