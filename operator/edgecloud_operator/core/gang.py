"""All or nothing: half of a gang, whose other half is refused, gives back what it holds instead of waiting with it."""

from __future__ import annotations

from typing import Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Rendezvous, TrainingJobStatus
from edgecloud_operator.core.context import Context
from edgecloud_operator.core.health import UNASKED_WEBHOOK
from edgecloud_operator.core.observed import Observed, Pod
from edgecloud_operator.core.resting import may_hold_copy
from edgecloud_operator.core.rounds import enough
from edgecloud_operator.core.stuck import overdue

GIVE_BACK_SECONDS: Final = 30.0
"""How long workers that have trained wait with what they hold for one that is refused: it may be over in a moment."""


def whole_gang(job: TrainingJob, observed: Observed) -> bool:
    """Whether the names that somebody else has taken leave enough workers for a round."""
    taken = {pod.index for pod in observed.pods if not pod.owned}
    return enough(job, [index for index in range(job.spec.worker_count()) if index not in taken])


def half_gang(context: Context, status: TrainingJobStatus) -> tuple[Pod, ...]:
    """The job's Pods, if all of them should go: no round can run with those that are there, and more are not to be had.

    Those of a running round never go for it; nor do Pods that hold the only copy of what was trained. A Pod that does
    not go though it was to be gone is nothing that anybody could give back, and is not waited for.
    """
    job, observed, rendezvous = context.job, context.observed, status.rendezvous or Rendezvous()
    trained = rendezvous.round > 0 and any(may_hold_copy(pod, observed) for pod in observed.pods)
    if rendezvous.members or (trained and job.spec.storage_or_default().claim_name is None):
        return ()
    service = observed.service
    refused = _refused(observed) and not (trained and until_given_back(context) > 0)
    if not refused and (service is None or service.owned) and whole_gang(job, observed):
        return ()
    own = tuple(pod for pod in observed.pods if pod.owned and not overdue(context, pod))
    there = [pod.index for pod in own if not pod.dead and not pod.terminating and pod.index < job.spec.worker_count()]
    return () if enough(job, there) else own


def until_given_back(context: Context) -> float:
    """Seconds until workers that have trained go for one that is refused; none left, or nothing is refused: <= 0."""
    since = context.observed.refused_since
    if since is None or not _refused(context.observed):
        return 0.0
    return GIVE_BACK_SECONDS - abs((context.now - since).total_seconds())


def _refused(observed: Observed) -> bool:
    """Whether there is no room for a child. Where a webhook is away nobody has any use for what is given back."""
    return observed.refused is not None and UNASKED_WEBHOOK not in observed.refused[1]
