"""The GPU time of rounds, reckoned when one ends: that is written anyway. Pure."""

from __future__ import annotations

from datetime import datetime

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, Rendezvous, TrainingJobStatus


def with_gpu_time(job: TrainingJob, old: TrainingJobStatus, new: TrainingJobStatus, now: datetime) -> TrainingJobStatus:
    """The new status with the GPU time of the round that ends between the two, if one does and has GPUs."""
    before, after = old.rendezvous or Rendezvous(), new.rendezvous or Rendezvous()
    ends = after.round != before.round or not after.members or _over(new)
    if before.opened_at is None or _over(old) or not ends:
        return new
    gpus = sum(job.spec.whole_gpus_of(member.index) for member in before.members)
    seconds = gpus * max(0.0, (now - before.opened_at).total_seconds())
    return new.model_copy(update={"gpu_seconds": round((new.gpu_seconds or 0.0) + seconds, 1)}) if seconds else new


def _over(status: TrainingJobStatus) -> bool:
    """Whether the training is complete or has failed; its last round still stands in the status then."""
    return status.phase in TERMINAL or status.measuring is not None
