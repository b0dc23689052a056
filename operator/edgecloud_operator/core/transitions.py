"""Transitions of a job in sentences, for the operator's log: what happened between two statuses, progress aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgecloud.api.status import ConditionType, Rendezvous, TrainingJobStatus
from edgecloud_operator.core import conditions
from edgecloud_operator.core.measures import reason_of, round_cause


@dataclass(frozen=True)
class Transition:
    """Something that happened, in a sentence; and to which worker, by index, where it happened to one."""

    text: str
    worker: int | None = None


def transitions(old: TrainingJobStatus | None, new: TrainingJobStatus) -> tuple[Transition, ...]:
    """Each that there was; none for mere progress. Nothing of what a program said stands in them."""
    before = old or TrainingJobStatus()
    said = [*_failed(before, new), *_of_rounds(before, new)]
    if old is None or old.phase != new.phase:
        ended = conditions.get(new, "Failed") if new.phase == "Failed" else None
        change = new.phase if old is None else f"{old.phase} -> {new.phase}"
        said.append(Transition(f"phase {change}: {ended.reason}" if ended else f"phase {change}"))
    said += _of_measuring(before, new)
    for kind in ("Blocked", "Stalled"):
        earlier, later = (_reason_if_true(status, kind) for status in (before, new))
        if earlier != later:
            said.append(Transition(f"{kind.lower()}: {later}" if later else f"no longer {kind.lower()}"))
    return tuple(said)


def _failed(old: TrainingJobStatus, new: TrainingJobStatus) -> Iterator[Transition]:
    failure = new.last_failure
    if failure is None or failure == old.last_failure:
        return
    how = failure.signal or (f"exit code {failure.exit_code}" if failure.exit_code is not None else "no exit code")
    paid = "paid" if new.restarts > old.restarts else "unpaid"
    text = f"failure of worker {failure.worker} in round {failure.round}: {reason_of(failure)} ({how}), {paid}"
    yield Transition(text, failure.worker)


def _of_rounds(old: TrainingJobStatus, new: TrainingJobStatus) -> Iterator[Transition]:
    before, after = old.rendezvous or Rendezvous(), new.rendezvous or Rendezvous()
    cause = round_cause(old, new)
    if cause is not None:
        yield Transition(f"round {after.round} opened with {len(after.members)} workers: {cause}")
    elif before.members and not after.members:
        yield Transition(f"round {before.round} closed")


def _of_measuring(old: TrainingJobStatus, new: TrainingJobStatus) -> Iterator[Transition]:
    if new.measuring is None:
        return
    if old.measuring is None:
        yield Transition("the training is complete, and is to be measured")
    elif new.measuring.failures > old.measuring.failures:
        yield Transition(f"a measuring Pod came to nothing, the {new.measuring.failures}. one")


def _reason_if_true(status: TrainingJobStatus, kind: ConditionType) -> str:
    condition = conditions.get(status, kind)
    return condition.reason if condition is not None and condition.status == "True" else ""
