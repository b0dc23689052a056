"""Events: one for each thing that happened between two statuses, so that they come on transitions only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from edgecloud.api.status import TERMINAL, Condition, Reason, Rendezvous, TrainingJobStatus
from edgecloud_operator.core import backoff, conditions
from edgecloud_operator.core.plan import Event

MAX_MESSAGE: Final = 1024
"""What Kubernetes takes of an event's message."""
PATIENT: Final[Reason] = "WaitingForWorkers"
"""What blocks a job without being wrong so far: it may be a large image that is being pulled."""


def events_between(old: TrainingJobStatus, new: TrainingJobStatus) -> tuple[Event, ...]:
    """What a person who watches the job wants to know of the change, in the order in which it happened."""
    events: list[Event] = []
    if old.start_time != new.start_time:
        events.append(Event(type="Normal", reason="Accepted", message=_accepted(new)))
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
    if paused := backoff.news(old, new):
        events.append(Event(type="Normal", reason="RoundDelayed", message=paused))
    before, after = old.rendezvous or Rendezvous(), new.rendezvous or Rendezvous()
    if after.round != before.round and after.members:
        count = len(after.members)
        workers = f"{count} worker" + ("s" if count != 1 else "")
        events.append(Event(type="Normal", reason="RoundOpened", message=f"round {after.round} with {workers}"))
    events += _of_measuring(old, new)
    for kind in ("Blocked", "Stalled"):
        condition = conditions.get(new, kind)
        if condition is not None and condition.status == "True" and _is_news(old, condition):
            events.append(
                Event(
                    type="Normal" if condition.reason == PATIENT else "Warning",
                    reason=condition.reason,
                    message=condition.message,
                )
            )
    if old.phase != new.phase and new.phase in ("Running", "Suspended", "Succeeded", "Failed"):
        condition = conditions.get(new, "Failed") if new.phase == "Failed" else None
        if condition:
            events.append(Event(type="Warning", reason=condition.reason, message=condition.message))
        elif new.phase != "Running" or new.measuring is None:
            events.append(
                Event(type="Normal", reason=new.phase, message=_SENTENCES.get(new.phase, "the job has failed"))
            )
    return tuple(replace(event, message=event.message[:MAX_MESSAGE]) for event in events)


def _accepted(new: TrainingJobStatus) -> str:
    if new.measuring is not None:
        return "the training is complete"
    running = conditions.get(new, "Running")
    return "waiting for the workers" if running is None or running.reason == PATIENT else running.message


def _is_news(old: TrainingJobStatus, condition: Condition) -> bool:
    """Whether a condition has come true, or for another reason than before that somebody has to see to."""
    before = conditions.get(old, condition.type)
    if before is None or before.status != "True":
        return True
    return condition.reason not in (before.reason, PATIENT)


def _of_measuring(old: TrainingJobStatus, new: TrainingJobStatus) -> list[Event]:
    """When measuring on a node of its own begins, comes to nothing, and ends."""
    if new.measuring is None:
        return []
    before = old.measuring
    running = conditions.get(new, "Running")
    begins = new.phase == "Running" and (before is None or old.phase == "Suspended")
    if begins and running is not None:
        return [Event(type="Normal", reason="Measuring", message=running.message)]
    if before is not None and new.measuring.failures > before.failures:
        said = f"Pod {new.measuring.failures} came to nothing: {new.measuring.message}"
        return [Event(type="Warning", reason="MeasuringFailed", message=said)]
    if new.phase in TERMINAL and new.exports != old.exports:
        return [Event(type="Normal", reason="Measured", message=", ".join(map(_measures, new.exports or ())))]
    return []


def _measures(export: dict[str, Any]) -> str:
    """A converted model in few words, such as `onnx on pc-1: 1.52 ms, accuracy 97.80%`."""
    node = f" on {export['node']}" if "node" in export else ""
    latency, accuracy = export.get("latency"), export.get("accuracy")
    p50 = latency.get("p50") if isinstance(latency, dict) else None
    said = [f"{p50:.4g} ms" for p50 in (p50,) if isinstance(p50, float)]
    said += [f"accuracy {accuracy:.2%}"] if isinstance(accuracy, float) else []
    return f"{export.get('format')}{node}: {', '.join(said)}"


_SENTENCES = {
    "Running": "all workers are running",
    "Suspended": "the job is suspended",
    "Succeeded": "the job has succeeded",
}
