"""How a job is doing: its phase, its deadlines, what blocks or stalls it, and when time alone would change that."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from edgecloud.api.spec import TrainingJobSpec
from edgecloud.api.status import Phase, Reason, Rendezvous, TrainingJobStatus
from edgecloud.strangers import one_line
from edgecloud_operator.core import conditions
from edgecloud_operator.core.context import Context
from edgecloud_operator.core.measurer import unreachable
from edgecloud_operator.core.members import SILENT_SECONDS, MemberState, member_states
from edgecloud_operator.core.observed import Pod, Service
from edgecloud_operator.core.rounds import steps_until
from edgecloud_operator.core.stuck import stuck, undeleted, waits_for_pods
from edgecloud_operator.core.unmakeable import remedy_of

STALLED_SECONDS: Final = 600.0
"""No new step for this long, in a job that reports steps."""
LEFTOVER_SECONDS: Final = 20.0
"""How long the garbage collector and the kubelets may take to clear away what an earlier job of this name has left."""
MAX_WORDS: Final = 700
"""Characters of the cluster's own words in a message: with the remedy they fit into an event."""
_BACK_OFF: Final = re.compile(r"ImagePullBackOff\b")
UNASKED_WEBHOOK: Final = "failed calling webhook"
"""In the words of an API server that could not ask an admission webhook, and so takes nothing (failurePolicy: Fail)."""
UNKNOWN_FIELD: Final = "strict decoding error"
"""In those of one that does not know a field."""
UNSAID: Final = "must specify"
"""In those of a quota that counts what a container says nothing of."""
_UNSCOPED: Final = re.compile(r"insufficient quota to match these scopes: .*\bPriorityClass\b")
"""In those of a server that takes some PriorityClasses only where a quota is for them, and finds none."""

