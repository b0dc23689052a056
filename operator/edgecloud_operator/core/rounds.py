"""Rounds: when one ends, what that costs, and who is in the next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Budget, Member, Reason, Rendezvous, TrainingJobStatus
from edgecloud.protocol import FailureReport
from edgecloud_operator.core import conditions
from edgecloud_operator.core.failures import MAX_UNPAID, Failure, first_cause, judge, refreshed
from edgecloud_operator.core.members import (
    ENDED,
    SILENT_SECONDS,
    MemberState,
    death,
    heard,
    member_states,
    silent,
)
from edgecloud_operator.core.observed import Observed, Pod

CAUSE_SECONDS: Final = 5.0
"""How long a weak failure waits for a better cause."""
GROW_SECONDS: Final = 60.0
"""Arrivals are batched: a round is not widened earlier than this after it was opened."""
SMALLER_SECONDS: Final = 15.0
"""How long an elastic job waits for the missing before it goes on without them."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the rounds come to now.

    status: with the round closed or opened, or as it was.
    stop: the members should stop at a checkpoint.
    succeeded: every member of the round ended with 0.
    failed: why the job ends in failure.
    wait: seconds until time alone may change this.
    """

    status: TrainingJobStatus
    stop: bool = False
    succeeded: bool = False
    failed: tuple[Reason, str] | None = None
    wait: float | None = None


def advance(job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime) -> Step:
    """Close the round that has ended, open the one that can begin, or leave things as they are."""
    rendezvous = status.rendezvous or Rendezvous()
    stray = _stray(job, status, observed)
    if stray:
        step = _pay(job, status, stray, observed)
        if step.failed:
            return step
        status = step.status
    if not rendezvous.members:
        return _open(job, status, observed, now)
    states = member_states(job.spec, rendezvous, observed, now)
    if all(state.doing == "succeeded" for state in states):
        return Step(status=status, succeeded=True)
    if any(launcher.report.round > rendezvous.round for launcher in observed.launchers.values()):
        # Somebody knows of a newer round than status does: status was set back. Go on above it, at nobody's cost.
        return _open(job, _closed(status, "RoundClosed", "status was set back", now), observed, now)
    ended = _failed(job, status, observed, states, now) or _stopping(job, status, observed, states, now)
    return ended or Step(status=status)


def candidates(job: TrainingJob, observed: Observed, now: datetime) -> dict[int, str]:
    """Pod uids, by index, of the workers that could take part in a round."""
    found: dict[int, str] = {}
    for pod in observed.pods:
        launcher = observed.launchers.get(pod.uid)
        if not pod.owned or pod.dead or pod.terminating or pod.index >= job.spec.worker_count():
            continue
        if launcher is not None and heard(launcher, now) and not launcher.report.draining:
            found[pod.index] = pod.uid
    return found


def resize_wanted(job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime) -> bool:
    """Whether the round has other members than the spec asks for, and could have the right ones."""
    rendezvous = status.rendezvous or Rendezvous()
    present = {member.index for member in rendezvous.members}
    wanted = set(range(job.spec.worker_count()))
    if not present or present == wanted:
        return False
    if present - wanted:
        return True
    opened = rendezvous.opened_at or now
    arrived = set(candidates(job, observed, now)) - present
    return bool(arrived) and (now - opened).total_seconds() >= GROW_SECONDS


def _failed(
    job: TrainingJob, status: TrainingJobStatus, observed: Observed, states: tuple[MemberState, ...], now: datetime
) -> Step | None:
    """A member failed: wait for the cause to show, or close the round."""
    failures = [state.failure for state in states if state.failure]
    failures += _silent_members(job, status, observed, states, now)
    cause = first_cause(failures)
    if cause is None:
        return None
    stopping = any(state.leaving or state.doing == "preempted" for state in states)
    if stopping and not cause.strong:
        return None  # the others are going because one was called away; what breaks on the way is no failure
    if not cause.strong and not all(state.doing in ENDED for state in states):
        first = min(state.since for state in states if state.failure)
        left = CAUSE_SECONDS - (now - first).total_seconds()
        if left > 0:
            return Step(status=status, wait=left)
    step = _pay(job, status, failures, observed)
    if step.failed:
        return step
    message = f"worker {cause.worker}: {cause.report.reason}"
    return _open(job, _closed(step.status, "RoundClosed", message, now), observed, now)


def _silent_members(
    job: TrainingJob, status: TrainingJobStatus, observed: Observed, states: tuple[MemberState, ...], now: datetime
) -> list[Failure]:
    """In an elastic job, members that were silent for too long while no rank steps."""
    if job.spec.min_workers is None or status.phase not in ("Running", "Recovering", "Starting"):
        return []
    reports = [observed.launchers[s.member.pod_uid].report for s in states if s.member.pod_uid in observed.launchers]
    newest = max((report.progress.reported_at for report in reports if report.progress), default=0.0)
    if now.timestamp() - newest < SILENT_SECONDS:
        return []
    return [
        Failure(
            worker=state.member.index,
            rank=None,
            node="",
            round=(status.rendezvous or Rendezvous()).round,
            report=FailureReport(
                local_rank=0,
                rank=0,
                reason="PodLost",
                message=f"its launcher was not heard for {SILENT_SECONDS:.0f} s and no rank steps",
                at=now.timestamp(),
            ),
        )
        for state in states
        if state.doing not in ENDED and silent(observed.launchers.get(state.member.pod_uid), observed, now)
    ]


def _stopping(
    job: TrainingJob, status: TrainingJobStatus, observed: Observed, states: tuple[MemberState, ...], now: datetime
) -> Step | None:
    """A member was called away, or the round should have other members: all stop, then the round is closed unpaid."""
    called = any(state.leaving for state in states)
    resize = resize_wanted(job, status, observed, now)
    alone = any(state.doing == "preempted" for state in states)
    if not (called or resize or alone):
        return None
    if not all(state.doing in ENDED for state in states):
        return Step(status=status, stop=True)
    if called or resize:
        reason: Reason = "Resizing" if resize else "RoundClosed"
        closed = _closed(_reckoned(status, observed), reason, "stopped at a checkpoint", now)
        return _open(job, closed, observed, now, patient=not resize)
    # Nobody asked for this stop: a program that leaves with 143 again and again must not do so for ever.
    budget = refreshed(status.budget or Budget(), _checkpoint_step(status))
    if budget.unpaid >= MAX_UNPAID:
        state = next(state for state in states if state.doing == "preempted")
        failure = Failure(
            worker=state.member.index,
            rank=None,
            node="",
            round=(status.rendezvous or Rendezvous()).round,
            report=FailureReport(
                local_rank=0,
                rank=0,
                exit_code=143,
                reason="ProgramError",
                message=f"the program left with exit code 143 {MAX_UNPAID + 1} times without a newer checkpoint",
                at=now.timestamp(),
            ),
        )
        step = _pay(job, status, [failure], observed)
        if step.failed:
            return step
        return _open(job, _closed(step.status, "RoundClosed", failure.report.message, now), observed, now)
    budget = budget.model_copy(update={"unpaid": budget.unpaid + 1})
    status = status.model_copy(update={"budget": budget})
    return _open(job, _closed(status, "RoundClosed", "the program stopped at a checkpoint", now), observed, now)


def _open(
    job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime, *, patient: bool = True
) -> Step:
    """Open the next round if its members are there; a patient elastic job first waits a while for the missing."""
    there = candidates(job, observed, now)
    count, least = job.spec.worker_count(), job.spec.min_workers
    if len(there) < count:
        if least is None or len(there) < least:
            return Step(status=status)
        running = conditions.get(status, "Running")
        waited = (now - running.last_transition_time).total_seconds() if running else 0.0
        if patient and waited < SMALLER_SECONDS:
            return Step(status=status, wait=SMALLER_SECONDS - waited)
    rendezvous = status.rendezvous or Rendezvous()
    number = 1 + max([rendezvous.round, *(launcher.report.round for launcher in observed.launchers.values())])
    opened = Rendezvous(
        round=number,
        members=tuple(Member(index=index, pod_uid=there[index]) for index in sorted(there)),
        opened_at=now,
    )
    return Step(status=status.model_copy(update={"rendezvous": opened}))


def _closed(status: TrainingJobStatus, reason: Reason, message: str, now: datetime) -> TrainingJobStatus:
    rendezvous = status.rendezvous or Rendezvous()
    status = status.model_copy(update={"rendezvous": Rendezvous(round=rendezvous.round)})
    return conditions.put(status, "Running", "False", reason, now=now, message=message)


def _stray(job: TrainingJob, status: TrainingJobStatus, observed: Observed) -> list[Failure]:
    """Pods that died outside a round and have not been reckoned with: nobody would ever pay for them otherwise."""
    rendezvous = status.rendezvous or Rendezvous()
    known = {member.pod_uid for member in rendezvous.members} | set((status.budget or Budget()).paid_pods)
    return [
        Failure(
            worker=pod.index,
            rank=None,
            node=pod.node,
            round=rendezvous.round,
            report=(pod.termination and pod.termination.failure)
            or death(pod.termination, rank=0, at=pod.running_since or pod.created_at),
        )
        for pod in observed.pods
        if pod.owned and pod.dead and not called_away(pod) and pod.uid not in known
    ]


def called_away(pod: Pod) -> bool:
    """Whether a dead Pod left in good order because something asked it to; such an end costs nothing."""
    return pod.terminating or (pod.termination is not None and pod.termination.exit_code == 143)


def _pay(job: TrainingJob, status: TrainingJobStatus, failures: list[Failure], observed: Observed) -> Step:
    """Reckon with failures that happened together: one price, for the first cause."""
    cause = first_cause(failures)
    assert cause is not None
    policy = job.spec.restart_policy_or_default()
    verdict = judge(cause, status.budget or Budget(), _checkpoint_step(status), policy)
    status = _reckoned(status.model_copy(update={"budget": verdict.budget}), observed)
    status = status.model_copy(
        update={"last_failure": cause.to_status(), "restarts": status.restarts + int(verdict.paid)}
    )
    if verdict.failed is None:
        return Step(status=status)
    return Step(status=status, failed=(verdict.failed, _sentence(cause, verdict.failed, policy.max_restarts)))


def _reckoned(status: TrainingJobStatus, observed: Observed) -> TrainingJobStatus:
    """With every Pod that is dead now noted as reckoned with, and those that no longer exist forgotten."""
    budget = status.budget or Budget()
    paid = set(budget.paid_pods)
    kept = tuple(pod.uid for pod in observed.pods if pod.owned and (pod.dead or pod.uid in paid))
    return status.model_copy(update={"budget": budget.model_copy(update={"paid_pods": kept})})


def _sentence(cause: Failure, reason: Reason, max_restarts: int) -> str:
    report = cause.report
    how = report.signal or (f"exit code {report.exit_code}" if report.exit_code is not None else report.reason)
    what = f"worker {cause.worker}: {report.reason} ({how})"
    if reason == "RestartBudgetExceeded":
        return f"{what}, and the {max_restarts} restarts of restartPolicy.maxRestarts are used up"
    if reason == "BadConfiguration":
        return f"{what}: a configuration error is not tried again; the last lines say what to change"
    return f"{what}: a rule of restartPolicy.exitCodeRules ends the job"


def _checkpoint_step(status: TrainingJobStatus) -> int:
    return status.checkpoint.step if status.checkpoint else 0
