"""When a status is written: what matters at once, mere progress seldom; and how strictly a child is taken. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud_operator.core.conditions import of_generation

CHECKPOINT_SECONDS: Final = 1.0
"""A job that writes checkpoints faster than this has not each of them written into its status."""

WORDS_SECONDS: Final = 60.0
"""What blocks a job is shown at once; other words for the same, such as a scheduler's new counts, only now and then."""

WriteClass = Literal["round", "beginning", "shown"]

_PROGRESS: Final = {
    "progress": None,
    "summary": None,
    "workers": None,
    "ready_workers": 0,
    # A program may say these at every step. The last ones are not lost: they are written with the phase at the end.
    "evaluation": None,
    "performance": None,
    "exports": None,
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
    progress at most once in progress_seconds. Only what a condition says in other words waits longer.
    """
    if old is None or last_write is None:
        return 0.0
    before, after = (_wordless(status.model_copy(update=_PROGRESS)) for status in (old, new))
    if before == after:
        words_alone = old != new and old.model_copy(update={"conditions": new.conditions}) == new
        limit = max(progress_seconds, WORDS_SECONDS) if words_alone else progress_seconds
    elif before.model_copy(update={"checkpoint": after.checkpoint}) == after:
        limit = min(CHECKPOINT_SECONDS, progress_seconds)
    else:
        return 0.0
    return min(limit, max(0.0, limit - (now - last_write).total_seconds()))  # a clock that was set back delays nothing


def write_class(old: TrainingJobStatus | None, new: TrainingJobStatus) -> WriteClass:
    """Who waits for a write: a training, a job that has not begun, or a person who looks at it."""
    if old is None or old.start_time is None:
        return "beginning"
    shown = {"checkpoint": None} | _PROGRESS
    before, after = (_without_shown(of_generation(status, 0).model_copy(update=shown)) for status in (old, new))
    return "shown" if before == after else "round"


def has_begun(status: TrainingJobStatus | None) -> bool:
    """Whether there was a round: what is refused of a new job has been put up with by then."""
    return status is not None and status.rendezvous is not None and status.rendezvous.round > 0


def field_validation(job: TrainingJob) -> Literal["Strict", "Warn"]:
    """What the API server does about a child's field that it does not know.

    Strict: the child is refused, and the field named, and not dropped without a word: a misspelt nodeSelector would be
    none. A job that has begun trains on without it (Warn), as it has until then: an earlier release did not ask.
    """
    return "Warn" if has_begun(job.status) else "Strict"


def _without_shown(status: TrainingJobStatus) -> TrainingJobStatus:
    """The same without the conditions that nothing is decided on."""
    kept = tuple(condition for condition in status.conditions if condition.type not in ("Blocked", "Stalled"))
    return status.model_copy(update={"conditions": kept})


def _wordless(status: TrainingJobStatus) -> TrainingJobStatus:
    """The same without the words of the Blocked condition, where these are the cluster's.

    Of a name that is taken they are ours, and name what is to be deleted next.
    """
    conditions = tuple(
        condition.model_copy(update={"message": ""})
        if condition.type == "Blocked" and condition.reason != "NameTaken"
        else condition
        for condition in status.conditions
    )
    return status.model_copy(update={"conditions": conditions})
