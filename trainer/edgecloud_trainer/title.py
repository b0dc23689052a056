"""A process's name, as top and ps show it: which rank it is. A standby's command line doesn't say."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_PR_SET_NAME: Final = 15
_MAX: Final = 15


def set_title(name: str) -> None:
    """Best effort; Linux only, 15 characters."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name[:_MAX].encode(), 0, 0, 0)
