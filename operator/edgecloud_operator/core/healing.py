"""What a status says that cannot be true, put right before anything is decided on it. Pure.

The operator keeps no memory of its own, so that a status which somebody edited is all there is to go by. The schema
refuses what has the wrong type or range (negative restarts, unknown phases, reasons and conditions); the rest is:

healed, by what else is seen or by what is written anew with every decision
    times ahead of the clock           now; else a deadline or a wait would never end
    rendezvous.round out of range      the highest round that a launcher knows; else no further round could be written
    rendezvous.round far above, or below what the launchers say    the next round goes on above both (rounds.advance)
    rendezvous.members                 a round with somebody twice, or with a Pod in another's place, is closed, unpaid
    rendezvous.openedAt missing        now; else the round would never be widened
    rendezvous.stopping of no round    dropped; that of a round is believed: it is stopped and opened again, unpaid
    restarts at the end of their range one below it, so that the next one can be counted
    phase, conditions, summary, workers, readyWorkers, selector, observedGeneration    as they are
    startTime missing                  the job is accepted once more; a round that runs goes on
    runningTime missing                now, as soon as the workers run
    progress, checkpoint               the next report's
    measuring without measureOn        dropped: nothing would ever end it
    documents beyond MAX_DOCUMENTS     dropped: no launcher can have reported them, and every write would carry them

believed
    phase Succeeded or Failed          for good, with the conditions and the time that belong to it: a forged end looks
                                       like a real one, and to run a finished job again would be worse. Delete the job
                                       and apply it again to have it run
    rendezvous.members nobody has seen a lost Pod looks like this: it costs a restart at most
    restarts, budget, lastFailure      nothing else tells; a forged budget can end its own job at the next failure
    image                              it was pinned, and no longer stands anywhere else; it is used for new Pods alone
    measuring                          that the training is complete: its workers are told to leave, and whatever models
                                       are there are measured; a Pod more or less, too
    evaluation, performance, exports, gpuSeconds    for people; nothing is decided on them, but that the model that is
                                       measured has to be the one that exports names
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import (
    TERMINAL,
    Condition,
    ConditionType,
    MeasuringStatus,
    Reason,
    Rendezvous,
    TrainingJobStatus,
)
from edgecloud_operator.core import conditions
from edgecloud_operator.core.measurer import measure_on
from edgecloud_operator.core.observed import Observed

AHEAD: Final = timedelta(seconds=60)
"""How far the clocks of two replicas may be apart: a time that is ahead by no more was written by the other one."""
MAX_ROUND: Final = 10**9 - 10**6
"""The schema ends at 10 ** 9. No training comes near either by itself."""
MAX_RESTARTS: Final = 2**53 - 1
MAX_DOCUMENTS: Final = 64 * 1024
"""Bytes of JSON in each part of a status that programs fill: as much as one request of a launcher's may hold."""

_TIMES: Final = ("start_time", "running_time", "completion_time")
_DOCUMENTS: Final = ("progress", "evaluation", "performance", "exports")


def healed(job: TrainingJob, status: TrainingJobStatus, observed: Observed, now: datetime) -> TrainingJobStatus:
    """The status without what cannot be true; the same one if there is nothing of that kind."""
    latest = now + AHEAD
    update: dict[str, Any] = {
        name: now for name in _TIMES if (time := getattr(status, name)) is not None and time > latest
    }
    update |= {name: None for name in _DOCUMENTS if _size(getattr(status, name)) > MAX_DOCUMENTS}
    if any(condition.last_transition_time > latest for condition in status.conditions):
        update["conditions"] = tuple(_not_ahead(condition, now) for condition in status.conditions)
    if status.restarts > MAX_RESTARTS:
        update["restarts"] = MAX_RESTARTS
    if status.rendezvous is not None:
        rendezvous = _rendezvous(status.rendezvous, observed, now)
        update |= {"rendezvous": rendezvous} if rendezvous != status.rendezvous else {}
    if status.measuring is not None:
        measuring = _measuring(job, status.measuring, now)
        update |= {"measuring": measuring} if measuring != status.measuring else {}
    status = status.model_copy(update=update) if update else status
    if status.phase in TERMINAL:
        return _finished(job, status, now)
    return _unfinished(job, status, now) if status.start_time is not None else status


