"""All or nothing: half of a gang, whose other half is refused, gives back what it holds instead of waiting with it."""

from __future__ import annotations

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Rendezvous, TrainingJobStatus
from edgecloud_operator.core.observed import Observed, Pod
from edgecloud_operator.core.rounds import enough


def whole_gang(job: TrainingJob, observed: Observed) -> bool:
    """Whether the names that somebody else has taken leave enough workers for a round."""
    taken = {pod.index for pod in observed.pods if not pod.owned}
    return enough(job, [index for index in range(job.spec.worker_count()) if index not in taken])


def half_gang(job: TrainingJob, status: TrainingJobStatus, observed: Observed) -> tuple[Pod, ...]:
    """The job's Pods, if all of them should go: no round can run with those that are there, and more are not to be had.

    Those of a running round never go for it; nor do Pods that hold the only copy of what was trained.
    """
    rendezvous = status.rendezvous or Rendezvous()
    if rendezvous.members or (rendezvous.round > 0 and job.spec.storage_or_default().claim_name is None):
        return ()
    service = observed.service
    refused = observed.refused is not None or (service is not None and not service.owned)
    if not refused and whole_gang(job, observed):
        return ()
    own = tuple(pod for pod in observed.pods if pod.owned)
    there = [pod.index for pod in own if not pod.dead and not pod.terminating and pod.index < job.spec.worker_count()]
    return () if enough(job, there) else own
