"""Pods that come to nothing beside the round: sent away by their kubelets, or newcomers that cannot start."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud_operator.core.failures import MAX_UNPAID
from tests.unit.core.build import EVICTED, NOW, SHUTDOWN, Scene, make_failure

# Pods that their kubelet has leave: nobody has deleted them


def evicted(scene: Scene, *, before: bool = False) -> Scene:
    """Worker 1 is in a round, or has not been in any; its kubelet evicts it, and it leaves in time."""
    scene.dies(1, 143, **({} if before else {"round": scene.rendezvous.round, "outcome": "preempted"}))
    scene.changes(1, why=EVICTED).launchers.pop(scene.uid(1))
    return scene


def replaced(scene: Scene) -> int:
    """Seconds until worker 1 is replaced."""
    for seconds in range(1000):
        if (plan := scene.settle()).delete:
            assert [target.uid for target in plan.delete] == [scene.uid(1)]
            scene.vanishes(1)
            assert len(scene.settle().create) == 1
            return seconds
        scene.later(1)
    raise AssertionError("it is never replaced")


def test_a_worker_that_is_evicted_again_and_again_is_replaced_unpaid_and_not_for_ever() -> None:
    rules = [{"exitCodes": [143], "action": "Fail"}]  # for the program's own end; this is none
    scene = Scene(restartPolicy={"maxRestarts": 1, "exitCodeRules": rules}).running()
    for number in range(1, MAX_UNPAID + 1):
        evicted(scene.later(100)).says(0, state="preempted").settle()
        assert (scene.status.restarts, scene.budget.unpaid, scene.members) == (0, number, ())
        assert scene.status.last_failure is not None
        assert (scene.status.last_failure.worker, scene.status.last_failure.exit_code) == (1, 143)
        assert EVICTED in scene.status.last_failure.message
        assert replaced(scene) == 10
        scene.up(1).settle()
        scene.running()
    evicted(scene).says(0, state="preempted").settle()
    assert scene.status.restarts == 1
    replaced(scene)
    scene.up(1).settle()
    evicted(scene.running()).says(0, state="preempted").settle()
    assert scene.condition("Failed").reason == "RestartBudgetExceeded"
    assert EVICTED in scene.condition("Failed").message


def test_an_evicted_worker_whose_end_is_seen_after_its_round_has_stopped_is_unpaid_as_well() -> None:
    scene = Scene(workers=3, minWorkers=2).running().says(1, draining=True)
    scene.settle()
    scene.all_say(state="preempted").settle()
    assert (scene.members, scene.budget.unpaid) == ((), 0)
    evicted(scene).settle()
    assert (scene.status.restarts, scene.budget.unpaid, replaced(scene)) == (0, 1, 10)


@pytest.mark.parametrize("why", [SHUTDOWN, "NodeShutdown: Pod was rejected as the node is shutting down."])
def test_nodes_that_are_shut_down_again_and_again_cost_nothing(why: str) -> None:
    """Their kubelets end the Pods in good order and delete none."""
    scene = Scene(workers=2, restartPolicy={"maxRestarts": 0}).running()
    for _ in range(MAX_UNPAID + 3):
        evicted(scene.later(100)).changes(1, why=why).says(0, state="preempted").settle()
        assert replaced(scene) == 0
        scene.up(1).settle()
        scene.running()
    assert (scene.status.restarts, scene.budget.unpaid, scene.status.last_failure) == (0, 0, None)


def test_a_worker_that_is_evicted_before_any_round_is_tried_again_after_longer_and_longer() -> None:
    scene = Scene(workers=2, restartPolicy={"maxRestarts": 0}).accepted().up()
    scene.launchers.clear()
    waits = []
    while scene.status.phase != "Failed":
        scene.launchers.clear()
        scene.dies(1, 143).changes(1, why=EVICTED).settle()
        if scene.status.phase != "Failed":
            waits.append(replaced(scene))
            scene.up(1)
    assert waits == [10, 20, 40, 80, 160]
    scene = trains_without(restartPolicy={"maxRestarts": 0})
    for wait in (10, 20, 40, 80, 160, 300, 300):
        scene.up(2).dies(2, 143).changes(2, why=EVICTED).launchers.pop(scene.uid(2))
        assert came_to_nothing(scene) == wait
    assert (scene.status.phase, scene.budget.unpaid, scene.members) == ("Running", 0, (0, 1))


# Newcomers that fail while a round runs


def trains_without(**spec: Any) -> Scene:
    """An elastic job that trains with two of three."""
    scene = Scene(**({"workers": 3, "minWorkers": 2} | spec)).accepted().up(0, 1).later(15)
    scene.settle()
    return scene.running()


def came_to_nothing(scene: Scene) -> int:
    """Seconds until the newcomer, worker 2, is replaced, while the others train on."""
    before = scene.status
    assert scene.settle().delete == (), "it keeps its name for a while"
    assert scene.status.last_failure is not None and scene.status.last_failure.worker == 2
    assert scene.status.last_failure.at == scene.now
    for seconds in range(1000):
        plan = scene.settle()
        assert (scene.status.phase, scene.rendezvous) == ("Running", before.rendezvous)
        assert scene.status.restarts == before.restarts
        if plan.delete:
            assert [target.uid for target in plan.delete] == [scene.uid(2)]
            scene.vanishes(2)
            assert len(scene.settle().create) == 1
            return seconds
        assert plan.requeue_after is not None
        scene.later(1)
    raise AssertionError("it is never replaced")


STRANGE = {"failure": make_failure(None, reason="StartFailed", message="exec format error", at=NOW.timestamp())}


@pytest.mark.parametrize(
    ("policy", "code", "end"),
    [
        pytest.param({}, 128, STRANGE, id="a node of another architecture"),
        pytest.param({}, 2, {}, id="a bad configuration"),
        pytest.param({"maxRestarts": 0}, 137, {}, id="killed, and no restart left"),
        pytest.param({"exitCodeRules": [{"exitCodes": [9], "action": "Fail"}]}, 9, {}, id="a rule"),
    ],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_newcomer_that_fails_does_not_end_a_job_that_trains(
    policy: dict[str, Any], code: int, end: dict[str, Any], scaled: bool
) -> None:
    if scaled:
        scene = Scene(workers=2, restartPolicy=policy).running().spec(workers=3)
    else:
        scene = trains_without(restartPolicy=policy)
    for wait in (10, 20, 40):
        scene.later(100).up(2).launchers.pop(scene.uid(2))
        assert came_to_nothing(scene.dies(2, code, **end)) == wait
    assert (scene.budget.spent, scene.budget.unpaid) == (0, 0)
    scene.up(2).later(60).settle()
    scene.all_say(state="preempted").settle()
    assert (scene.members, scene.budget.rejected) == ((0, 1, 2), 0)


def test_a_newcomer_that_fails_ends_no_job_that_is_between_two_rounds() -> None:
    scene = trains_without().fails(1, signal="SIGKILL")
    scene.settle()
    assert scene.members == ()
    scene.up(2).launchers.pop(scene.uid(2))
    scene.dies(2, 128, **STRANGE).settle()
    assert scene.status.phase == "Recovering"
    scene.later(15).settle()
    assert scene.members == (0, 1)


def test_the_last_restart_of_a_member_does_not_put_its_replacement_off() -> None:
    scene = trains_without(restartPolicy={"maxRestarts": 1})
    scene.up(2).launchers.pop(scene.uid(2))
    scene.dies(2, 128, **STRANGE).settle()
    scene.dies(1, 137).settle()
    assert [target.uid for target in scene.settle().delete] == ["pod-1"]
