"""How long the next round waits where round after round fails without a newer checkpoint. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from edgecloud.api.base import utc
from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Budget, LastFailure, Rendezvous, TrainingJobStatus
from edgecloud_operator.core import conditions

LAST_SECONDS: Final = 60.0
"""The longest pause."""
_SAYS, _WHY = "the next round is opened at ", " failures without a newer checkpoint: "


def pause_after(budget: Budget) -> float:
    """Seconds after the newest failure, by how many there were since the checkpointed step advanced.

    0, 0.5, 1, 2, 4 ... 60: what broke once is tried again at once; what broke again may be a name server, or a file
    system, that is away.
    """
    failures = budget.spent + budget.unpaid
    return 0.0 if failures < 2 else min(LAST_SECONDS, 2.0 ** min(failures - 3, 10))


def pause(job: TrainingJob, status: TrainingJobStatus, now: datetime) -> float:
    """Seconds from now on for which no round is opened; 0: none.

    Never more than the whole pause: a failure at a time that is still to come, by a clock that was set, counts for
    none. Nor does one of the life before the job was resumed, and whoever edits the spec waits for nothing.
    """
    length, until = pause_after(status.budget or Budget()), _until(status)
    if until is None or status.observed_generation != job.metadata.generation:
        return 0.0
    left = (until - now).total_seconds()
    return left if 0 < left <= length else 0.0


def told(job: TrainingJob, status: TrainingJobStatus, now: datetime) -> TrainingJobStatus:
    """The status of a job that waits so, which says until when, and why."""
    running, until, budget = conditions.get(status, "Running"), _until(status), status.budget or Budget()
    if running is None or until is None:
        return status
    closed = running.message.partition(_WHY)[2] if running.message.startswith(_SAYS) else running.message
    message = f"{_SAYS}{utc(until)}, after {budget.spent + budget.unpaid}{_WHY}{closed}"
    generation = job.metadata.generation
    return conditions.put(status, "Running", "False", running.reason, now=now, message=message, generation=generation)


def dated(failure: LastFailure, opened_at: datetime | None, now: datetime) -> LastFailure:
    """A failure of the round at a time that can be: its worker's clock may be wrong."""
    return failure.model_copy(update={"at": min(max(failure.at, opened_at or failure.at), now)})


def _until(status: TrainingJobStatus) -> datetime | None:
    """When the pause is over: counted from the newest failure, or from when a round was opened that all left unasked.

    In whole seconds, as they are written, so that it may be up to a second shorter.
    """
    failed_at = status.last_failure.at if status.last_failure else None
    opened_at = (status.rendezvous or Rendezvous()).opened_at
    moments = [moment.replace(microsecond=0) for moment in (failed_at, opened_at) if moment is not None]
    begun = status.start_time
    if not moments or begun is None or max(moments) < begun.replace(microsecond=0):
        return None
    return max(moments) + timedelta(seconds=pause_after(status.budget or Budget()))
