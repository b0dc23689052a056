"""When a status is written: what matters at once, a checkpoint nearly so, mere progress seldom."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.api.status import (
    Budget,
    CheckpointStatus,
    Condition,
    EvaluationStatus,
    LastFailure,
    Member,
    ProgressStatus,
    Rendezvous,
    SummaryStatus,
    TrainingJobStatus,
    WorkersStatus,
)
from edgecloud_operator.core.writes import CHECKPOINT_SECONDS, WORDS_SECONDS, write_class, write_delay

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
SECONDS = 10.0


def condition(**fields: Any) -> Condition:
    default = {"type": "Running", "status": "True", "reason": "WorkersRunning", "last_transition_time": NOW}
    return Condition(**(default | fields))


OLD = TrainingJobStatus(
    phase="Running",
    observed_generation=1,
    conditions=(condition(),),
    summary=SummaryStatus(workers="2/2", progress="10%"),
    progress=ProgressStatus(step=10, total_steps=100),
    workers=WorkersStatus(desired=2, ready=2),
    ready_workers=2,
    rendezvous=Rendezvous(round=1, members=(Member(index=0, pod_uid="a"), Member(index=1, pod_uid="b"))),
    budget=Budget(),
    checkpoint=CheckpointStatus(step=10),
    start_time=NOW,
)
FAILURE = LastFailure(worker=0, reason="Killed", round=1, at=NOW)


def delay(new: TrainingJobStatus, since: float = 0.0, *, old: TrainingJobStatus | None = OLD) -> float:
    return write_delay(old, new, last_write=NOW - timedelta(seconds=since), now=NOW, progress_seconds=SECONDS)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Recovering"},
        {"phase": "Succeeded", "progress": ProgressStatus(step=100)},
        {"observed_generation": 2},
        {"conditions": (condition(status="False", reason="RoundClosed"),)},
        {"conditions": (condition(message="another"),)},
        {"conditions": (condition(), condition(type="Stalled", status="True", reason="NoProgress"))},
        {"rendezvous": Rendezvous(round=2)},
        {"rendezvous": Rendezvous(round=1, members=(Member(index=0, pod_uid="a"),))},
        {"rendezvous": None},
        {"restarts": 1},
        {"budget": Budget(spent=1)},
        {"last_failure": FAILURE},
        {"image": "other"},
        {"start_time": NOW + timedelta(seconds=1)},
        {"running_time": NOW},
        {"completion_time": NOW},
        {"phase": "Recovering", "checkpoint": CheckpointStatus(step=11)},
    ],
    ids="+".join,
)
def test_what_matters_is_written_at_once(change: dict[str, Any]) -> None:
    assert delay(OLD.model_copy(update=change)) == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"progress": ProgressStatus(step=11)},
        {"progress": None},
        {"summary": SummaryStatus(workers="2/2", progress="11%")},
        {"workers": WorkersStatus(desired=2, ready=1), "ready_workers": 1},
        {"evaluation": EvaluationStatus(accuracy=0.5), "performance": {"stepSeconds": 0.1}},
        {"exports": ({"format": "onnx"},)},
    ],
    ids="+".join,
)
@pytest.mark.parametrize(("since", "left"), [(0.0, 10.0), (4.0, 6.0), (9.5, 0.5), (10.0, 0.0), (1000.0, 0.0)])
def test_progress_waits(change: dict[str, Any], since: float, left: float) -> None:
    assert delay(OLD.model_copy(update=change), since) == pytest.approx(left)


def blocked(message: str, status: str = "True", reason: str = "Unschedulable") -> dict[str, Any]:
    return {"conditions": (condition(), condition(type="Blocked", status=status, reason=reason, message=message))}


def test_other_words_for_what_blocks_a_job_are_written_now_and_then() -> None:
    old = OLD.model_copy(update=blocked("0/3 nodes are available"))
    words, progress = blocked("0/4 nodes are available"), {"progress": ProgressStatus(step=11)}
    assert delay(old.model_copy(update=words), 10.0, old=old) == WORDS_SECONDS - 10.0
    assert delay(old.model_copy(update=words), WORDS_SECONDS, old=old) == 0.0
    assert delay(old.model_copy(update=words | progress), 4.0, old=old) == SECONDS - 4.0
    step = {"checkpoint": CheckpointStatus(step=11)}
    assert delay(old.model_copy(update=words | step), 0.0, old=old) == CHECKPOINT_SECONDS
    for change in (
        blocked("", "False", "NotBlocked"),
        blocked("no such image", reason="ErrImagePull"),
        {"restarts": 1},
    ):
        assert delay(old.model_copy(update=words | change), 0.0, old=old) == 0.0
    assert delay(old, 0.0, old=OLD) == 0.0
    service, pod = (blocked(f"delete {kind}", reason="NameTaken") for kind in ("the Service", "the Pod"))
    assert delay(OLD.model_copy(update=pod), 0.0, old=OLD.model_copy(update=service)) == 0.0


@pytest.mark.parametrize(("since", "left"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (5.0, 0.0)])
def test_a_checkpoint_waits_a_moment(since: float, left: float) -> None:
    new = OLD.model_copy(update={"checkpoint": CheckpointStatus(step=11), "progress": ProgressStatus(step=11)})
    assert delay(new, since) == pytest.approx(left)


def test_a_checkpoint_never_waits_longer_than_progress() -> None:
    new = OLD.model_copy(update={"checkpoint": CheckpointStatus(step=11)})
    assert write_delay(OLD, new, last_write=NOW, now=NOW, progress_seconds=0.2) == pytest.approx(0.2)


@pytest.mark.parametrize("old", [None, OLD])
def test_an_operator_that_has_not_written_yet_writes(old: TrainingJobStatus | None) -> None:
    new = OLD.model_copy(update={"progress": ProgressStatus(step=11)})
    assert write_delay(old, new, last_write=None, now=NOW, progress_seconds=SECONDS) == 0.0
    assert delay(new, old=None) == 0.0


@pytest.mark.parametrize("ahead", [1.0, 3600.0, 10 * 365 * 86400.0])
def test_a_clock_that_was_set_back_delays_no_longer(ahead: float) -> None:
    assert delay(OLD.model_copy(update={"progress": ProgressStatus(step=11)}), -ahead) == SECONDS


# Any change

fields = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Running", "Recovering", "Failed"]),
        "conditions": st.sampled_from([(), (condition(),), (condition(status="False"),)]),
        "rendezvous": st.sampled_from([None, Rendezvous(round=1), Rendezvous(round=2)]),
        "restarts": st.integers(0, 2),
        "last_failure": st.sampled_from([None, FAILURE]),
        "progress": st.none() | st.integers(0, 5).map(lambda step: ProgressStatus(step=step)),
        "checkpoint": st.none() | st.integers(0, 5).map(lambda step: CheckpointStatus(step=step)),
        "workers": st.none() | st.integers(0, 2).map(lambda ready: WorkersStatus(desired=2, ready=ready)),
        "summary": st.sampled_from([None, SummaryStatus(progress="1%"), SummaryStatus(progress="2%")]),
    },
)
WEIGHTY = ("phase", "conditions", "rendezvous", "restarts", "last_failure")


@settings(max_examples=300)
@given(fields, fields, st.floats(-100, 100), st.floats(0, 30))
def test_any_change(before: dict[str, Any], after: dict[str, Any], since: float, seconds: float) -> None:
    old, new = OLD.model_copy(update=before), OLD.model_copy(update=after)
    last = NOW - timedelta(seconds=since)
    waits = write_delay(old, new, last_write=last, now=NOW, progress_seconds=seconds)
    assert 0 <= waits <= seconds
    if any(getattr(old, name) != getattr(new, name) for name in WEIGHTY):
        assert waits == 0
    elif old.checkpoint != new.checkpoint:
        assert waits <= CHECKPOINT_SECONDS


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80), st.floats(0.5, 10))
def test_the_rate_is_bounded(reports: list[tuple[float, bool]], seconds: float) -> None:
    """Whatever is reported, and however often: mere progress is written at most once in progress_seconds."""
    now, last, stored = NOW, None, OLD
    written: list[datetime] = []
    for step, (pause, checkpoint) in enumerate(reports):
        now += timedelta(seconds=pause)
        update: dict[str, Any] = {"progress": ProgressStatus(step=step)}
        update |= {"checkpoint": CheckpointStatus(step=step)} if checkpoint else {"checkpoint": stored.checkpoint}
        new = stored.model_copy(update=update)
        if write_delay(stored, new, last_write=last, now=now, progress_seconds=seconds) == 0:
            written.append(now)
            stored, last = new, now
    least = min(seconds, CHECKPOINT_SECONDS) if any(checkpoint for _, checkpoint in reports) else seconds
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(written)]
    assert all(gap >= least - 1e-6 for gap in gaps)


# Whose turn it is


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"progress": ProgressStatus(step=11)}, "shown"),
        ({"checkpoint": CheckpointStatus(step=11), "observed_generation": 3}, "shown"),
        ({"conditions": (condition(observed_generation=3),), "observed_generation": 3}, "shown"),
        (blocked("no node"), "shown"),
        (blocked("no node") | {"phase": "Recovering"}, "round"),
        ({"conditions": (condition(type="Suspended", status="Unknown", reason="Stopping"),)}, "round"),
        ({"rendezvous": Rendezvous(round=2)}, "round"),
        ({"phase": "Succeeded"}, "round"),
        ({"restarts": 1}, "round"),
    ],
)
def test_who_waits_for_a_write(change: dict[str, Any], kind: str) -> None:
    assert write_class(OLD, OLD.model_copy(update=change)) == kind
    assert write_class(None, OLD) == write_class(TrainingJobStatus(), OLD) == "beginning"
