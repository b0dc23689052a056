"""What failures cost: who has paid, who need not, and when a job has failed too often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Budget, Reason, Rendezvous, TrainingJobStatus
from edgecloud.protocol import FailureReport
from edgecloud_operator.core.failures import PREEMPTED, Failure, first_cause, judge
from edgecloud_operator.core.members import called_away, death, sent_away, was_in_round
from edgecloud_operator.core.observed import Observed, Pod

MAX_WORDS: Final = 700
"""Characters in a message of an export's own words (the format, what it lost, the remedy), or of the cluster's."""
PAUSE_SECONDS: Final = 10.0
"""How long a Pod that came to nothing keeps its name: another one would most likely come to the same bad node."""
MAX_PAUSE_SECONDS: Final = 300.0
"""The pause doubles each time up to this."""


@dataclass(frozen=True, kw_only=True)
class Reckoning:
    """A status in which failures were reckoned with, and why the job ends if it does."""

    status: TrainingJobStatus
    paid: bool = False
    failed: tuple[Reason, str] | None = None


def pay(job: TrainingJob, status: TrainingJobStatus, failures: Sequence[Failure], observed: Observed) -> Reckoning:
    """Reckon with failures that happened together: one price, for the first cause."""
    cause = first_cause(failures)
    assert cause is not None
    policy = job.spec.restart_policy_or_default()
    step = status.checkpoint.step if status.checkpoint else 0
    verdict = judge(cause, status.budget or Budget(), step, policy)
    status = reckoned(status.model_copy(update={"budget": verdict.budget}), observed)
    status = status.model_copy(
        update={"last_failure": cause.to_status(), "restarts": status.restarts + int(verdict.paid)}
    )
    failed = verdict.failed and (verdict.failed, _sentence(cause, verdict.failed, policy.max_restarts))
    return Reckoning(status=status, paid=verdict.paid, failed=failed)


def reckoned(status: TrainingJobStatus, observed: Observed, *, at_no_cost: bool = False) -> TrainingJobStatus:
    """With every Pod that is dead now noted as reckoned with, and those that no longer exist forgotten.

    at_no_cost: nothing was paid, so that those whose end has a price are left to be reckoned with.
    """
    budget = status.budget or Budget()
    paid = set(budget.paid_pods)
    due = {pod.uid for pod in observed.pods if at_no_cost and sent_away(pod)}
    kept = tuple(
        pod.uid for pod in observed.pods if pod.owned and ((pod.dead and pod.uid not in due) or pod.uid in paid)
    )
    if kept == budget.paid_pods:
        return status
    return status.model_copy(update={"budget": budget.model_copy(update={"paid_pods": kept})})


def reckon_strays(
    job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime, *, missed: bool
) -> Reckoning:
    """Reckon with Pods that died outside a round: nobody would ever pay for them otherwise.

    missed: whether the job can't train without them. Else those that never ran, or were sent away before they were in
    any round, cost nothing: what one node does not take may be taken by the next, and the pause between two tries keeps
    them few. Nor does any end of theirs end a job that has trained, and goes on to, without them.
    """
    rendezvous = status.rendezvous or Rendezvous()
    known = {member.pod_uid for member in rendezvous.members} | set((status.budget or Budget()).paid_pods)
    strays = [
        pod
        for pod in observed.pods
        if pod.owned and pod.dead and pod.index < job.spec.worker_count() and not free(pod) and pod.uid not in known
    ]
    if not strays:
        return Reckoning(status=status)
    rejected = [pod for pod in strays if never_ran(pod, observed) or sent_away(pod)]
    counted = _once_more(status) if rejected else status
    due = [pod for pod in strays if missed or pod not in rejected or _was_member(pod, observed)]
    if due:
        failures = [_stray(pod, rendezvous.round, observed, now) for pod in due]
        reckoning = pay(job, counted, failures, observed)
        if missed or rendezvous.round == 0 or not reckoning.failed:
            return reckoning
        cause = reckoning.status.last_failure
    else:
        cause = _stray(rejected[0], rendezvous.round, observed, now).to_status()
    assert cause is not None
    update = {"last_failure": cause.model_copy(update={"at": now})}
    return Reckoning(status=reckoned(_once_more(status), observed).model_copy(update=update))


def _once_more(status: TrainingJobStatus) -> TrainingJobStatus:
    """Pods have come to nothing one time more."""
    budget = status.budget or Budget()
    return status.model_copy(update={"budget": budget.model_copy(update={"rejected": budget.rejected + 1})})


def _stray(pod: Pod, number: int, observed: Observed, now: datetime) -> Failure:
    sent = sent_away(pod)
    at = now if sent or never_ran(pod, observed) else pod.running_since or pod.created_at
    if sent:
        report = _leave(pod, at)
    else:
        report = (pod.termination and pod.termination.failure) or death(pod.termination, why=pod.why, rank=0, at=at)
    return Failure(
        worker=pod.index,
        rank=None,
        node=pod.node,
        round=number,
        report=report,
        aftermath=was_in_round(observed.launchers.get(pod.uid), pod, before=number + 1),
        sent_away=sent,
    )


def _leave(pod: Pod, at: datetime) -> FailureReport:
    """The end of a Pod that was sent away, in the cluster's own words where it has any."""
    why = pod.why or "a livenessProbe, a deadline in podTemplate, or a signal sent to it"
    words = f"the worker was told to leave though nobody deleted its Pod, and left with exit code {PREEMPTED} ({why})"
    return FailureReport(local_rank=0, rank=0, exit_code=PREEMPTED, reason="PodLost", message=words, at=at.timestamp())


