"""Pods that do not come up, and Pods that do not go: what the Blocked condition says of them, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from edgecloud_operator.core.health import REMEDIES
from edgecloud_operator.core.stuck import UNHEARD_SECONDS, WAITING_SECONDS
from tests.unit.core.build import MEASURED, NOW, Scene

RWO = {"claimName": "models", "accessMode": "ReadWriteOnce"}


def blocked(scene: Scene) -> tuple[str, str]:
    """Reason and message; that the reason's remedy is in it."""
    condition = scene.condition("Blocked")
    if condition.status == "False":
        return "", ""
    assert condition.message.endswith(REMEDIES[condition.reason])
    return condition.reason, condition.message


# On its way out


@pytest.mark.parametrize("phase", ["Running", "Pending"])
def test_a_pod_whose_node_does_not_confirm_its_deletion(phase: str) -> None:
    """What a lost node leaves: the Pod is deleted after some minutes, and stays until somebody sees to the node."""
    scene = Scene().running().later(60, heard=False)
    scene.says(0, state="running")
    scene.changes(1, phase=phase, terminating=True, leaves_by=scene.now + timedelta(seconds=45))
    scene.settle()
    assert blocked(scene)[0] == ("CoordinatorUnreachable" if phase == "Running" else ""), "it may yet go"
    scene.later(45 + UNHEARD_SECONDS - 1, heard=False).says(0).settle()
    assert blocked(scene)[0] != "WorkerSilent"
    assert scene.decide().requeue_after == 1
    scene.later(1, heard=False).says(0).settle()
    reason, message = blocked(scene)
    assert reason == "WorkerSilent"
    assert message.startswith(
        "digits-worker-1 is being deleted, was to be gone by 2026-11-24T12:01:45Z, and its node node-1 does not confirm"
        " that it is; delete the node"
    )
    assert "--force" in message and "NetworkPolicy" not in message
    assert scene.later(3600, heard=False).says(0).settle().status is None, "the same for as long as it lasts"
    assert blocked(scene) == (reason, message)


@pytest.mark.parametrize("change", [{"owned": False}, {"leaves_by": None}])
def test_only_what_is_overdue_is_said_to_be(change: dict[str, Any]) -> None:
    scene = Scene(workers=1).accepted().up(0)
    scene.changes(0, **({"phase": "Pending", "terminating": True, "leaves_by": scene.now} | change))
    scene.later(3600, heard=False).settle()
    assert blocked(scene)[0] != "WorkerSilent"


@pytest.mark.parametrize("change", [{"phase": "Failed"}, {"phase": "Pending", "running_since": None, "node": ""}])
def test_a_pod_that_its_finalizers_hold(change: dict[str, Any]) -> None:
    """It keeps its name, and no other one is made: a queue's controller that is gone leaves such Pods."""
    scene = Scene(workers=1).accepted().up(0)
    scene.changes(0, terminating=True, leaves_by=scene.now, finalizers=("kueue.x-k8s.io/managed",), **change)
    scene.launchers.clear()
    scene.later(UNHEARD_SECONDS - 1).settle()
    assert (blocked(scene), scene.decide().requeue_after) == (("", ""), 1)
    scene.later(1).settle()
    reason, message = blocked(scene)
    assert reason == "NameTaken"
    assert "its finalizers hold it (kueue.x-k8s.io/managed); remove them (kubectl edit pod digits-worker-0)" in message


def test_a_dead_pod_whose_node_does_not_confirm_its_deletion() -> None:
    scene = Scene(workers=1).accepted().up(0).changes(0, phase="Failed", terminating=True, leaves_by=NOW)
    scene.later(UNHEARD_SECONDS, heard=False).settle()
    assert blocked(scene)[0] == "WorkerSilent"


def test_a_launcher_that_is_heard_is_not_lost() -> None:
    scene = Scene(workers=1).running().changes(0, terminating=True).later(60)
    scene.changes(0, leaves_by=scene.now - timedelta(seconds=50)).settle()
    assert blocked(scene) == ("", "")


def test_so_it_is_for_a_pod_that_measures() -> None:
    scene = Scene(**MEASURED).trained().measurer(terminating=True)
    scene.measurer(uid="measurer-1", leaves_by=scene.now)
    scene.later(UNHEARD_SECONDS).settle()
    reason, message = blocked(scene)
    assert reason == "WorkerSilent" and "its node pc-1 does not confirm" in message


# On its way up


def test_a_pod_that_waits_on_its_node_for_long() -> None:
    """It may be a large image: that is said, with the moment since when, and nothing fails."""
    scene = Scene(startDeadlineSeconds=100_000).accepted().up()
    scene.changes(1, phase="Pending", running_since=None, waits_since=scene.now)
    scene.launchers.pop("pod-1")
    scene.later(WAITING_SECONDS - 1).settle()
    assert blocked(scene) == ("", "")
    assert scene.decide().requeue_after == 1
    plan = scene.later(1).act()
    message = (
        "digits-worker-1 has waited on node-1 since 2026-11-24T12:00:00Z, and is not started there yet; "
        + REMEDIES["WaitingForWorkers"]
    )
    assert blocked(scene) == ("WaitingForWorkers", message)
    assert [(event.type, event.message) for event in plan.events] == [("Normal", message)], "no warning: nothing failed"
    for _ in range(5):
        assert scene.later(600).settle().status is None, "nothing new to write"
    assert (scene.status.phase, scene.status.restarts) == ("Pending", 0)
    plan = scene.changes(1, blocked=("ErrImagePull", "ErrImagePull: timed out")).act()
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", "ErrImagePull")]
    scene.changes(1, phase="Running", running_since=scene.now, waits_since=None, blocked=None).settle()
    assert blocked(scene) == ("", "")


@pytest.mark.parametrize(
    ("spec", "ran", "reason"),
    [
        ({"storage": RWO}, True, "VolumeNotDetached"),
        ({"storage": RWO}, False, "WaitingForWorkers"),
        ({"storage": {"claimName": "models"}}, True, "WaitingForWorkers"),
        ({}, True, "WaitingForWorkers"),
    ],
)
def test_a_claim_that_another_node_may_hold(spec: dict[str, Any], ran: bool, reason: str) -> None:
    scene = Scene(workers=1, **spec)
    scene = scene.running().vanishes(0).later(60) if ran else scene.accepted()
    scene.settle()
    scene.up(0).launchers.clear()
    scene.changes(0, phase="Pending", running_since=None, waits_since=scene.now, node="node-7")
    scene.later(WAITING_SECONDS).settle()
    found, message = blocked(scene)
    assert found == reason
    assert ("its claim models may still be attached" in message) == (reason == "VolumeNotDetached")