def _not_ahead(condition: Condition, now: datetime) -> Condition:
    ahead = condition.last_transition_time > now + AHEAD
    return condition.model_copy(update={"last_transition_time": now}) if ahead else condition


def _rendezvous(rendezvous: Rendezvous, observed: Observed, now: datetime) -> Rendezvous:
    if rendezvous.round > MAX_ROUND:
        known = (launcher.report.round for launcher in observed.launchers.values())
        return Rendezvous(round=max((number for number in known if number <= MAX_ROUND), default=0))
    members = rendezvous.members
    places = {pod.uid: pod.index for pod in observed.pods if pod.owned}
    twice = len({member.index for member in members}) < len(members)
    twice = twice or len({member.pod_uid for member in members}) < len(members)
    if twice or any(places.get(member.pod_uid, member.index) != member.index for member in members):
        return Rendezvous(round=rendezvous.round)
    if members and (rendezvous.opened_at is None or rendezvous.opened_at > now + AHEAD):
        rendezvous = rendezvous.model_copy(update={"opened_at": now})
    if rendezvous.stopping is not None and not (members and rendezvous.stopping):
        return rendezvous.model_copy(update={"stopping": None})
    return rendezvous


def _measuring(job: TrainingJob, measuring: MeasuringStatus, now: datetime) -> MeasuringStatus | None:
    if measure_on(job) is None:
        return None
    latest = now + AHEAD
    late = {name: now for name in ("since", "failed_at") if (time := getattr(measuring, name)) and time > latest}
    return measuring.model_copy(update=late) if late else measuring


def _finished(job: TrainingJob, status: TrainingJobStatus, now: datetime) -> TrainingJobStatus:
    """An end with all that belongs to one, so that nobody waits for the condition, or for the ttl, for ever."""
    ends: tuple[tuple[ConditionType, bool], ...] = (
        ("Complete", status.phase == "Succeeded"),
        ("Failed", status.phase == "Failed"),
    )
    if status.completion_time is None:
        status = status.model_copy(update={"completion_time": now})
    if all(conditions.is_true(status, kind) == value for kind, value in ends):
        return status
    for kind, value in ends:
        words = f"status.phase was edited to {status.phase}; a finished job stays finished" if value else ""
        status = _put(job, status, kind, value, "StatusEdited" if value else "NotFinished", now, words)
    still: tuple[tuple[ConditionType, Reason], ...] = (
        ("Running", "Finished"),
        ("Blocked", "NotBlocked"),
        ("Stalled", "Progressing"),
        ("Suspended", "NotSuspended"),
    )
    for kind, reason in still:
        status = _put(job, status, kind, False, reason, now)
    return status


def _unfinished(job: TrainingJob, status: TrainingJobStatus, now: datetime) -> TrainingJobStatus:
    """What is said of every accepted job that is not over; the other conditions are decided on each time."""
    said: tuple[tuple[ConditionType, bool, Reason], ...] = (
        ("Accepted", True, "Accepted"),
        ("Complete", False, "NotFinished"),
        ("Failed", False, "NotFinished"),
    )
    for kind, value, reason in said:
        condition = conditions.get(status, kind)
        if condition is None or (condition.status, condition.reason) != ("True" if value else "False", reason):
            status = _put(job, status, kind, value, reason, now)
    if status.completion_time is not None:
        status = status.model_copy(update={"completion_time": None})
    return status


def _put(
    job: TrainingJob,
    status: TrainingJobStatus,
    kind: ConditionType,
    value: bool,
    reason: Reason,
    now: datetime,
    message: str = "",
) -> TrainingJobStatus:
    generation = job.metadata.generation
    return conditions.put(
        status, kind, "True" if value else "False", reason, now=now, message=message, generation=generation
    )


def _size(value: Any) -> int:
    """Bytes of JSON, in UTF-8 as a request has them; what is no part of a status has none."""
    if value is None:
        return 0
    parts = value if isinstance(value, tuple) else (value,)
    plain = [part if isinstance(part, dict) else part.dump() for part in parts]
    if not any(plain):
        return 0
    text = json.dumps(plain, separators=(",", ":"), default=str, ensure_ascii=False)
    return len(text.encode(errors="surrogatepass"))
