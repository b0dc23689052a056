"""What the operator makes no Pods of by itself: no API server would refuse it, and somebody has to be told."""

from __future__ import annotations

from edgecloud.api.accelerators import unused
from edgecloud.api.job import TrainingJob
from edgecloud.api.spec import TrainingJobSpec
from edgecloud.api.status import TrainingJobStatus
from edgecloud.api.template import TOO_LARGE, TOO_LARGE_REMEDY
from edgecloud.problems import path_text
from edgecloud_operator.core.writes import has_begun


def unmakeable(job: TrainingJob, status: TrainingJobStatus) -> str | None:
    """Why no Pod is made of a job, if none is. One that has begun, under an earlier release, trains on as it is."""
    if has_begun(status):
        return None
    if job.spec.has_too_large_template():
        return TOO_LARGE
    return next((_words(path, message) for path, message, _ in unused(job.spec)), None)


def remedy_of(spec: TrainingJobSpec, words: str) -> str | None:
    """The remedy for what unmakeable said; None if it did not say that."""
    if words == TOO_LARGE:
        return TOO_LARGE_REMEDY
    found = (remedy for path, message, remedy in unused(spec) if _words(path, message) == words)
    return next((f"delete the job, {remedy}, and apply it again" for remedy in found), None)


def _words(path: tuple[str | int, ...], message: str) -> str:
    return f"{path_text(('spec', *path))}: {message}"
