"""Statuses that somebody forged: what cannot be true is put right, and the job goes on; what can be is believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.api.status import (
    Budget,
    CheckpointStatus,
    Condition,
    EvaluationStatus,
    MeasuringStatus,
    Member,
    ProgressStatus,
    Rendezvous,
    TrainingJobStatus,
)
from edgecloud_operator.core import conditions
from edgecloud_operator.core.healing import MAX_DOCUMENTS, MAX_RESTARTS, MAX_ROUND, healed
from tests.unit.core.build import MEASURED, NOW, Scene, as_served, make_observed, make_progress, member
from tests.unit.core.profile import tries

END = datetime(9999, 12, 31, tzinfo=UTC)


def test_an_honest_status_is_left_as_it_is() -> None:
    for scene in (Scene().accepted(), Scene().running(), Scene().running().all_say(state="succeeded")):
        scene.settle()
        assert healed(scene.job, scene.status, scene.observed, scene.now) is scene.status


@pytest.mark.parametrize("field", ["start_time", "running_time"])
def test_a_time_of_the_future_puts_no_deadline_off(field: str) -> None:
    spec = {"start_time": "startDeadlineSeconds", "running_time": "activeDeadlineSeconds"}[field]
    scene = Scene(**{spec: 100}).running().with_status(**{field: END})
    assert scene.act().events == ()
    assert getattr(scene.status, field) == NOW
    scene.later(100).settle()
    assert scene.status.phase == "Failed"


@given(st.integers(0, 2**53))
def test_any_number_of_failures_can_be_counted_on(failures: int) -> None:
    forged = MeasuringStatus(since=NOW, failures=failures, pod_uid="gone")
    scene = Scene(**MEASURED).running().with_status(measuring=forged)
    scene.settle()
    assert scene.status.measuring is not None and scene.status.measuring.failures <= 5


def test_the_clock_of_another_replica_may_be_ahead() -> None:
    scene = Scene().running().with_status(start_time=NOW + timedelta(seconds=59))
    scene.settle()
    assert scene.status.start_time == NOW + timedelta(seconds=59)


def test_a_stop_whose_beginning_was_put_off_ends() -> None:
    scene = Scene(stopGraceSeconds=20).running().spec(suspend=True)
    scene.settle()
    forged = [one.model_copy(update={"last_transition_time": END}) for one in scene.status.conditions]
    scene.with_status(conditions=tuple(forged)).settle()
    scene.later(40).settle()
    assert scene.status.phase == "Suspended"


@pytest.mark.parametrize("number", [MAX_ROUND + 1, 10**9])
def test_a_round_at_the_end_of_numbers(number: int) -> None:
    """Without being healed there would be no further round, for ever."""
    scene = Scene().running()
    forged = scene.rendezvous.model_copy(update={"round": number})
    scene.with_status(rendezvous=forged).settle()
    assert (scene.rendezvous.round, scene.members, scene.status.restarts) == (2, (0, 1), 0)


def test_a_round_far_above_is_gone_on_with() -> None:
    scene = Scene().running()
    scene.with_status(rendezvous=scene.rendezvous.model_copy(update={"round": 5 * 10**8})).settle()
    assert (scene.rendezvous.round, scene.members) == (5 * 10**8, (0, 1))
    assert {told.round for told in scene.decide().directives.values()} <= {5 * 10**8, 5 * 10**8 - 1}


@pytest.mark.parametrize(
    "members",
    [
        pytest.param((member(0), member(0)), id="one worker twice"),
        pytest.param((member(0), member(1, "pod-0")), id="one Pod twice"),
        pytest.param((member(0, "pod-1"), member(1, "pod-0")), id="in each other's place"),
    ],
)
def test_members_that_cannot_be(members: tuple[Member, ...]) -> None:
    scene = Scene().running()
    scene.with_status(rendezvous=Rendezvous(round=1, members=members, opened_at=NOW)).settle()
    assert [(one.index, one.pod_uid) for one in scene.rendezvous.members] == [(0, "pod-0"), (1, "pod-1")]
    assert (scene.rendezvous.round, scene.status.restarts) == (2, 0)


def test_a_round_of_which_nobody_knows_when_it_was_opened_is_widened_all_the_same() -> None:
    scene = Scene().running()
    scene.with_status(rendezvous=scene.rendezvous.model_copy(update={"opened_at": None})).settle()
    scene.spec(workers=3).up(2).later(60)
    assert {told.action for told in scene.settle().directives.values()} == {"stop", "wait"}


def test_restarts_at_the_end_of_numbers_can_still_be_counted() -> None:
    scene = Scene().running().with_status(restarts=2**53)
    scene.settle()
    scene.fails(0, signal="SIGKILL").settle()
    assert scene.status.restarts == MAX_RESTARTS
    assert scene.rendezvous.round == 2


def test_documents_that_nobody_can_have_reported_are_dropped() -> None:
    big = "x" * MAX_DOCUMENTS
    scene = Scene().running().with_status(
        performance={"a": big},
        exports=({"a": big},),
        evaluation=EvaluationStatus(accuracy=0.5, details={"a": big}),
        progress=ProgressStatus(metrics={big: 1.0}),
    )  # fmt: skip
    scene.settle()
    status = scene.status
    assert (status.performance, status.exports, status.evaluation, status.progress) == (None, None, None, None)
    scene.with_status(performance={"a": "x"}).settle()
    assert scene.status.performance == {"a": "x"}


def test_a_large_report_in_any_script_is_kept() -> None:
    """Escaped it would count for three times what its request had, and be dropped and reported by turns."""
    scene = Scene().running()
    said = {"classes": {f"{40 * 'ж'}{number}": 0.5 for number in range(500)}}
    scene.all_say(state="running", progress=make_progress(5, performance=said)).settle()
    assert scene.status.performance == said
    scene.all_say(state="succeeded").settle()
    assert (scene.status.phase, scene.status.performance) == ("Succeeded", said)


def test_conditions_that_are_nonsense() -> None:
    scene = Scene().running()
    nonsense = tuple(
        Condition(type=kind, status=status, reason="Resizing", message="!", last_transition_time=NOW)
        for kind, status in (
            ("Accepted", "False"), ("Complete", "True"), ("Failed", "True"), ("Blocked", "Unknown"),
            ("Running", "False"), ("Stalled", "True"), ("Suspended", "True"),
        )
    )  # fmt: skip
    for forged in (nonsense, ()):
        scene.with_status(conditions=forged).settle()
        said = {one.type: (one.status, one.reason) for one in scene.status.conditions}
        assert said == {
            "Accepted": ("True", "Accepted"),
            "Running": ("True", "WorkersRunning"),
            "Blocked": ("False", "NotBlocked"),
            "Stalled": ("False", "Progressing"),
            "Suspended": ("False", "NotSuspended"),
            "Complete": ("False", "NotFinished"),
            "Failed": ("False", "NotFinished"),
        }
        assert scene.rendezvous.round == 1


@pytest.mark.parametrize(("phase", "kind"), [("Succeeded", "Complete"), ("Failed", "Failed")])
def test_a_forged_end_is_believed_and_made_a_whole_one(phase: str, kind: Any) -> None:
    scene = Scene(ttlSecondsAfterFinished=100).running().with_status(phase=phase)
    scene.settle()
    assert conditions.is_true(scene.status, kind)
    assert scene.condition(kind).reason == "StatusEdited"
    other: Any = "Failed" if kind == "Complete" else "Complete"
    assert not conditions.is_true(scene.status, other) and not conditions.is_true(scene.status, "Running")
    assert scene.status.completion_time == NOW
    plan = scene.decide()
    assert (plan.create, {told.action for told in plan.directives.values()}) == ((), {"exit"})
    assert [target.kind for target in scene.later(100).decide().delete] == ["TrainingJob"]


def test_an_end_in_the_future_does_not_put_the_ttl_off() -> None:
    scene = Scene(ttlSecondsAfterFinished=100).running().all_say(state="succeeded")
    scene.settle()
    scene.with_status(completion_time=END).settle()
    assert [target.kind for target in scene.later(100).decide().delete] == ["TrainingJob"]


@pytest.mark.parametrize("phase", ["Pending", "Starting", "Recovering", "Suspended"])
def test_a_forged_phase_changes_nothing(phase: str) -> None:
    scene = Scene().running().with_status(phase=phase)
    scene.settle()
    assert (scene.status.phase, scene.rendezvous.round, scene.status.restarts) == ("Running", 1, 0)
    assert {told.action for told in scene.decide().directives.values()} == {"run"}


def test_a_suspension_that_was_forged_while_it_stops_costs_nothing_later() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 0}).running().spec(suspend=True)
    scene.settle()
    scene.with_status(phase="Suspended").settle()
    assert scene.members == ()
    for index in (0, 1):
        scene.vanishes(index)
    scene.spec(suspend=False).settle()
    scene.up().settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (2, 0)


def test_a_forged_checkpoint_is_replaced_by_the_next_that_is_reported() -> None:
    scene = Scene().running().with_status(checkpoint=CheckpointStatus(step=2**53), budget=Budget(checkpoint_step=2**53))
    scene.says(0, progress=make_progress(7, checkpoint_step=5)).settle()
    assert scene.status.checkpoint == CheckpointStatus(step=5)
    for _ in range(3):
        scene.fails(0).fails(1).settle()
        scene.later(60).settle()
        scene.running()
    scene.fails(0).fails(1).settle()
    assert scene.condition("Failed").reason == "RestartBudgetExceeded", (
        "a forged budget is worth no more than a true one"
    )


def test_a_forged_stop_costs_nothing_and_is_over_with_its_round() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 0}).running()
    scene.with_status(rendezvous=scene.rendezvous.model_copy(update={"stopping": True})).settle()
    scene.all_say(state="preempted").settle()
    assert (scene.rendezvous.round, scene.rendezvous.stopping, scene.budget.unpaid) == (2, None, 0)
    for forged in (Rendezvous(round=2, stopping=True), scene.rendezvous.model_copy(update={"stopping": False})):
        scene.with_status(rendezvous=forged).settle()
        assert scene.rendezvous.stopping is None


# Anything at all


def condition(**fields: Any) -> Condition:
    """By Python's names: the signature of the model itself has the aliases."""
    return Condition(**fields)