REMEDIES: Final[dict[Reason, str]] = {
    "NameTaken": "or give this job another name",
    "Unschedulable": "free GPUs or other resources that it asks for, lower spec.workers or set spec.minWorkers",
    "ErrImagePull": "push the image, or let the nodes pull it (imagePullSecrets, in spec.podTemplate.spec or at"
    " the ServiceAccount); another image is taken up by suspending the job, and resuming it once its Pods are gone",
    "CreateContainerConfigError": "create the Secret or ConfigMap that it names, or correct spec.podTemplate and delete"
    " the Pod",
    "QuotaExceeded": "raise the quota or free what it counts, lower spec.workers or set spec.minWorkers",
    "AdmissionDenied": "change spec to what the rule allows, or have the rule changed by whoever runs the cluster",
    "VolumeNotBound": "look at the claim (kubectl describe pvc): spec.storage.claimName has to name one that can be"
    " bound and mounted",
    "VolumeNotDetached": "a lost node lets go of it some minutes after its Pod is gone, or at once when that node, once"
    " it is off, gets the taint node.kubernetes.io/out-of-service; kubectl describe pod tells what it waits for",
    "CoordinatorUnreachable": "look at its log (kubectl logs), at its node (kubectl get nodes), and at what stands"
    " between it and the operator (NetworkPolicy, DNS)",
    "WorkerSilent": "delete the node if it is lost (kubectl delete node), or, once it is off, the Pod (kubectl delete"
    " pod --force): another one is made then",
    "WaitingForWorkers": "its image is being pulled, or a volume cannot be mounted, or the network fails: kubectl"
    " describe pod tells which",
    "ModelUnreachable": "delete the job, and apply it with a ReadWriteMany claim in storage.claimName, or with a URL,"
    " such as s3://..., in export.destination",
}
"""What to do about each reason to be blocked."""
WEBHOOK_REMEDY: Final = (
    "bring the webhook's service up again, or have its failurePolicy or its configuration changed by whoever runs the"
    " cluster (kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations)"
)
"""The same where it was no rule that refused, but a webhook that does not answer."""
UNKNOWN_FIELD_REMEDY: Final = (
    "correct that field, or leave it out if it is newer than the cluster: it is one of spec.podTemplate, tolerations or"
    " spec.program.env, which stays as it was created (delete the job then, and apply it corrected)"
)
"""The same where what is refused is a field that Kubernetes does not know, such as a misspelt one."""
GATED: Final = "SchedulingGated"
"""How the words begin of a Pod that no scheduler may look at yet."""
GATED_REMEDY: Final = (
    "it waits for whoever set the gate, such as a queue (kubectl describe pod): look there whether the job is admitted"
)
"""The same where there may be room, but a Pod is not to have it yet."""
_OR_DEFAULTS: Final = ", or give the namespace a LimitRange that has defaults for it"
UNSAID_REMEDY: Final = (
    f"write what it names into spec.resources (of a container of spec.podTemplate: there){_OR_DEFAULTS}"
)
"""The same where a quota is not used up, but asks for requests or limits that are not written."""
UNSAID_OF_POOLS: Final = f"delete the job, and apply it with what it names in each pool's resources{_OR_DEFAULTS}"
"""The same of a job whose pools, which stay, have resources of their own."""
UNSAID_MEASURING: Final = f"delete the job, and apply it with what it names in export.measureOn.resources{_OR_DEFAULTS}"
"""The same while the converted models are measured."""
UNSCOPED_REMEDY: Final = (
    "ask whoever runs the cluster for a ResourceQuota of that PriorityClass in the namespace, or write another"
    " spec.priorityClassName"
)
"""The same where there is no quota for the job's PriorityClass."""
WITHOUT_FEWER: Final[dict[Reason, str]] = {
    "Unschedulable": "free GPUs or other resources that it asks for",
    "QuotaExceeded": "raise the quota or free what it counts",
}
"""The same of a job that no edit makes smaller: it has one worker, or it has pools, and is elastic already."""
OF_POOLS: Final = {reason: f"{remedy}, or set spec.minWorkers" for reason, remedy in WITHOUT_FEWER.items()}
"""The same of a job whose workers are counted in its pools, which stay."""
MEASURING_REMEDIES: Final[dict[Reason, str]] = REMEDIES | {
    "Unschedulable": "label a node as export.measureOn.nodeSelector has it (kubectl label node), or free there what"
    " export.measureOn.resources asks for",
    "ErrImagePull": "push the operator's edge image, or let the node pull it (imagePullSecrets, in"
    " spec.podTemplate.spec or at the ServiceAccount)",
    "CreateContainerConfigError": "put right what it names, and delete the Pod: another one is made",
    "QuotaExceeded": WITHOUT_FEWER["QuotaExceeded"],
}
"""The same while the converted models are measured."""


