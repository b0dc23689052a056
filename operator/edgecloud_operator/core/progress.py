"""How far a job is: the workers' reports put together, and the strings that the columns show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError

from edgecloud.api.columns import short_duration
from edgecloud.api.job import TrainingJob
from edgecloud.api.status import (
    TERMINAL,
    CheckpointStatus,
    EvaluationStatus,
    ProgressStatus,
    Rendezvous,
    SummaryStatus,
    TrainingJobStatus,
    WorkersStatus,
)
from edgecloud.protocol import Document, ProgressReport
from edgecloud_operator.core import conditions
from edgecloud_operator.core.exports import accepted
from edgecloud_operator.core.members import heard, silent
from edgecloud_operator.core.names import worker_selector
from edgecloud_operator.core.observed import Launcher, Observed

_Name = Literal["checkpoint", "evaluation", "performance", "exports"]


def with_progress(
    job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime, *, members_of: Rendezvous
) -> TrainingJobStatus:
    """The status with progress, checkpoint and worker counts as the members of that round report them."""
    speakers = [
        launcher
        for member in members_of.members
        if (launcher := observed.launchers.get(member.pod_uid)) is not None
        and launcher.report.round == members_of.round
        and launcher.report.progress is not None
    ]
    ready = _ready(status, observed, now, members_of)
    update: dict[str, object] = {
        "workers": WorkersStatus(desired=job.spec.worker_count(), ready=ready),
        "ready_workers": ready,
        "selector": worker_selector(job.metadata.name),
    }
    if speakers:
        update["progress"] = _progress(speakers, status.progress)
        update["checkpoint"] = _checkpoint(speakers, status.checkpoint)
        update["evaluation"] = _evaluation(speakers) or status.evaluation
        update["performance"] = _document(speakers, "performance") or status.performance
        update["exports"] = accepted(_document(speakers, "exports")) or status.exports
    return status.model_copy(update=update)


def _ready(status: TrainingJobStatus, observed: Observed, now: datetime, rendezvous: Rendezvous) -> int:
    """Workers that are there to take orders.

    An operator that has just come up has heard nobody. Until a member is silent, what stood there before is believed: a
    0/2 for each job that runs would be false, would be written, and would put off what comes next.
    """
    living = [pod for pod in observed.pods if pod.owned and not pod.dead and not pod.terminating]
    there = sum(1 for pod in living if heard(observed.launchers.get(pod.uid), now))
    members = {member.pod_uid for member in rendezvous.members}
    unheard = (
        0 if silent(None, observed, now) else len(members & {pod.uid for pod in living} - observed.launchers.keys())
    )
    return max(there, min(there + unheard, status.ready_workers))


def with_summary(status: TrainingJobStatus) -> TrainingJobStatus:
    """The status with its column strings."""
    progress = status.progress or ProgressStatus()
    workers = status.workers or WorkersStatus()
    current = _current(status)
    speed = progress.samples_per_second if current or status.phase in TERMINAL else None
    summary = SummaryStatus(
        workers=f"{workers.ready}/{workers.desired}",
        progress="" if progress.percent is None else f"{progress.percent:.0f}%",
        eta=short_duration(progress.eta_seconds) if progress.eta_seconds is not None and current else "",
        loss="" if progress.loss is None else f"{progress.loss:.4g}",
        accuracy="" if progress.accuracy is None else f"{100 * progress.accuracy:.1f}%",
        samples_per_second="" if speed is None else f"{speed:,.0f}",
        reason=_reason(status),
    )
    return status.model_copy(update={"summary": summary})


def _current(status: TrainingJobStatus) -> bool:
    """Whether the newest speed is that of the moment: the job trains, and has reported since it last began to."""
    if status.phase != "Running" or status.measuring is not None:
        return False
    running, progress = conditions.get(status, "Running"), status.progress
    if running is None or running.status != "True" or progress is None or progress.reported_at is None:
        return True
    return progress.reported_at >= running.last_transition_time.replace(microsecond=0)


def _reason(status: TrainingJobStatus) -> str:
    """The reason of the condition that a person would ask about first."""
    for kind in ("Failed", "Complete", "Blocked", "Stalled", "Suspended", "Running"):
        condition = conditions.get(status, kind)
        if condition and (condition.status == "True" or kind == "Running"):
            return condition.reason
    return ""


def _progress(speakers: list[Launcher], old: ProgressStatus | None) -> ProgressStatus:
    """The first speaker in the order of ranks gives the values; the step is the newest of all."""
    said = [launcher.report.progress for launcher in speakers if launcher.report.progress is not None]
    first = said[0]
    step = max(report.step for report in said)
    total = next((report.total_steps for report in said if report.total_steps), None)
    newest = max(launcher.progress_at for launcher in speakers)

    def value(name: str) -> float | None:
        return next((getattr(report, name) for report in said if getattr(report, name) is not None), None)

    accuracy = value("accuracy")
    return ProgressStatus(
        percent=round(min(100.0, 100.0 * step / total), 1) if total else None,
        step=step,
        total_steps=total,
        epoch=value("epoch"),
        loss=value("loss"),
        accuracy=accuracy if accuracy is not None else (old.accuracy if old else None),
        samples_per_second=value("samples_per_second"),
        eta_seconds=_eta(speakers, step, total),
        metrics=first.metrics or None,
        reported_at=datetime.fromtimestamp(int(newest), UTC),
    )


def _eta(speakers: list[Launcher], step: int, total: int | None) -> int | None:
    """Seconds to the end at the speed of this round so far."""
    for launcher in speakers:
        report, start = launcher.report.progress, launcher.first_step
        if report and start and total and report.step > start[0] and report.reported_at > start[1]:
            seconds_per_step = (report.reported_at - start[1]) / (report.step - start[0])
            return round(min((total - step) * seconds_per_step, 1e9)) if total > step else 0
    return None


def _checkpoint(speakers: list[Launcher], old: CheckpointStatus | None) -> CheckpointStatus | None:
    """The newest checkpoint that this round reports, else the one known before."""
    steps = [_step(launcher.report.progress) for launcher in speakers]
    newest = max((step for step in steps if step is not None), default=None)
    if newest is None:
        return old
    said = _document(speakers, "checkpoint") or {}
    if said.get("step") == newest:
        try:
            return CheckpointStatus.parse({key: said[key] for key in ("step", "path", "weightsSha256") if key in said})
        except ValidationError:
            pass  # a program may say what it likes; what is no description of a checkpoint is not shown
    return old if old and old.step == newest else CheckpointStatus(step=newest)


def _evaluation(speakers: list[Launcher]) -> EvaluationStatus | None:
    """The evaluation that was reported, if it is one."""
    said = _document(speakers, "evaluation")
    if said is None:
        return None
    main = {key: said[key] for key in ("accuracy", "correct", "total") if key in said}
    details = {key: value for key, value in said.items() if key not in main}
    try:
        return EvaluationStatus.parse(main | ({"details": details} if details else {}))
    except ValidationError:
        return None


def _document(speakers: list[Launcher], name: _Name) -> Document | None:
    """The first speaker's, in the order of ranks."""
    found = (getattr(launcher.report.progress, name) for launcher in speakers if launcher.report.progress)
    return next((document for document in found if document is not None), None)


def _step(report: ProgressReport | None) -> int | None:
    return report.checkpoint_step if report else None
