"""Parts of a Kubernetes object, whatever stands in their place. Pure, and never raises."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Final

MAX_MESSAGE: Final = 1500
"""Characters of a message that are read."""
EPOCH: Final = datetime.fromtimestamp(0, UTC)
_END: Final = datetime(2200, 1, 1, tzinfo=UTC)


def moment(value: Any) -> datetime | None:
    """A time of Kubernetes'. One that no cluster can have seen is none."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo and EPOCH <= found < _END else None
    except (ValueError, OverflowError):
        return None


def mapping(value: Any) -> dict[str, Any]:
    """An empty one for what is none."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """An empty one for what is none."""
    return value if isinstance(value, list) else []


def text(value: Any, limit: int | float = math.inf) -> str:
    """A text that a status can hold: no halves of surrogate pairs, and not too long."""
    if not isinstance(value, str):
        return ""
    return value[: int(min(limit, len(value)))].encode("utf-8", "replace").decode()
