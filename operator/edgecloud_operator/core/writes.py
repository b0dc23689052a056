"""When a status is written: what matters at once, mere progress seldom. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from edgecloud.api.status import TrainingJobStatus

CHECKPOINT_SECONDS: Final = 1.0
"""A job that writes checkpoints faster than this has not each of them written into its status."""

_PROGRESS: Final = {
    "progress": None,
    "summary": None,
    "workers": None,
    "ready_workers": 0,
    # A program may say these at every step. The last ones are not lost: they are written with the phase at the end.
    "evaluation": None,
    "performance": None,
}


def write_delay(
    old: TrainingJobStatus | None,
    new: TrainingJobStatus,
    *,
    last_write: datetime | None,
    now: datetime,
    progress_seconds: float,
) -> float:
    """Seconds until the new status should be written; 0 for now.

    A change of phase, round, conditions or failures is written at once, a new checkpoint nearly so, and
    progress at most once in progress_seconds.
    """
    if old is None or last_write is None:
        return 0.0
    before, after = (status.model_copy(update=_PROGRESS) for status in (old, new))
    if before == after:
        limit = progress_seconds
    elif before.model_copy(update={"checkpoint": after.checkpoint}) == after:
        limit = min(CHECKPOINT_SECONDS, progress_seconds)
    else:
        return 0.0
    return min(limit, max(0.0, limit - (now - last_write).total_seconds()))  # a clock that was set back delays nothing
