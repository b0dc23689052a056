"""What each change of a job's status counts for, and which lines of the log tell of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.api.status import (
    Condition,
    ConditionType,
    LastFailure,
    Member,
    Phase,
    ProgressStatus,
    Reason,
    Rendezvous,
    TrainingJobStatus,
)
from edgecloud.protocol import FailureReason
from edgecloud_operator.core import conditions
from edgecloud_operator.core.measures import (
    BLOCKED_REASONS,
    FAILURE_REASONS,
    PHASES,
    ROUND_CAUSES,
    Measures,
    RoundCause,
    census,
    measured,
    round_cause,
)
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.transitions import transitions
from tests.unit.core.build import NOW, Scene, make_job, make_progress
from tests.unit.core.profile import tries


class Followed(Scene):
    """A scene whose every write of a status is measured and told."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**spec)
        self.counted: list[Measures] = []
        self.told: list[str] = []

    def act(self) -> Plan:
        before = self.job.status
        plan = super().act()
        if plan.status is not None:
            self.counted.append(measured(before, self.status, created_at=NOW, now=self.now))
            self.told += [one.text for one in transitions(before, self.status)]
        return plan

    def of(self, field: str) -> list[Any]:
        """What was counted under a name, in order."""
        return [value for one in self.counted if (value := getattr(one, field)) not in (None, 0)]


# Why a round is opened: as the decisions really write it


def killed(scene: Followed) -> None:
    scene.running().fails(1, signal="SIGKILL").settle()


def weak(scene: Followed) -> None:
    scene.running().fails(1, 75, reason="Transient").later(5).settle()


def lost(scene: Followed) -> None:
    """The round is closed first; the next one waits for the replacement."""
    scene.running().dies(1, 137).settle()
    assert scene.members == ()
    scene.vanishes(1).up(1).settle()


def preempted(scene: Followed) -> None:
    scene.running().says(1, draining=True).changes(1, terminating=True).settle()
    scene.says(0, state="preempted").dies(1, 143).settle()
    assert scene.members == ()
    scene.vanishes(1).up(1).settle()


def preempted_after_a_failure(scene: Followed) -> None:
    """A failure that is long over is not why."""
    killed(scene)
    preempted(scene)


def preempted_after_a_stray(scene: Followed) -> None:
    """Somebody outside the round has failed in its time; that did not close it."""
    preempted(scene)
    scene.running().spec(workers=3).up(2).dies(2, 137).settle()
    assert scene.status.last_failure is not None
    assert scene.status.last_failure.round == scene.rendezvous.round == 2
    scene.spec(workers=2).vanishes(2)
    preempted(scene)


def left_by_itself(scene: Followed) -> None:
    scene.running().all_say(state="preempted").settle()


def fewer(scene: Followed) -> None:
    scene.running().spec(workers=1).settle()
    scene.all_say(state="preempted").settle()


def more(scene: Followed) -> None:
    scene.running().spec(workers=3).up(2).later(61).settle()
    scene.all_say(state="preempted").settle()


def resized_and_waiting(scene: Followed) -> None:
    """The round is closed for a resize, and one of the next has just gone."""
    scene.running().spec(workers=1).settle()
    scene.all_say(state="preempted").later(20, heard=False).settle()
    assert scene.members == ()
    assert scene.condition("Running").reason == "Resizing"
    scene.later(0).settle()


def suspended_and_resumed(scene: Followed) -> None:
    scene.running().spec(suspend=True).settle()
    scene.all_say(state="preempted").settle()
    assert scene.status.phase == "Suspended"
    scene.spec(suspend=False).all_say(state="idle").settle()


def suspended_and_thought_better_of(scene: Followed) -> None:
    scene.running().spec(suspend=True).settle()
    scene.all_say(state="preempted").spec(suspend=False).settle()


def set_back(scene: Followed) -> None:
    scene.running().all_say(round=5, state="running").settle()