TIMES = st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
COUNTS = st.sampled_from((0, 1, 3, 10**6, 2**53 - 1, 2**53))
FORGED = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(("Pending", "Starting", "Running", "Recovering", "Suspended", "Succeeded", "Failed")),
        "observed_generation": COUNTS,
        "ready_workers": COUNTS,
        "restarts": COUNTS,
        "start_time": TIMES,
        "running_time": TIMES,
        "completion_time": TIMES,
        "image": st.none() | st.text(max_size=20),
        "selector": st.none() | st.just("a=b"),
        "checkpoint": st.none() | COUNTS.map(lambda step: CheckpointStatus(step=step)),
        "budget": st.none()
        | st.builds(
            Budget,
            spent=COUNTS,
            unpaid=COUNTS,
            checkpoint_step=COUNTS,
            highest_step=COUNTS,
            falls=COUNTS,
            paid_pods=st.lists(st.sampled_from(("pod-0", "pod-1", "x")), max_size=3).map(tuple),
        ),
        "rendezvous": st.none()
        | st.builds(
            Rendezvous,
            round=st.sampled_from((0, 1, 2, 5, MAX_ROUND - 1, MAX_ROUND, MAX_ROUND + 1, 10**9)),
            members=st.lists(
                st.builds(member, st.integers(0, 3), st.sampled_from(("pod-0", "pod-1", "pod-2", "x"))), max_size=4
            ).map(tuple),
            opened_at=TIMES,
            stopping=st.sampled_from((None, True, False)),
        ),
        "conditions": st.lists(
            st.builds(
                condition,
                type=st.sampled_from(("Accepted", "Running", "Blocked", "Stalled", "Suspended", "Complete", "Failed")),
                status=st.sampled_from(("True", "False", "Unknown")),
                reason=st.sampled_from(("Stopping", "Accepted", "Resizing", "NotFinished")),
                message=st.text(max_size=5),
                last_transition_time=TIMES.filter(bool),
            ),
            max_size=7,
            unique_by=lambda one: one.type,
        ).map(tuple),
    },
)


