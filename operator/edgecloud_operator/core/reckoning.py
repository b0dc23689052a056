"""What failures cost: who has paid, who need not, and when a job has failed too often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Budget, Reason, Rendezvous, TrainingJobStatus
from edgecloud_operator.core.failures import Failure, first_cause, judge
from edgecloud_operator.core.members import called_away, death, was_in_round
from edgecloud_operator.core.observed import Observed, Pod

MAX_WORDS: Final = 700
"""Characters in a message of an export's own words (the format, what it lost, the remedy), or of the cluster's."""


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


def reckoned(status: TrainingJobStatus, observed: Observed) -> TrainingJobStatus:
    """With every Pod that is dead now noted as reckoned with, and those that no longer exist forgotten."""
    budget = status.budget or Budget()
    paid = set(budget.paid_pods)
    kept = tuple(pod.uid for pod in observed.pods if pod.owned and (pod.dead or pod.uid in paid))
    if kept == budget.paid_pods:
        return status
    return status.model_copy(update={"budget": budget.model_copy(update={"paid_pods": kept})})


def stray(job: TrainingJob, status: TrainingJobStatus, observed: Observed) -> list[Failure]:
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
            or death(pod.termination, why=pod.why, rank=0, at=pod.running_since or pod.created_at),
            aftermath=was_in_round(observed.launchers.get(pod.uid), pod, before=rendezvous.round + 1),
        )
        for pod in observed.pods
        if pod.owned and pod.dead and pod.index < job.spec.worker_count() and not free(pod) and pod.uid not in known
    ]


def free(pod: Pod) -> bool:
    """Whether a dead Pod's end costs nothing: it was asked to leave, or had done its part of a round."""
    end = pod.termination
    return called_away(pod) or (end is not None and end.outcome == "succeeded" and end.round > 0)


def _sentence(cause: Failure, reason: Reason, max_restarts: int) -> str:
    report = cause.report
    how = report.signal or (f"exit code {report.exit_code}" if report.exit_code is not None else report.reason)
    said = " ".join(report.message.split())[:MAX_WORDS]
    if report.reason == "PodLost" or (report.reason == "StartFailed" and cause.rank is None):
        how = said or how  # no log tells of what the cluster did, or could not do
    what = f"worker {cause.worker}: {report.reason} ({how})"
    if reason == "RestartBudgetExceeded":
        return f"{what}, and the {max_restarts} restarts of restartPolicy.maxRestarts are used up"
    if reason == "ExportFailed":
        return f"{what}: {said}"
    if reason == "BadConfiguration":
        unstarted = report.reason == "StartFailed" and cause.rank is None
        image = "its image has to be of the node's architecture, with the python3 that starts a worker"
        change = image if unstarted else "the last lines say what to change"
        return f"{what}: a configuration error is not tried again; {change}"
    return f"{what}: a rule of restartPolicy.exitCodeRules ends the job"
