"""What the change from one status to the next counts for: rounds by cause, failures, restarts, ends, and how long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, get_args

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, LastFailure, Phase, Rendezvous, TrainingJobStatus
from edgecloud.protocol import FailureReason
from edgecloud_operator.core import conditions, names
from edgecloud_operator.core.health import REMEDIES

OTHER: Final = "other"
"""What is on no closed list: a status can be written by an older release, or by hand."""
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
FAILURE_REASONS: Final[tuple[str, ...]] = (*get_args(FailureReason), OTHER)
RoundCause = Literal["first", "resumed", "resized", "preempted", "status-set-back"]
ROUND_CAUSES: Final[tuple[str, ...]] = (*get_args(RoundCause), *FAILURE_REASONS)
"""Why a round was opened. A failure that closed the one before gives its own reason."""
BLOCKED_REASONS: Final[tuple[str, ...]] = (*REMEDIES, OTHER)
"""Why a job is blocked."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a change counts for. Everything is None, or 0, where nothing of the kind happened; times are in seconds.

    round, failure and finished are on the closed lists above. restarts: those that were paid for. accepted_after: from
    the job's creation to its acceptance. started_after: from acceptance, or resumption, to running. lag: from the
    report of the newest step to its being written.
    """

    round: str | None = None
    failure: str | None = None
    restarts: int = 0
    finished: Phase | None = None
    accepted_after: float | None = None
    started_after: float | None = None
    lag: float | None = None


def measured(
    old: TrainingJobStatus | None, new: TrainingJobStatus, *, created_at: datetime | None, now: datetime
) -> Measures:
    """What the change counts for. old: as it stood at the server until now."""
    old = old or TrainingJobStatus()
    return Measures(
        round=round_cause(old, new),
        failure=reason_of(new.last_failure) if new.last_failure and new.last_failure != old.last_failure else None,
        restarts=max(0, new.restarts - old.restarts),
        finished=new.phase if new.phase in TERMINAL and old.phase not in TERMINAL else None,
        accepted_after=_between(created_at, new.start_time) if old.start_time is None else None,
        started_after=_started_after(old, new),
        lag=_lag(old, new, now),
    )


def round_cause(old: TrainingJobStatus, new: TrainingJobStatus) -> str | None:
    """Why the change opened a round; None if it opened none."""
    before, after = old.rendezvous or Rendezvous(), new.rendezvous or Rendezvous()
    if after.round == before.round or not after.members:
        return None
    if before.round == 0:
        return "first" if after.round == 1 else "status-set-back"
    if before.members:
        return _closed_now(old, new, before, after)
    running = conditions.get(old, "Running")
    if running is not None and running.reason == "WaitingForWorkers":
        return "resumed"
    if running is not None and running.reason == "Resizing":
        return "resized"
    failure = old.last_failure
    if failure and failure.round == before.round and running and running.message.endswith(failure.reason):
        return reason_of(failure)
    return "status-set-back" if after.round > before.round + 1 else "preempted"


def _closed_now(old: TrainingJobStatus, new: TrainingJobStatus, before: Rendezvous, after: Rendezvous) -> str:
    """The same for a change that closed a round and opened the next: what closed it stands nowhere any more."""
    if new.last_failure and new.last_failure != old.last_failure and new.last_failure.round == before.round:
        return reason_of(new.last_failure)
    if after.round > before.round + 1:
        return "status-set-back"
    suspended = conditions.get(old, "Suspended")
    if suspended is not None and suspended.reason == "Stopping":
        return "resumed"
    same = [member.index for member in before.members] == [member.index for member in after.members]
    return "preempted" if same else "resized"


def reason_of(failure: LastFailure) -> str:
    """Its reason, if it is one of the list."""
    return failure.reason if failure.reason in FAILURE_REASONS else OTHER


def _started_after(old: TrainingJobStatus, new: TrainingJobStatus) -> float | None:
    if new.phase != "Running" or new.running_time is None or new.running_time == old.running_time:
        return None
    return _between(new.start_time, new.running_time)


def _lag(old: TrainingJobStatus, new: TrainingJobStatus, now: datetime) -> float | None:
    reported = new.progress.reported_at if new.progress else None
    if reported is None or reported == (old.progress.reported_at if old.progress else None):
        return None
    return _between(reported, now)


def _between(first: datetime | None, second: datetime | None) -> float | None:
    """Seconds from the one to the other; 0 where two clocks disagree on which came first."""
    return max(0.0, (second - first).total_seconds()) if first is not None and second is not None else None


@dataclass(frozen=True, kw_only=True)
class Census:
    """All jobs at one moment.

    jobs: how many are in each phase; every phase is there. blocked: how many are, for each reason; every reason is
    there. stalled: how many are. desired, ready: the workers of those that are neither finished nor suspended, and not
    only measured any more.
    """

    jobs: dict[Phase, int]
    blocked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BLOCKED_REASONS, 0))
    stalled: int = 0
    desired: int = 0
    ready: int = 0


def census(jobs: Iterable[TrainingJob]) -> Census:
    """Count the jobs that are ours."""
    phases: dict[Phase, int] = dict.fromkeys(PHASES, 0)
    blocked: dict[str, int] = dict.fromkeys(BLOCKED_REASONS, 0)
    stalled = desired = ready = 0
    for job in jobs:
        if job.spec.managed_by not in (None, names.CONTROLLER):
            continue
        status = job.status or TrainingJobStatus()
        phases[status.phase] += 1
        condition = conditions.get(status, "Blocked")
        if condition is not None and condition.status == "True":
            blocked[condition.reason if condition.reason in blocked else OTHER] += 1
        stalled += conditions.is_true(status, "Stalled")
        if status.phase not in (*TERMINAL, "Suspended") and status.measuring is None:
            desired += job.spec.worker_count()
            ready += status.ready_workers
    return Census(jobs=phases, blocked=blocked, stalled=stalled, desired=desired, ready=ready)