@tries(400)
@given(forged=FORGED, least=st.sampled_from((None, 1)), suspend=st.booleans(), up=st.booleans())
def test_whatever_a_status_says_the_job_comes_to_an_end(
    forged: dict[str, Any], least: int | None, suspend: bool, up: bool
) -> None:
    """From any status at all: it comes to rest, suspends, resumes, runs and succeeds; or it had, or has, failed."""
    scene = Scene(minWorkers=least, stopGraceSeconds=5).running() if up else Scene(minWorkers=least).accepted()
    scene.with_status(**forged)
    if suspend:
        scene.spec(suspend=True).settle()
        scene.later(60, heard=False).settle()
        assert scene.status.phase in ("Suspended", "Succeeded", "Failed")
        scene.pods, scene.launchers = {}, {}
        scene.spec(suspend=False)
    scene.settle()
    for _ in range(4):
        if scene.status.phase in ("Succeeded", "Failed"):
            break
        for uid in [pod.uid for pod in scene.pods.values() if pod.dead]:
            del scene.pods[uid]
        missing = set(range(2)) - {pod.index for pod in scene.pods.values()}
        scene.up(*missing) if missing else scene.later(61)
        scene.settle()
        if scene.members:
            scene.all_say(state="running").settle()
    if scene.status.phase not in ("Succeeded", "Failed"):
        assert scene.members, scene.status
        assert scene.status.phase == "Running"
        scene.all_say(state="succeeded").settle()
        assert scene.status.phase == "Succeeded"
    assert scene.status.completion_time is not None
    kind: Any = "Complete" if scene.status.phase == "Succeeded" else "Failed"
    assert conditions.is_true(scene.status, kind)


@tries(300)
@given(forged=FORGED)
def test_what_was_healed_needs_no_healing(forged: dict[str, Any]) -> None:
    scene = Scene().running().with_status(**forged)
    once = as_served(healed(scene.job, scene.status, scene.observed, NOW))
    assert healed(scene.job, once, scene.observed, NOW) == once
    assert isinstance(healed(scene.job, TrainingJobStatus(), make_observed(), NOW), TrainingJobStatus)
