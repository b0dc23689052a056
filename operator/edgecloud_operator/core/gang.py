"""All or nothing: half of a gang, whose other half has no room, gives back what it holds instead of waiting with it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Rendezvous, TrainingJobStatus
from edgecloud_operator.core.context import Context
from edgecloud_operator.core.health import GATED, UNASKED_WEBHOOK
from edgecloud_operator.core.observed import Observed, Pod
from edgecloud_operator.core.plan import GivenBack
from edgecloud_operator.core.resting import may_hold_copy
from edgecloud_operator.core.rounds import enough
from edgecloud_operator.core.stuck import overdue

GIVE_BACK_SECONDS: Final = 30.0
"""How long workers that have trained wait with what they hold for one that is refused: it may be over in a moment."""
ASK_AGAIN: Final = 0.1
"""After which part of the time that they have waited those that gave their places back are made anew, at the latest."""
_FULL: Final = "Insufficient "
"""In the words of a scheduler that has found nodes without room."""


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
    own = tuple(pod for pod in observed.pods if pod.owned and not overdue(context, pod))
    if until_nobody_waits(context, status) <= 0:
        return own
    trained = _trained(context, rendezvous)
    if rendezvous.members or (trained and job.spec.storage_or_default().claim_name is None):
        return ()
    service = observed.service
    refused = _refused(observed) and not (trained and until_given_back(context) > 0)
    if not refused and (service is None or service.owned) and whole_gang(job, observed):
        return ()
    there = [pod.index for pod in own if _lives(context, pod)]
    return () if enough(job, there) else own


def until_nobody_waits(context: Context, status: TrainingJobStatus) -> float:
    """Seconds until the workers that have a place go, because no scheduler finds one for the others; infinite where
    that is not so, or where it may be right to wait.

    Two jobs, each with half of the GPUs, would else wait for each other for ever. Workers that have trained keep what
    they have: theirs is the work that would be lost first. As long as places are still found, as on nodes that come up
    one after the other, the time begins anew. Half of it differs from job to job, so that one of two gives way.
    """
    job, observed, seconds = context.job, context.observed, context.settings.give_back_seconds
    rendezvous = status.rendezvous or Rendezvous()
    if seconds <= 0 or rendezvous.members or _unasked(observed) or not _waiting(context):
        return math.inf
    placed = [pod.index for pod in _placed(context)]
    if not placed or enough(job, placed) or _trained(context, rendezvous):
        return math.inf
    since = max(pod.placed_at or pod.created_at for pod in observed.pods if pod.owned)
    share = zlib.crc32(f"{job.metadata.uid} {since.timestamp()}".encode()) / 2**32
    return seconds * (1 + share) - (context.now - since).total_seconds()


def given_back(context: Context, status: TrainingJobStatus) -> GivenBack | None:
    """What to say when workers with places go because no scheduler finds one for the others; None unless they do."""
    if until_nobody_waits(context, status) > 0:
        return None
    placed, waiting = _placed(context), _waiting(context)
    assert waiting[0].blocked is not None
    message = (
        f"workers with a place: {len(placed)}, without: {len(waiting)}; the places were given back for others to use,"
        f" and all workers are made anew soon. {waiting[0].name}: {waiting[0].blocked[1]}"
    )
    return GivenBack(message=message, pause=ASK_AGAIN * context.settings.give_back_seconds)


def _placed(context: Context) -> Sequence[Pod]:
    """The workers that have a node."""
    return [pod for pod in context.observed.pods if _lives(context, pod) and pod.node]


def _waiting(context: Context) -> Sequence[Pod]:
    """The workers for which a scheduler has looked for a node, and found none that has room."""
    return [pod for pod in context.observed.pods if _lives(context, pod) and not pod.node and _roomless(pod)]


def _roomless(pod: Pod) -> bool:
    """A volume that only some nodes reach may be one reason, and that these are full the other."""
    if pod.blocked is None or pod.blocked[1].startswith(GATED):
        return False
    reason, words = pod.blocked
    return reason == "Unschedulable" or (reason == "VolumeNotBound" and _FULL in words)


def _lives(context: Context, pod: Pod) -> bool:
    return pod.owned and not pod.dead and not pod.terminating and pod.index < context.job.spec.worker_count()


def _trained(context: Context, rendezvous: Rendezvous) -> bool:
    """Whether a worker may hold what was trained; also where it knows of a round that status does not any more."""
    heard = context.observed.launchers
    return any(
        may_hold_copy(pod, context.observed) and (rendezvous.round > 0 or pod.uid in heard)
        for pod in context.observed.pods
    )


def until_given_back(context: Context) -> float:
    """Seconds until workers that have trained go for one that is refused; none left, or nothing is refused: <= 0."""
    since = context.observed.refused_since
    if since is None or not _refused(context.observed):
        return 0.0
    return GIVE_BACK_SECONDS - abs((context.now - since).total_seconds())


def _refused(observed: Observed) -> bool:
    """Whether there is no room for a child. Where a webhook is away nobody has any use for what is given back."""
    return observed.refused is not None and not _unasked(observed)


def _unasked(observed: Observed) -> bool:
    return observed.refused is not None and UNASKED_WEBHOOK in observed.refused[1]
