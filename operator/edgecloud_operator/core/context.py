"""One decision: its arguments, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import ConditionType, Reason, TrainingJobStatus
from edgecloud_operator.core import conditions
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.core.events import events_between
from edgecloud_operator.core.gpu_time import with_gpu_time
from edgecloud_operator.core.observed import Observed
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.progress import with_summary


@dataclass(frozen=True)
class Context:
    """The arguments of one decision."""

    job: TrainingJob
    observed: Observed
    now: datetime
    settings: Settings

    def put(
        self, status: TrainingJobStatus, kind: ConditionType, value: bool, reason: Reason, message: str = ""
    ) -> TrainingJobStatus:
        return conditions.put(
            status,
            kind,
            "True" if value else "False",
            reason,
            now=self.now,
            message=message,
            generation=self.job.metadata.generation,
        )

    def plan(self, old: TrainingJobStatus, new: TrainingJobStatus, **rest: Any) -> Plan:
        """A plan that writes the new status if it differs, with the events that the change stands for."""
        new = with_gpu_time(self.job, old, new, self.now)
        new = with_summary(conditions.of_generation(new, self.job.metadata.generation))
        if new != self.job.status:
            new = TrainingJobStatus.parse(new.dump())  # as the server will give it back: times to the second
        if new == self.job.status:
            return Plan(**rest)
        return Plan(status=new, events=events_between(old, new), **rest)
