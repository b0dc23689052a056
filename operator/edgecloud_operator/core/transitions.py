"""Transitions of a job in sentences, for the operator's log: what happened between two statuses, progress aside."""

from __future__ import annotations

from edgecloud.api.status import Rendezvous, TrainingJobStatus
from edgecloud_operator.core import conditions
from edgecloud_operator.core.measures import reason_of, round_cause


def transitions(old: TrainingJobStatus | None, new: TrainingJobStatus) -> tuple[str, ...]:
    """A sentence for each; none for mere progress. Nothing of what a program said stands in them."""
    before = old or TrainingJobStatus()
    said: list[str] = []
    failure = new.last_failure
    if failure and failure != before.last_failure:
        how = failure.signal or (f"exit code {failure.exit_code}" if failure.exit_code is not None else "no exit code")
        paid = "paid" if new.restarts > before.restarts else "unpaid"
        said.append(
            f"failure of worker {failure.worker} in round {failure.round}: {reason_of(failure)} ({how}), {paid}"
        )
    cause = round_cause(before, new)
    if cause is not None and new.rendezvous is not None:
        said.append(f"round {new.rendezvous.round} opened with {len(new.rendezvous.members)} workers: {cause}")
    elif (before.rendezvous or Rendezvous()).members and not (new.rendezvous or Rendezvous()).members:
        said.append(f"round {(before.rendezvous or Rendezvous()).round} closed")
    if old is None or before.phase != new.phase:
        ended = conditions.get(new, "Failed") if new.phase == "Failed" else None
        why = f": {ended.reason}" if ended else ""
        said.append(f"phase {new.phase}{why}" if old is None else f"phase {before.phase} -> {new.phase}{why}")
    for kind in ("Blocked", "Stalled"):
        condition, earlier = conditions.get(new, kind), conditions.get(before, kind)
        was, is_now = (one.reason if one and one.status == "True" else "" for one in (earlier, condition))
        if was != is_now:
            said.append(f"{kind.lower()}: {is_now}" if is_now else f"no longer {kind.lower()}")
    return tuple(said)