def wiped(scene: Followed) -> None:
    scene.running().all_say(round=5, state="running")
    scene.job = scene.job.with_status(None)
    scene.settle()


def met_in_its_storage(scene: Followed) -> None:
    """Its number jumps, but a failure is why."""
    scene.running().fails(1, signal="SIGKILL", seen_round=7).settle()
    assert scene.rendezvous.round == 8


def nothing(scene: Followed) -> None:
    scene.running()


@pytest.mark.parametrize(
    ("story", "causes", "restarts"),
    [
        (nothing, ["first"], 0),
        (killed, ["first", "Killed"], 1),
        (weak, ["first", "Transient"], 0),
        (lost, ["first", "PodLost"], 1),
        (preempted, ["first", "preempted"], 0),
        (preempted_after_a_failure, ["first", "Killed", "preempted"], 1),
        (preempted_after_a_stray, ["first", "preempted", "preempted"], 1),
        (left_by_itself, ["first", "preempted"], 0),
        (fewer, ["first", "resized"], 0),
        (more, ["first", "resized"], 0),
        (resized_and_waiting, ["first", "resized"], 0),
        (suspended_and_resumed, ["first", "resumed"], 0),
        (suspended_and_thought_better_of, ["first", "resumed"], 0),
        (set_back, ["first", "status-set-back"], 0),
        (wiped, ["first", "status-set-back"], 0),
        (met_in_its_storage, ["first", "Killed"], 1),
    ],
)
def test_why_a_round_is_opened(story: Any, causes: list[str], restarts: int) -> None:
    scene = Followed()
    story(scene)
    assert scene.of("round") == causes
    assert sum(scene.of("restarts")) == restarts
    failures = [cause for cause in causes if cause in get_args(FailureReason)]
    assert scene.of("failure") == (failures if story is not preempted_after_a_stray else ["PodLost"])
    opened = [line for line in scene.told if " opened with " in line]
    assert [line.rpartition(": ")[2] for line in opened] == causes


def test_the_lists_are_those_of_the_api() -> None:
    assert set(get_args(FailureReason)) | {"other"} == set(FAILURE_REASONS)
    assert set(get_args(RoundCause)) | set(FAILURE_REASONS) == set(ROUND_CAUSES)
    assert len(ROUND_CAUSES) == len(set(ROUND_CAUSES))
    assert set(get_args(Phase)) == set(PHASES)


def test_a_reason_of_another_release_is_another() -> None:
    failure = LastFailure(worker=0, reason="CosmicRay", round=1, at=NOW)
    old = TrainingJobStatus(rendezvous=Rendezvous(round=1, members=(Member(index=0, pod_uid="a"),)))
    new = old.model_copy(
        update={"rendezvous": Rendezvous(round=2, members=(Member(index=0, pod_uid="b"),)), "last_failure": failure}
    )
    counted = measured(old, new, created_at=None, now=NOW)
    assert (counted.round, counted.failure) == ("other", "other")
    failed, opened = transitions(old, new)
    assert "CosmicRay" not in failed.text + opened.text
    assert (failed.worker, opened.worker) == (0, None)


# Times


def test_how_long_a_job_took_to_start_is_counted_once() -> None:
    scene = Followed()
    scene.later(3).accepted().later(40).up().settle()
    assert (scene.of("accepted_after"), scene.of("started_after")) == ([3.0], [])
    scene.all_say(state="running").later(2).settle()
    assert scene.of("started_after") == [42.0]
    scene.fails(1, signal="SIGKILL").later(5).settle()
    scene.later(9).running()
    assert scene.of("round") == ["first", "Killed"]
    assert (scene.of("accepted_after"), scene.of("started_after")) == ([3.0], [42.0])


def test_a_resumed_job_starts_again() -> None:
    scene = Followed().running().later(100).spec(suspend=True)
    scene.settle()
    scene.all_say(state="preempted").settle()
    scene.later(1000).spec(suspend=False).all_say(state="idle").settle()
    scene.later(7).all_say(state="running").settle()
    assert scene.of("started_after") == [7.0]  # the first start took no time at all
    assert [one.started_after for one in scene.counted if one.started_after is not None] == [0.0, 7.0]
    assert len([one for one in scene.counted if one.accepted_after is not None]) == 1


