"""Pods that do not come up, are not heard, or do not go: what is said of them, and when time alone would bring it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from edgecloud.api.base import utc
from edgecloud.api.status import Reason
from edgecloud_operator.core.context import Context
from edgecloud_operator.core.observed import Pod

UNHEARD_SECONDS: Final = 30.0
"""A Pod that runs for this long without a word from its launcher can't reach the coordinator."""
WAITING_SECONDS: Final = 120.0
"""A Pod that waits on its node for this long before it is started there is worth a word: a large image may be why."""


def undeleted(context: Context, pods: Sequence[Pod]) -> tuple[Reason, str, str] | None:
    """Which of these Pods its node, or a finalizer, does not let go, if any: reason, whom it is about, and words as of
    stuck()."""
    for pod in pods:
        if pod.finalizers and (pod.dead or not pod.node) and pod.leaves_by is not None and overdue(context, pod):
            words = (
                f"a Pod {pod.name} was to be gone by {utc(pod.leaves_by)}, and its finalizers hold it"
                f" ({', '.join(pod.finalizers)}); remove them (kubectl edit pod {pod.name})"
            )
            return "NameTaken", "", words
        # Only a kubelet lets a Pod of its node go; what holds up one without a node is not known here.
        if pod.node and pod.leaves_by is not None and overdue(context, pod):
            words = f"was to be gone by {utc(pod.leaves_by)}, and its node {pod.node} does not confirm that it is"
            return "WorkerSilent", f"{pod.name} ", f"is being deleted, {words}"
    return None


def overdue(context: Context, pod: Pod) -> bool:
    """Whether a Pod that is being deleted was to be gone long ago, as when its node is lost."""
    return pod.owned and _overdue(context, pod) <= 0


def stuck(context: Context, pods: Sequence[Pod]) -> tuple[Reason, str, str] | None:
    """What holds up one of these Pods: reason, whom it is about, and words. The surest first.

    The words name moments and no ages: a status that says the same is not written again.
    """
    living = [pod for pod in pods if pod.owned and not pod.dead]
    for pod in living:
        if pod.blocked:
            return pod.blocked[0], f"{pod.name}: ", pod.blocked[1]
    for pod in living:
        if _unheard(context, pod) <= 0:
            place = f" on {pod.node}" if pod.node else ""
            words = f"runs{place}, and its launcher was not heard for {UNHEARD_SECONDS:.0f} s"
            return "CoordinatorUnreachable", f"{pod.name} ", words
    for pod in living:
        if pod.waits_since is not None and _waiting(context, pod) <= 0:
            words = f"has waited on {pod.node} since {utc(pod.waits_since)}, and is not started there yet"
            if claim := _claim_of_one_node(context, pod):
                words += f": its claim {claim} may still be attached to the node that worker {pod.index} was on before"
                return "VolumeNotDetached", f"{pod.name} ", words
            return "WaitingForWorkers", f"{pod.name} ", words
    return None


def waits_for_pods(context: Context) -> list[float]:
    """Seconds until each Pod would be worth a word if nothing changes about it; infinite, or past, for most."""
    pods = [pod for pod in (*context.observed.pods, *context.observed.measurers) if pod.owned]
    waits = [wait(context, pod) for pod in pods if not pod.dead for wait in (_unheard, _waiting)]
    return waits + [_overdue(context, pod) for pod in pods]


def _overdue(context: Context, pod: Pod) -> float:
    """Seconds until a Pod that is being deleted counts as one that nobody lets go."""
    return math.inf if pod.leaves_by is None else _silence(context, pod, pod.leaves_by)


def _unheard(context: Context, pod: Pod) -> float:
    """Seconds until a running Pod counts as one that can't reach the coordinator; none left: it does."""
    if pod.phase != "Running" or pod.running_since is None or pod.role != "worker":
        return math.inf
    return _silence(context, pod, pod.running_since)


def _silence(context: Context, pod: Pod, since: datetime) -> float:
    """Seconds for which it may be silent after that moment, its last word, and this operator's own beginning."""
    launcher = context.observed.launchers.get(pod.uid)
    last = max(since, context.observed.listening_since, *([launcher.heard_at] if launcher else []))
    return UNHEARD_SECONDS - (context.now - last).total_seconds()


def _waiting(context: Context, pod: Pod) -> float:
    if pod.waits_since is None or pod.terminating:
        return math.inf
    return WAITING_SECONDS - (context.now - pod.waits_since).total_seconds()


def _claim_of_one_node(context: Context, pod: Pod) -> str | None:
    """The claim that one node mounts at a time, and another one may have mounted for an earlier Pod."""
    storage, status = context.job.spec.storage_or_default(), context.job.status
    ran = status is not None and status.rendezvous is not None and status.rendezvous.round > 0
    mounts = pod.role == "worker" and pod.index == 0 and storage.access_mode != "ReadWriteMany"
    return storage.claim_name if ran and mounts else None