def with_phase(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """Phase and Running condition from the round as it is."""
    rendezvous = status.rendezvous or Rendezvous()
    first_time = status.running_time is None
    if not rendezvous.members:
        phase: Phase = "Pending" if first_time else "Recovering"
        return status.model_copy(update={"phase": phase})
    states = member_states(context.job.spec, rendezvous, context.observed, context.now)
    up = all(state.doing in ("running", "succeeded") for state in states)
    # With a start deadline, to have started is to have done a step; a process that is merely there may hang.
    stepped = any(_steps(context, state, rendezvous.round) for state in states)
    if up and (not first_time or stepped or context.job.spec.start_deadline_seconds is None):
        status = status.model_copy(update={"phase": "Running", "running_time": status.running_time or context.now})
        return context.put(status, "Running", True, "WorkersRunning", f"round {rendezvous.round}")
    if status.phase == "Running" and not any(state.failure for state in states) and not _unheard_of(states):
        return status  # stopping for a resize, or a launcher that is silent for a moment: training goes on
    phase = "Starting" if first_time else "Recovering"
    status = status.model_copy(update={"phase": phase})
    if failed := [state.member.index for state in states if state.failure]:
        words = f"round {rendezvous.round} ends: worker {failed[0]} failed"  # the cause may be another's
        return context.put(status, "Running", False, "RoundClosed", words)
    return context.put(status, "Running", False, "RendezvousOpened", f"round {rendezvous.round} is starting")


def _steps(context: Context, state: MemberState, number: int) -> bool:
    launcher = context.observed.launchers.get(state.member.pod_uid)
    return launcher is not None and launcher.report.round == number and launcher.report.progress is not None


def _unheard_of(states: tuple[MemberState, ...]) -> bool:
    return any(state.doing == "starting" for state in states)


def past_deadline(context: Context, status: TrainingJobStatus) -> tuple[tuple[Reason, str] | None, float | None]:
    """Whether a deadline has passed, and else how long it is until one may have: the nearest, or the members' say.

    What blocked the job until then is the true cause, and stands nowhere else from here on.
    """
    spec, now = context.job.spec, context.now
    assert status.start_time is not None
    blocked = conditions.get(status, "Blocked")
    cause = f", blocked by {blocked.reason}: {blocked.message}" if blocked and blocked.status == "True" else ""
    if status.running_time is None and spec.start_deadline_seconds is not None:
        left = spec.start_deadline_seconds - (now - status.start_time).total_seconds()
        reason: Reason = "StartDeadlineExceeded"
        text = f"no first step within startDeadlineSeconds ({spec.start_deadline_seconds} s)"
        cause = cause or (
            ": the workers' logs show where they are; a program reports its steps with edgecloud.worker.report"
        )
    elif status.running_time is not None and spec.active_deadline_seconds is not None:
        left = spec.active_deadline_seconds - (now - status.running_time).total_seconds()
        reason = "ActiveDeadlineExceeded"
        text = f"not done within activeDeadlineSeconds ({spec.active_deadline_seconds} s) of first running"
    else:
        return None, None
    left = left if left > 0 else until_heard(context, status)
    return (None, left) if left > 0 else ((reason, text + cause), None)


def until_heard(context: Context, status: TrainingJobStatus) -> float:
    """Seconds for which an operator that has just come up still expects a word of some member of the round; else <= 0.

    Until then the job may have started, have made steps, or have succeeded, while nobody listened.
    """
    observed = context.observed
    living = {pod.uid for pod in observed.pods if pod.owned and not pod.dead}
    members = (status.rendezvous or Rendezvous()).members if status.measuring is None else ()
    if all(member.pod_uid in observed.launchers for member in members if member.pod_uid in living):
        return 0.0
    return SILENT_SECONDS - (context.now - observed.listening_since).total_seconds()


def with_blocked(context: Context, status: TrainingJobStatus) -> tuple[TrainingJobStatus, float | None]:
    """The Blocked condition: what keeps the job from going on that somebody else must put right; and when it may come.

    One line: whom it is about, the cluster's own words, and what to do. It stands for as long as anything blocks, with
    the time since when; an image that is now pulled and now waited for says the same all the while.
    """
    measuring = status.measuring is not None
    workers = [pod for pod in context.observed.pods if pod.index < context.job.spec.worker_count()]
    pods = list(context.observed.measurers) if measuring else workers
    service = None if measuring else context.observed.service
    patience = patience_left(status, context.now)
    refused = context.observed.refused
    found = (
        _unreachable(context)
        or _taken(pods, service, patience=patience > 0)
        or undeleted(context, pods)  # before what is refused: nobody else would see to a lost node
        or ((refused[0], "", refused[1]) if refused else None)
        or stuck(context, pods)
    )
    left = any(pod.leftover for pod in pods) or (service is not None and service.leftover)
    wait = patience if left and patience > 0 else None
    if found is None:
        return context.put(status, "Blocked", False, "NotBlocked"), wait
    reason, whom, words = found
    message = _line(whom, words, _remedy(context.job.spec, reason, words, measuring=measuring))
    old = conditions.get(status, "Blocked")
    if old and (old.status, old.reason) == ("True", reason) and _BACK_OFF.match(words) and old.message.startswith(whom):
        message = old.message  # which says why the image could not be pulled; that it is waited for says less
    return context.put(status, "Blocked", True, reason, message), wait


def _remedy(spec: TrainingJobSpec, reason: Reason, words: str, *, measuring: bool) -> str:
    if reason == "AdmissionDenied" and UNASKED_WEBHOOK in words:
        return WEBHOOK_REMEDY
    if reason == "AdmissionDenied" and (remedy := remedy_of(spec, words)):
        return remedy
    if reason == "AdmissionDenied" and UNKNOWN_FIELD in words:
        return UNKNOWN_FIELD_REMEDY
    if reason == "Unschedulable" and words.startswith(GATED):
        return GATED_REMEDY
    if reason == "QuotaExceeded" and _UNSCOPED.search(words):
        return UNSCOPED_REMEDY
    if reason == "QuotaExceeded" and UNSAID in words:
        own = any(pool.resources for pool in spec.pools or ())
        return UNSAID_MEASURING if measuring else UNSAID_OF_POOLS if own else UNSAID_REMEDY
    if measuring:
        return MEASURING_REMEDIES[reason]
    if spec.worker_count() == 1 or (spec.pools and spec.min_workers is not None):
        return (REMEDIES | WITHOUT_FEWER)[reason]
    return (REMEDIES | OF_POOLS)[reason] if spec.pools else REMEDIES[reason]


def _line(whom: str, words: str, remedy: str) -> str:
    """One line: whom it is about, the cluster's own words, bounded, and the remedy, which is never cut off."""
    return f"{one_line(whom + words, MAX_WORDS)}; {remedy}"


def patience_left(status: TrainingJobStatus, now: datetime) -> float:
    """Seconds for which what an earlier job of this name has left is still expected to go by itself; else <= 0."""
    return LEFTOVER_SECONDS - (now - (status.start_time or now)).total_seconds()


def _unreachable(context: Context) -> tuple[Reason, str, str] | None:
    """What could not be measured in the end is not trained in the first place."""
    words = unreachable(context.job, context.settings)
    return ("ModelUnreachable", "", words) if words else None


def _taken(pods: Sequence[Pod], service: Service | None, *, patience: bool) -> tuple[Reason, str, str] | None:
    """What stands in a child's place and is not the job's own."""
    children: list[tuple[str, Pod | Service]] = [("Service", service)] if service is not None else []
    children += [("Pod", pod) for pod in pods]
    for kind, child in children:
        if not child.owned and not (patience and child.leftover):
            whose = "is left of an earlier job of this name" if child.leftover else "is not this job's"
            command = f"kubectl delete {kind.lower()} {child.name}"
            return "NameTaken", "", f"a {kind} {child.name} that {whose} exists; delete it ({command})"
    return None


def waits_for_silence(context: Context, states: tuple[MemberState, ...]) -> list[float]:
    """Seconds until somebody who says nothing more would be missed: a launcher, a Pod, the steps of a round."""
    observed, now = context.observed, context.now
    moments = [launcher.heard_at for launcher in observed.launchers.values()]
    moments += [observed.listening_since] if states else []
    waits = [SILENT_SECONDS - (now - moment).total_seconds() for moment in moments]
    waits += waits_for_pods(context)
    waits += [steps_until(states, observed) - now.timestamp()] if states else []
    return [wait for wait in waits if 0 < wait < math.inf]


def with_stalled(context: Context, status: TrainingJobStatus) -> tuple[TrainingJobStatus, float | None]:
    """The Stalled condition, and when it would come true."""
    progress = status.progress
    if status.phase != "Running" or progress is None or progress.reported_at is None:
        return context.put(status, "Stalled", False, "Progressing"), None
    running = conditions.get(status, "Running")
    since = max(progress.reported_at, running.last_transition_time if running else progress.reported_at)
    left = STALLED_SECONDS - (context.now - since).total_seconds()
    if left > 0:
        return context.put(status, "Stalled", False, "Progressing"), left
    if (left := until_heard(context, status)) > 0:
        return status, left  # it may step all the while: what stood there before is believed
    message = f"no step was reported for {STALLED_SECONDS:.0f} s: look at the workers' logs"
    return context.put(status, "Stalled", True, "NoProgress", message), None