def test_a_job_that_never_ran_never_started() -> None:
    scene = Followed().started()
    scene.all_say(state="succeeded").settle()
    assert (scene.of("finished"), scene.of("started_after")) == (["Succeeded"], [])


def test_the_lag_is_that_of_the_newest_step_and_comes_with_a_newer_one_only() -> None:
    scene = Followed().running()
    scene.later(30).all_say(progress=make_progress(5, reported_at=scene.now.timestamp() - 4)).settle()
    assert scene.of("lag") == [4.0]
    scene.later(100).settle()
    assert scene.of("lag") == [4.0]
    scene.all_say(progress=make_progress(9, reported_at=scene.now.timestamp() + 50)).settle()
    assert [one.lag for one in scene.counted if one.lag is not None] == [4.0, 0.0], "a worker's clock that is ahead"


def test_an_end_is_counted_once() -> None:
    scene = Followed(restartPolicy={"maxRestarts": 0}).running().fails(1, signal="SIGKILL")
    scene.settle()
    scene.later(100).settle()
    assert (scene.of("finished"), scene.of("failure"), scene.of("restarts")) == (["Failed"], ["Killed"], [])


# Lines


def test_the_lines_of_a_life() -> None:
    scene = Followed().running()
    scene.all_say(progress=make_progress(3)).later(20).settle()
    scene.fails(1, signal="SIGKILL", message="the program's own words\nand more").settle()
    scene.later(1).running().all_say(state="succeeded").settle()
    assert scene.told == [
        "phase Pending",
        "round 1 opened with 2 workers: first",
        "phase Pending -> Starting",
        "phase Starting -> Running",
        "failure of worker 1 in round 1: Killed (SIGKILL), paid",
        "round 2 opened with 2 workers: Killed",
        "phase Running -> Recovering",
        "phase Recovering -> Running",
        "phase Running -> Succeeded",
    ]


def test_mere_progress_has_no_line() -> None:
    scene = Followed().running()
    before = list(scene.told)
    for step in range(1, 20):
        fields: dict[str, Any] = {"reported_at": scene.now.timestamp() + 3, "checkpoint_step": step, "loss": 1 / step}
        scene.later(3).all_say(progress=make_progress(step, **fields)).settle()
    assert len(scene.of("lag")) + len([one for one in scene.counted if one.lag == 0.0]) > 10, "it was written"
    assert scene.told == before


def test_what_blocks_and_why_it_failed() -> None:
    scene = Followed(startDeadlineSeconds=60).accepted().up(0)
    scene.changes(0, phase="Pending", running_since=None, blocked=("Unschedulable", "0/3 nodes\nare \x1b[31mfine"))
    scene.settle()
    scene.changes(0, blocked=("ErrImagePull", "no such image")).settle()
    scene.changes(0, blocked=None).settle()
    scene.later(60).settle()
    assert scene.told[1:] == [
        "blocked: Unschedulable",
        "blocked: ErrImagePull",
        "no longer blocked",
        "phase Pending -> Failed: StartDeadlineExceeded",
    ]


# Any two statuses


def some(model: Any, **fields: Any) -> Any:
    """Such a model; hypothesis itself would name required fields by their aliases."""
    return st.fixed_dictionaries(fields).map(lambda chosen: model(**chosen))


