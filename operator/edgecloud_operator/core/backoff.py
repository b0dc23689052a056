"""How long the next round waits where round after round fails without a newer checkpoint. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from edgecloud.api.base import utc
from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Budget, Condition, LastFailure, Rendezvous, TrainingJobStatus
from edgecloud_operator.core import conditions

LAST_SECONDS: Final = 60.0
"""The longest pause."""
NEWS_SECONDS: Final = 4.0
"""A pause from which on it is told as an event as well: who watches would take the job for stuck."""
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
    message = f"{_SAYS}{utc(until)}, after {budget.spent + budget.unpaid}{_WHY}{_closed_by(running)}"
    generation = job.metadata.generation
    return conditions.put(status, "Running", "False", running.reason, now=now, message=message, generation=generation)


def over(job: TrainingJob, status: TrainingJobStatus, now: datetime) -> TrainingJobStatus:
    """The status of a job that waits so no longer, but maybe for workers: it says again what closed the round."""
    running, generation = conditions.get(status, "Running"), job.metadata.generation
    if running is None or not running.message.startswith(_SAYS):
        return status
    closed = _closed_by(running)
    return conditions.put(status, "Running", "False", running.reason, now=now, message=closed, generation=generation)


def news(old: TrainingJobStatus, new: TrainingJobStatus) -> str:
    """What a person is told of a pause that has just begun; nothing of a short one.

    Without the time of day, so that the same pause of the same job is one event, which is counted.
    """
    before, running, budget = conditions.get(old, "Running"), conditions.get(new, "Running"), new.budget or Budget()
    length = pause_after(budget)
    if running is None or not running.message.startswith(_SAYS) or length < NEWS_SECONDS:
        return ""
    if before is not None and before.message == running.message:
        return ""
    failures = budget.spent + budget.unpaid
    return f"the next round is opened in {length:.0f} s, after {failures} failures without a newer checkpoint"


def dated(failure: LastFailure, opened_at: datetime | None, now: datetime) -> LastFailure:
    """A failure of the round at a time that can be: its worker's clock may be wrong."""
    return failure.model_copy(update={"at": min(max(failure.at, opened_at or failure.at), now)})


def _closed_by(running: Condition) -> str:
    """What the condition says of the round before, with or without a pause."""
    return running.message.partition(_WHY)[2] if running.message.startswith(_SAYS) else running.message


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