def _was_member(pod: Pod, observed: Observed) -> bool:
    """Whether a Pod has ever been in a round, for all that is known."""
    launcher = observed.launchers.get(pod.uid)
    return max(launcher.report.round if launcher else 0, pod.termination.round if pod.termination else 0) > 0


def never_ran(pod: Pod, observed: Observed) -> bool:
    """Whether a Pod is dead and its worker's container never began: its node did not take it, or could not prepare it.

    For all that is known: the API server may have lost the status of a container that was never heard.
    """
    began = pod.termination is not None or pod.running_since is not None or pod.uid in observed.launchers
    return pod.dead and not began


def comes_to_nothing(job: TrainingJob, status: TrainingJobStatus, pod: Pod, observed: Observed) -> bool:
    """Whether another Pod would most likely come to the same end as this one, so that it keeps its name for a pause.

    It never ran; or it was sent away; or its end would have been the job's, if the job had needed it.
    """
    if never_ran(pod, observed) or (pod.dead and sent_away(pod)):
        return True
    rendezvous, budget = status.rendezvous or Rendezvous(), status.budget or Budget()
    forgiven = budget.rejected and pod.dead and not free(pod) and not _was_member(pod, observed)
    if not forgiven or pod.uid in {member.pod_uid for member in rendezvous.members}:
        return False
    failure = _stray(pod, rendezvous.round, observed, pod.created_at)
    step = status.checkpoint.step if status.checkpoint else 0
    return judge(failure, budget, step, job.spec.restart_policy_or_default()).failed is not None


def pause(job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime) -> float:
    """Seconds from now on for which Pods that came to nothing still keep their names; none left: 0.

    Counted from the newest failure. If that was at a time which cannot be, then there is no pause.
    """
    failure, rejected = status.last_failure, (status.budget or Budget()).rejected
    if failure is None or not any(pod.owned and comes_to_nothing(job, status, pod, observed) for pod in observed.pods):
        return 0.0
    length = min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(max(0, rejected - 1), 10))
    return max(0.0, length - abs((now - failure.at).total_seconds()))


def free(pod: Pod) -> bool:
    """Whether a dead Pod's end costs nothing: it was asked to leave for good, or had done its part of a round."""
    end = pod.termination
    return (called_away(pod) and not sent_away(pod)) or (
        end is not None and end.outcome == "succeeded" and end.round > 0
    )


def _sentence(cause: Failure, reason: Reason, max_restarts: int) -> str:
    report = cause.report
    how = report.signal or (f"exit code {report.exit_code}" if report.exit_code is not None else "")
    said = " ".join(report.message.split())[:MAX_WORDS]
    if report.reason in ("PodLost", "StartFailed"):
        how = said or how  # no log tells of what the cluster did, or of a program that never began
    what = f"worker {cause.worker}: {report.reason}" + (f" ({how})" if how else "")
    if reason == "RestartBudgetExceeded":
        return f"{what}, and the {max_restarts} restarts of restartPolicy.maxRestarts are used up"
    if reason == "ExportFailed":
        return f"{what}: {said}"
    if reason == "BadConfiguration":
        change = "the last lines say what to change"
        if report.reason == "StartFailed":
            image = "its image has to be of the node's architecture, with the python3 that starts a worker"
            change = "correct program.command, or the image" if cause.rank is not None else image
        return f"{what}: a configuration error is not tried again; {change}"
    return f"{what}: a rule of restartPolicy.exitCodeRules ends the job"