WORDS = st.text(max_size=12)
TIMES = st.none() | st.integers(0, 10**6).map(lambda s: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=s))
MEMBERS = st.lists(some(Member, index=st.integers(0, 3), pod_uid=st.sampled_from("abcd")), max_size=3).map(tuple)
CONDITIONS = st.lists(
    some(
        Condition,
        type=st.sampled_from(["Running", "Blocked", "Stalled", "Suspended", "Failed"]),
        status=st.sampled_from(["True", "False", "Unknown"]),
        reason=st.sampled_from(get_args(Reason)),
        message=WORDS,
        last_transition_time=st.just(NOW),
    ),
    max_size=5,
    unique_by=lambda condition: condition.type,
).map(tuple)
STATUSES = some(
    TrainingJobStatus,
    phase=st.sampled_from(get_args(Phase)),
    conditions=CONDITIONS,
    rendezvous=st.none() | some(Rendezvous, round=st.integers(0, 4), members=MEMBERS),
    restarts=st.integers(0, 5),
    last_failure=st.none()
    | some(
        LastFailure,
        worker=st.integers(0, 3),
        reason=st.sampled_from(get_args(FailureReason)) | WORDS,
        message=WORDS,
        signal=st.none() | st.sampled_from(["SIGKILL", "SIGSEGV"]),
        round=st.integers(0, 4),
        at=st.just(NOW),
    ),
    progress=st.none() | some(ProgressStatus, step=st.integers(0, 9), reported_at=TIMES),
    start_time=TIMES,
    running_time=TIMES,
)


@tries(300)
@given(st.none() | STATUSES, STATUSES, TIMES)
def test_everything_counted_is_on_a_list(
    old: TrainingJobStatus | None, new: TrainingJobStatus, created_at: datetime | None
) -> None:
    counted = measured(old, new, created_at=created_at, now=NOW)
    assert counted.round in (None, *ROUND_CAUSES)
    assert counted.failure in (None, *FAILURE_REASONS)
    assert counted.finished in (None, "Succeeded", "Failed")
    assert counted.restarts >= 0
    for seconds in (counted.accepted_after, counted.started_after, counted.lag):
        assert seconds is None or seconds >= 0
    opened = (new.rendezvous or Rendezvous()).members and (
        (new.rendezvous or Rendezvous()).round != ((old and old.rendezvous) or Rendezvous()).round
    )
    assert (counted.round is not None) == bool(opened), "each round that is opened has a cause, and nothing else has"
    for line in transitions(old, new):
        assert line.text.isprintable()


@tries(100)
@given(STATUSES, TIMES)
def test_no_change_counts_for_nothing(status: TrainingJobStatus, created_at: datetime | None) -> None:
    same = status.model_copy(update={"start_time": status.start_time or NOW})
    assert measured(same, same, created_at=created_at, now=NOW) == Measures()
    assert transitions(same, same) == ()
    assert round_cause(same, same) is None


# The census


def test_all_jobs_at_one_moment() -> None:
    def job(phase: str, ready: int, *true: tuple[ConditionType, Reason], **spec: Any) -> Any:
        status = TrainingJobStatus.parse({"phase": phase, "readyWorkers": ready})
        for kind in ("Blocked", "Stalled"):
            status = conditions.put(status, kind, "False", "NotBlocked", now=NOW)
        for kind, reason in true:
            status = conditions.put(status, kind, "True", reason, now=NOW)
        return make_job(**spec).with_status(status)

    found = census(
        [
            make_job(workers=5),
            job("Running", 2, ("Stalled", "NoProgress")),
            job("Running", 1, ("Blocked", "Unschedulable"), ("Stalled", "NoProgress"), workers=3),
            job("Pending", 0, ("Blocked", "Unschedulable"), workers=1),
            job("Pending", 0, ("Blocked", "Resizing"), workers=1),  # by hand
            job("Succeeded", 2),
            job("Suspended", 2),
            job("Running", 2, ("Blocked", "Unschedulable"), managedBy="kueue.x-k8s.io/multikueue"),
        ]
    )
    assert found.jobs == dict.fromkeys(PHASES, 0) | {"Pending": 3, "Running": 2, "Succeeded": 1, "Suspended": 1}
    assert (found.desired, found.ready, found.stalled) == (12, 3, 2)
    assert found.blocked == dict.fromkeys(BLOCKED_REASONS, 0) | {"Unschedulable": 2, "other": 1}
