"""Round after round that fails without a newer checkpoint: each waits longer than the one before, and says so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.api.status import Budget
from edgecloud_operator.core.backoff import pause, pause_after
from edgecloud_operator.core.measures import round_cause
from tests.unit.core.build import Scene, make_progress

MANY: dict[str, Any] = {"restartPolicy": {"maxRestarts": 50}}


def crashes(scene: Scene, times: int) -> Scene:
    """The last one just now; before each of the others the round that comes after the pause has begun."""
    for number in range(times):
        scene.running().later(5).fails(1, signal="SIGKILL").settle()
        if number < times - 1:
            scene.later(60).settle()
    return scene


def open_after(scene: Scene, seconds: float) -> bool:
    """Whether the next round has been opened when so much more time has passed."""
    scene.later(seconds).settle()
    return bool(scene.rendezvous.members)


def test_the_pauses_grow() -> None:
    lengths = [pause_after(Budget(spent=number)) for number in range(12)]
    assert lengths == [0, 0, 0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pause_after(Budget(spent=2, unpaid=2)) == 2
    assert pause_after(Budget(spent=2**53)) == 60


@pytest.mark.parametrize(("times", "length"), [(1, 0), (3, 1), (5, 4), (10, 60)])
def test_the_next_round_waits(times: int, length: float) -> None:
    scene = crashes(Scene(**MANY), times)
    if not length:
        assert scene.rendezvous.members and scene.status.phase == "Recovering"
        return
    plan = scene.settle()
    assert plan.requeue_after is not None and plan.requeue_after <= length
    assert (scene.status.phase, scene.members, plan.directives["pod-0"].action) == ("Recovering", (), "wait")
    until = (scene.now + timedelta(seconds=length)).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = scene.condition("Running")
    assert condition.reason == "RoundClosed"
    assert condition.message == (
        f"the next round is opened at {until}, after {times} failures without a newer checkpoint: worker 1: Killed"
    )
    assert not open_after(scene, length - 0.5)
    waiting = scene.status
    assert open_after(scene, 0.5)
    assert round_cause(waiting, scene.status) == "Killed", "which is still told from the condition"


def test_a_pause_that_is_over_is_not_spoken_of_while_a_worker_is_missing() -> None:
    scene = crashes(Scene(**MANY), 5)
    scene.vanishes(1).settle()
    assert "the next round is opened at" in scene.condition("Running").message
    closed_at = scene.condition("Running").last_transition_time
    assert not open_after(scene, 120)
    condition = scene.condition("Running")
    assert (condition.reason, condition.message) == ("RoundClosed", "worker 1: Killed")
    assert condition.last_transition_time == closed_at
    waiting = scene.status
    assert open_after(scene.up(1), 0)
    assert round_cause(waiting, scene.status) == "Killed"


@pytest.mark.parametrize(("times", "said"), [(4, []), (5, ["4 s, after 5"]), (10, ["60 s, after 10"])])
def test_a_long_pause_is_told_once(times: int, said: list[str]) -> None:
    """In a local run nothing else would tell."""
    scene = crashes(Scene(**MANY), times - 1).later(60)
    scene.settle()
    scene.running().later(5).fails(1, signal="SIGKILL")
    told: list[str] = []
    for _ in range(5):
        told += [event.message for event in scene.act().events if event.reason == "RoundDelayed"]
        scene.later(0.5)
    assert told == [f"the next round is opened in {words} failures without a newer checkpoint" for words in said]


def test_a_newer_checkpoint_makes_an_end_of_it() -> None:
    scene = crashes(Scene(**MANY), 6)
    assert open_after(scene, 60)
    scene.running().all_say(progress=make_progress(7, checkpoint_step=5)).settle()
    assert crashes(scene, 1).rendezvous.members


def test_a_program_that_leaves_at_once_by_itself_waits_as_well() -> None:
    scene = Scene(**MANY).running()
    for _ in range(4):
        assert scene.members or open_after(scene, 8)
        scene.running().all_say(state="preempted").settle()
    assert scene.status.last_failure is None
    assert not scene.members and not open_after(scene, 1)
    assert open_after(scene, 1)
    scene.running().later(30).all_say(state="preempted").settle()
    assert scene.members, "it had done something for longer than the pause"


def test_another_operator_waits_no_longer_and_no_less() -> None:
    scene = crashes(Scene(**MANY), 6).later(3)
    scene.listening_since = scene.now
    assert not open_after(scene, 4.5)
    assert open_after(scene, 0.5)


PAUSED = crashes(Scene(**MANY), 2)


@given(st.integers(-(10**9), 10**9) | st.integers(-70, 70), st.integers(0, 60))
def test_no_clock_makes_it_wait_for_longer_than_the_pause(jump: int, spent: int) -> None:
    scene = PAUSED.with_status(budget=Budget(spent=spent))
    left = pause(scene.job, scene.status, scene.now + timedelta(seconds=jump))
    assert 0 <= left <= pause_after(Budget(spent=spent))
    assert left == 0 or jump >= 0


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_worker_whose_clock_is_wrong_waits_all_the_same(ahead: float) -> None:
    scene = crashes(Scene(**MANY), 5)
    assert open_after(scene, 60)
    scene.running().fails(1, signal="SIGKILL", at=scene.now.timestamp() + ahead).settle()
    assert not scene.members and not open_after(scene, 7)
    assert open_after(scene, 1)


def test_a_stop_and_a_resumption_wait_for_nothing() -> None:
    scene = crashes(Scene(**MANY), 8).later(2).spec(suspend=True)
    scene.settle()
    assert scene.status.phase == "Suspended"
    scene.later(2).spec(suspend=False).up(0, 1).settle()
    assert scene.members


def test_an_edit_of_the_spec_waits_for_nothing() -> None:
    scene = crashes(Scene(workers=2, **MANY), 8).later(2).spec(workers=1)
    scene.settle()
    assert scene.members == (0,)


def test_deadlines_count() -> None:
    scene = crashes(Scene(activeDeadlineSeconds=600, **MANY), 10)
    assert not open_after(scene, 30)
    scene.later(600).settle()
    assert scene.condition("Failed").reason == "ActiveDeadlineExceeded"
