"""Events: one for each thing that happened between two statuses, so that they come on transitions only."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgecloud.api.status import Rendezvous, TrainingJobStatus
from edgecloud_operator.core import conditions
from edgecloud_operator.core.plan import Event

MAX_MESSAGE: Final = 1024
"""What Kubernetes takes of an event's message."""


def events_between(old: TrainingJobStatus, new: TrainingJobStatus) -> tuple[Event, ...]:
    """What a person who watches the job wants to know of the change, in the order in which it happened."""
    events: list[Event] = []
    if old.start_time != new.start_time:
        events.append(Event(type="Normal", reason="Accepted", message="waiting for the workers"))
    failure = new.last_failure
    if failure and failure != old.last_failure:
        how = failure.signal or (f"exit code {failure.exit_code}" if failure.exit_code is not None else failure.reason)
        rank = f" rank {failure.rank}" if failure.rank is not None else ""
        events.append(
            Event(
                type="Warning",
                reason=failure.reason,
                message=f"worker {failure.worker}{rank}: {how} in round {failure.round}",
            )
        )
    before, after = old.rendezvous or Rendezvous(), new.rendezvous or Rendezvous()
    if after.round != before.round and after.members:
        count = len(after.members)
        workers = f"{count} worker" + ("s" if count != 1 else "")
        events.append(Event(type="Normal", reason="RoundOpened", message=f"round {after.round} with {workers}"))
    for kind in ("Blocked", "Stalled"):
        if conditions.is_true(new, kind) and not conditions.is_true(old, kind):
            condition = conditions.get(new, kind)
            assert condition is not None
            events.append(Event(type="Warning", reason=condition.reason, message=condition.message))
    if old.phase != new.phase and new.phase in ("Running", "Suspended", "Succeeded", "Failed"):
        condition = conditions.get(new, "Failed") if new.phase == "Failed" else None
        if condition:
            events.append(Event(type="Warning", reason=condition.reason, message=condition.message))
        else:
            events.append(
                Event(type="Normal", reason=new.phase, message=_SENTENCES.get(new.phase, "the job has failed"))
            )
    return tuple(replace(event, message=event.message[:MAX_MESSAGE]) for event in events)


_SENTENCES = {
    "Running": "all workers are running",
    "Suspended": "the job is suspended",
    "Succeeded": "the job has succeeded",
}
