"""The last stage of a job that is measured on a node of its own: what is decided, and in what order it is written."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud.api.status import MeasuringStatus
from edgecloud_operator.core import conditions
from edgecloud_operator.core.builders import EXTRA_GRACE_SECONDS, Settings
from edgecloud_operator.core.health import MEASURING_REMEDIES, REMEDIES, STALLED_SECONDS
from edgecloud_operator.core.measures import census
from edgecloud_operator.core.measuring import MAX_FAILURES, PAUSE_SECONDS
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.reconcile import reconcile
from edgecloud_operator.core.transitions import transitions
from tests.unit.core.build import MEASURED, NOW, Scene, make_export, make_job, make_message, make_progress

FORGED = make_message(make_export("onnx", sha256=64 * "0"), make_export("onnx-int8"))
PUBLISHED = (make_export("onnx"), make_export("onnx-int8"), make_export("pt2"))


def made(plan: Plan) -> list[str]:
    return [f"{child['kind']}/{child['metadata']['name']}" for child in plan.create]


def gone(plan: Plan) -> list[str]:
    return [target.uid for target in plan.delete]


def a_scene(**spec: Any) -> Scene:
    return Scene(**MEASURED | spec)


def complete(**spec: Any) -> Scene:
    """All members have done their part, and worker 0 has published what it converted."""
    scene = a_scene(**spec).running().with_status(exports=PUBLISHED)
    return scene.trained()


def measuring(scene: Scene) -> MeasuringStatus:
    assert scene.status.measuring is not None
    return scene.status.measuring


def nodes(scene: Scene) -> list[str | None]:
    return [one.get("node") for one in scene.status.exports or ()]


# It begins


def test_the_training_is_complete_in_status_before_anybody_is_told_to_leave() -> None:
    scene = a_scene().running().all_say(state="succeeded")
    plan = scene.act()
    assert plan.status_first and plan.status is not None
    assert (plan.create, plan.delete) == ((), ())
    assert all(told.action == "run" for told in plan.directives.values())
    assert measuring(scene) == MeasuringStatus(since=NOW)
    plan = scene.decide()
    assert {(told.action, told.exit_code) for told in plan.directives.values()} == {("exit", 0)}
    assert (made(plan), gone(plan)) == (["Pod/digits-measure"], [])


def test_the_job_is_shown_as_measured() -> None:
    scene = complete()
    running = scene.condition("Running")
    assert (scene.status.phase, running.status, running.reason) == ("Running", "True", "Measuring")
    assert running.message == "the training is complete; its converted models are measured on a node with edge=true"
    assert scene.status.summary is not None and scene.status.summary.reason == "Measuring"
    assert not conditions.is_true(scene.status, "Complete")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({}, "on any node"),
        ({"nodeSelector": {"b": "2", "a": "1"}}, "on a node with a=1,b=2"),
        ({"nodeSelector": {"a" * 300: "b" * 60}}, "…"),
    ],
)
def test_the_message_says_where(where: dict[str, Any], words: str) -> None:
    message = complete(export={"measureOn": where}).condition("Running").message
    assert message.endswith(words) and len(message) < 400


@pytest.mark.parametrize("spec", [{"export": {}}, {"export": None}])
def test_without_measure_on_the_job_is_done_with_its_training(spec: dict[str, Any]) -> None:
    scene = a_scene(**spec).running().trained()
    assert (scene.status.phase, scene.status.measuring) == ("Succeeded", None)


def test_no_worker_is_made_any_more_and_those_that_stay_are_sent_home() -> None:
    scene = complete().measurer()
    scene.settle()
    scene.dies(0, 0, round=1, outcome="succeeded").vanishes(1)
    assert (made(scene.settle()), gone(scene.settle())) == ([], [])
    scene = complete(stopGraceSeconds=20).measurer()
    scene.dies(0, 0).changes(0, phase="Running", over=True)
    plan = scene.settle()
    assert (gone(plan), plan.requeue_after) == ([], EXTRA_GRACE_SECONDS)
    assert gone(scene.later(EXTRA_GRACE_SECONDS).settle()) == ["pod-1"], "it was told to leave, and has not"
    assert gone(scene.later(20).settle()) == ["pod-0", "pod-1"], "the one with a sidecar has had its grace too"
    assert scene.status.phase == "Running"


def test_scaling_and_lost_services_do_not_matter_any_more() -> None:
    scene = complete().measurer().spec(workers=4)
    scene.service = None
    assert made(scene.settle()) == []
    assert scene.status.workers is not None and scene.status.workers.desired == 4
    assert (scene.condition("Blocked").reason, scene.rendezvous.round) == ("NotBlocked", 1)


def test_nothing_stalls_that_is_measured() -> None:
    scene = a_scene().running().all_say(progress=make_progress(5)).trained().measurer()
    scene.settle()
    scene.later(2 * STALLED_SECONDS).settle()
    assert not conditions.is_true(scene.status, "Stalled")


def test_its_workers_are_wanted_no_more() -> None:
    found = census([complete().job, Scene().running().job])
    assert (found.jobs["Running"], found.desired) == (2, 2)


# It ends


def test_measured_models_take_their_place_and_the_job_has_succeeded() -> None:
    scene = complete().measurer()
    plan = scene.settle()
    assert (made(plan), gone(plan), measuring(scene).pod_uid) == ([], [], "measurer-1")
    scene.measurer_ends(0, make_message(make_export("onnx", accuracy=0.97), make_export("onnx-int8")))
    plan = scene.act()
    assert plan.status_first
    assert scene.status.phase == "Succeeded"
    assert scene.condition("Complete").reason == "AllWorkersSucceeded"
    assert nodes(scene) == ["pc-1", "pc-1", None]
    assert (scene.status.exports or ())[0]["accuracy"] == 0.97
    plan = scene.settle()
    assert (made(plan), gone(plan)) == ([], []), "the finished Pod stays, for its log"


def test_a_pod_that_ended_before_it_was_seen_counts() -> None:
    """The operator died between the create and the write that names the Pod."""
    scene = complete().measurer().operator_restarts().measurer_ends(0, make_message())
    scene.settle()
    assert (scene.status.phase, nodes(scene)) == ("Succeeded", ["pc-1", "pc-1", None])


def test_a_gate_that_fails_on_the_node_fails_the_job_with_its_figures() -> None:
    bad = make_export("onnx-int8", gate="failed", accuracy=0.8)
    scene = complete().measurer().measurer_ends(3, make_message(make_export("onnx"), bad))
    scene.settle()
    assert (scene.status.phase, scene.condition("Failed").reason) == ("Failed", "ExportFailed")
    assert "onnx-int8 (accuracy 80.00%), measured on pc-1" in scene.condition("Failed").message
    assert [one["gate"] for one in scene.status.exports or ()] == ["passed", "failed", "passed"]
    assert nodes(scene) == ["pc-1", "pc-1", None]


def test_what_cannot_be_measured_fails_the_job_at_once() -> None:
    scene = complete().measurer().measurer_ends(2, '{"error": "model.onnx: no ONNX file"}')
    scene.settle()
    failed = scene.condition("Failed")
    assert (scene.status.phase, failed.reason, failed.message) == ("Failed", "ExportFailed", "model.onnx: no ONNX file")
    assert scene.status.exports == PUBLISHED


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        pytest.param(75, '{"error": "no route"}', "no route (exit code 75)", id="may pass"),
        pytest.param(137, "", "killed by SIGKILL", id="killed"),
        pytest.param(None, "", "the Pod was lost", id="evicted"),
        pytest.param(0, "", "termination message was refused", id="mute"),
        pytest.param(0, FORGED, "another onnx", id="forged"),
    ],
)
def test_what_may_pass_is_measured_anew_after_a_pause(code: int | None, message: str, words: str) -> None:
    scene = complete().measurer()
    scene.settle()
    scene.measurer_ends(code, message)
    plan = scene.act()
    assert plan.status_first and (plan.create, plan.delete) == ((), ())
    assert (measuring(scene).failures, scene.status.exports) == (1, PUBLISHED)
    assert words in measuring(scene).message and words in scene.condition("Running").message
    assert (scene.status.restarts, scene.status.last_failure) == (0, None), "nobody pays for it"
    plan = scene.settle()
    assert (made(plan), gone(plan)) == ([], ["measurer-1"])
    scene.measurer(uid="measurer-1", terminating=True)
    assert gone(scene.settle()) == []
    del scene.measurers["measurer-1"]
    plan = scene.settle()
    assert (made(plan), plan.requeue_after) == ([], PAUSE_SECONDS)
    assert made(scene.later(PAUSE_SECONDS).settle()) == ["Pod/digits-measure"]
    scene.measurer(uid="measurer-2").measurer_ends(0, make_message()).settle()
    assert scene.status.phase == "Succeeded"


def fails(scene: Scene, number: int) -> None:
    scene.measurer(uid=f"measurer-{number}").measurer_ends(75, '{"error": "no route"}').settle()


def waits(scene: Scene) -> float:
    """Seconds until another Pod is made."""
    began = scene.now
    while not made(plan := scene.settle()):
        assert plan.requeue_after is not None
        scene.later(plan.requeue_after)
    assert made(plan) == ["Pod/digits-measure"]
    return (scene.now - began).total_seconds()


def test_five_in_a_row_are_enough_and_each_waits_longer() -> None:
    scene, pauses = complete(), []
    for number in range(1, MAX_FAILURES):
        fails(scene, number)
        assert scene.status.phase == "Running"
        scene.measurers = {}
        pauses.append(waits(scene))
    assert pauses == [5.0, 10.0, 20.0, 40.0]
    fails(scene, MAX_FAILURES)
    failed = scene.condition("Failed")
    assert (scene.status.phase, failed.reason) == ("Failed", "ExportFailed")
    assert failed.message == (
        "the converted models could not be measured on a node with edge=true: 5 Pods in a row came to nothing, the last"
        " one: no route (exit code 75)"
    )
    assert gone(scene.settle()) == [], "the last one stays, for its log"


def test_a_pod_that_vanished_is_counted_once_though_nobody_saw_it_go() -> None:
    scene = complete().measurer()
    scene.settle()
    scene.measurers = {}
    scene.operator_restarts()
    plan = scene.act()
    assert plan.status_first and measuring(scene).failures == 1
    assert measuring(scene).message == "the Pod is gone"
    scene.settle()
    assert measuring(scene).failures == 1


def test_an_end_is_counted_once_whoever_sees_it() -> None:
    scene = complete().measurer().measurer_ends(137)
    for _ in range(3):
        scene.operator_restarts().settle()
    assert measuring(scene).failures == 1
    scene.measurers = {}
    scene.operator_restarts().settle()
    assert measuring(scene).failures == 1


@pytest.mark.parametrize("change", [{"terminating": True}, {"phase": "Unknown"}, {"owned": False}])
def test_a_name_that_is_taken_is_waited_for(change: dict[str, Any]) -> None:
    scene = complete().measurer(**change)
    plan = scene.settle()
    assert (made(plan), gone(plan)) == ([], [])


# Somebody else's hands


def test_a_stranger_of_that_name_is_shown_and_left_alone() -> None:
    scene = complete().measurer(owned=False).measurer_ends(0, make_message())
    assert gone(scene.settle()) == []
    blocked = scene.condition("Blocked")
    assert (blocked.status, blocked.reason) == ("True", "NameTaken")
    assert "a Pod digits-measure that is not this job's exists; delete it (kubectl delete pod digits-measure)" in (
        blocked.message
    )
    scene.measurers = {}
    assert made(scene.settle()) == ["Pod/digits-measure"]
    assert scene.condition("Blocked").status == "False"


@pytest.mark.parametrize("reason", ["Unschedulable", "ErrImagePull", "CreateContainerConfigError", "VolumeNotBound"])
def test_what_keeps_the_pod_from_coming_up_is_shown_with_a_remedy_of_its_own(reason: Any) -> None:
    scene = complete().measurer(phase="Pending", running_since=None, blocked=(reason, "in the cluster's words"))
    scene.settle()
    blocked = scene.condition("Blocked")
    assert (blocked.status, blocked.reason) == ("True", reason)
    assert blocked.message == f"digits-measure: in the cluster's words; {MEASURING_REMEDIES[reason]}"
    scene.measurer(uid="measurer-1", phase="Running", blocked=None).settle()
    assert scene.condition("Blocked").status == "False"


def test_a_refused_pod_is_shown() -> None:
    scene = complete()
    scene.refused = ("QuotaExceeded", "pods: used 4 of 4")
    plan = scene.settle()
    assert scene.condition("Blocked").message == f"pods: used 4 of 4; {MEASURING_REMEDIES['QuotaExceeded']}"
    assert made(plan) == ["Pod/digits-measure"]


def test_of_workers_that_leave_nothing_blocks() -> None:
    """One on a node that is lost, for one."""
    scene = complete().measurer().changes(1, phase="Pending", blocked=("Unschedulable", "no node"))
    scene.launchers.pop("pod-0")
    scene.later(100).settle()
    assert scene.condition("Blocked").reason == "NotBlocked"


def test_a_measuring_pod_has_no_launcher_that_could_be_missed() -> None:
    scene = complete().measurer()
    scene.settle()
    scene.later(1000).settle()
    assert scene.condition("Blocked").reason == "NotBlocked"


def test_one_that_measures_what_is_trained_again_is_taken_away() -> None:
    scene = complete().measurer()
    scene.settle()
    scene.with_status(measuring=None)
    assert gone(scene.says(0, state="running").settle()) == ["measurer-1"]


# Suspended, late, deleted


def test_suspended_the_pod_goes_and_resumed_another_one_measures() -> None:
    scene = complete()
    fails(scene, 1)
    scene.measurers = {}
    scene.later(60).measurer(uid="measurer-2").settle()
    plan = scene.spec(suspend=True).act()
    assert plan.status_first and scene.status.phase == "Suspended"
    plan = scene.settle()
    assert (made(plan), sorted(gone(plan))) == ([], ["measurer-2", "pod-0", "pod-1"])
    assert {told.exit_code for told in plan.directives.values()} == {0}, "they have done their part"
    assert "measured when the job is resumed" in scene.condition("Suspended").message
    assert measuring(scene).failures == 0
    scene.measurer(uid="measurer-2", terminating=True).measurer_ends(143)
    scene.pods, scene.launchers = {}, {}
    plan = scene.later(30).spec(suspend=False).act()
    assert plan.status_first
    assert (scene.status.phase, scene.condition("Running").reason) == ("Running", "Measuring")
    assert scene.status.start_time == scene.now
    assert made(scene.settle()) == [], "its name is still taken"
    scene.measurers = {}
    assert made(scene.settle()) == ["Pod/digits-measure"]
    assert measuring(scene).failures == 0, "it was told to go"
    scene.measurer(uid="measurer-3").measurer_ends(0, make_message()).settle()
    assert (scene.status.phase, nodes(scene)) == ("Succeeded", ["pc-1", "pc-1", None])


def test_resumed_before_it_was_deleted_it_measures_on() -> None:
    scene = complete().measurer()
    scene.settle()
    scene.spec(suspend=True).act()
    scene.spec(suspend=False).settle()
    assert measuring(scene).pod_uid == "measurer-1"
    scene.measurer_ends(0, make_message()).settle()
    assert scene.status.phase == "Succeeded"


def test_what_was_measured_as_the_job_was_suspended_is_not_measured_again() -> None:
    scene = complete().measurer()
    scene.settle()
    scene.measurer_ends(0, make_message()).spec(suspend=True).settle()
    assert (scene.status.phase, nodes(scene)) == ("Succeeded", ["pc-1", "pc-1", None])


def test_a_gate_that_failed_as_the_job_was_suspended_has_failed() -> None:
    scene = complete().measurer()
    scene.settle()
    scene.measurer_ends(3, make_message(make_export("onnx", gate="failed"), make_export("onnx-int8")))
    scene.spec(suspend=True).settle()
    assert (scene.status.phase, scene.condition("Failed").reason) == ("Failed", "ExportFailed")


def test_a_pod_that_came_to_nothing_as_the_job_was_suspended_costs_nothing() -> None:
    scene = complete().measurer()
    scene.settle()
    scene.measurer_ends(75, '{"error": "no network"}').spec(suspend=True).settle()
    assert (scene.status.phase, measuring(scene).failures) == ("Suspended", 0)


def test_a_job_that_is_complete_while_it_is_being_suspended_is_suspended_before_it_is_measured() -> None:
    scene = a_scene().running().spec(suspend=True)
    scene.settle()
    plan = scene.trained().settle()
    assert (scene.status.phase, made(plan)) == ("Suspended", [])
    assert measuring(scene).failures == 0


def test_the_active_deadline_goes_on_and_the_pod_is_taken_away() -> None:
    scene = complete(activeDeadlineSeconds=100).measurer()
    plan = scene.settle()
    assert plan.requeue_after is not None and plan.requeue_after <= 100
    scene.later(100).settle()
    assert (scene.status.phase, scene.condition("Failed").reason) == ("Failed", "ActiveDeadlineExceeded")
    assert "measurer-1" in gone(scene.settle())


def test_the_start_deadline_is_met_by_a_job_that_is_measured_again() -> None:
    scene = complete(startDeadlineSeconds=10).measurer()
    scene.settle()
    scene.spec(suspend=True).settle()
    scene.later(100).spec(suspend=False).settle()
    scene.later(100).settle()
    assert scene.status.phase == "Running"


def test_a_finished_job_goes_with_its_pods_when_its_time_is_up() -> None:
    scene = complete(ttlSecondsAfterFinished=60).measurer().measurer_ends(0, make_message())
    scene.settle()
    assert [(one.kind, one.name) for one in scene.later(60).settle().delete] == [("TrainingJob", "digits")]


def test_a_sidecar_of_the_measuring_pod_has_its_time_to_end() -> None:
    scene = complete(stopGraceSeconds=20).measurer().measurer_ends(0, make_message())
    scene.measurer(uid="measurer-1", phase="Running", over=True)
    scene.pods, scene.launchers = {}, {}
    scene.settle()
    assert scene.status.phase == "Succeeded"
    assert gone(scene.settle()) == []
    assert gone(scene.later(20 + EXTRA_GRACE_SECONDS).settle()) == ["measurer-1"]


# Models that no other node could read


UNREACHABLE: dict[str, Any] = {"storage": {"claimName": "c", "accessMode": "ReadWriteOnce"}}


def test_what_could_not_be_measured_is_not_trained() -> None:
    scene = a_scene(**UNREACHABLE)
    scene.service = None
    plan = scene.accepted().settle()
    assert (made(plan), gone(plan)) == ([], [])
    blocked = scene.condition("Blocked")
    assert (blocked.status, blocked.reason) == ("True", "ModelUnreachable")
    assert blocked.message == (
        "export.measureOn: worker 0 would leave the converted models in the claim c, which is ReadWriteOnce, and the"
        f" Pod that measures could not read them there; no worker is started for that; {REMEDIES['ModelUnreachable']}"
    )
    assert scene.later(100).settle().create == ()
    assert scene.status.phase == "Pending"


def test_on_one_machine_all_can_read_all() -> None:
    scene = a_scene(**UNREACHABLE).accepted()
    plan = reconcile(scene.job, scene.observed, scene.now, Settings(one_machine=True))
    assert made(plan) == ["Pod/digits-worker-0", "Pod/digits-worker-1"]


def test_a_training_that_an_earlier_release_began_is_not_torn_down_for_it() -> None:
    scene = Scene(**MEASURED).running()
    scene.job = make_job(**MEASURED | UNREACHABLE).with_status(scene.status)
    plan = scene.settle()
    assert (scene.status.phase, scene.condition("Blocked").reason, gone(plan)) == ("Running", "ModelUnreachable", [])
    assert made(scene.trained().settle()) == []
    assert scene.condition("Blocked").reason == "ModelUnreachable"


# What is told of it


def test_events_and_lines() -> None:
    scene = a_scene().running().with_status(exports=PUBLISHED).all_say(state="succeeded")
    said, lines = [], []

    def goes_on() -> None:
        for _ in range(4):
            before, plan = scene.status, scene.act()
            said.extend((event.type, event.reason, event.message) for event in plan.events)
            lines.extend(line.text for line in transitions(before, scene.status))

    goes_on()
    words = "the training is complete; its converted models are measured on a node with edge=true"
    assert said == [("Normal", "Measuring", words)]
    assert lines == ["the training is complete, and is to be measured"]
    said.clear()
    scene.measurer().measurer_ends(137)
    goes_on()
    assert said == [("Warning", "MeasuringFailed", "Pod 1 came to nothing: it was killed by SIGKILL")]
    scene.measurers = {}
    scene.later(60).measurer(uid="measurer-2").spec(suspend=True)
    said.clear()
    goes_on()
    scene.measurers = {}
    scene.spec(suspend=False)
    goes_on()
    assert [reason for _, reason, _ in said] == ["Suspended", "Accepted", "Measuring"]
    said.clear()
    scene.measurer(uid="measurer-3").measurer_ends(0, make_message())
    goes_on()
    assert said == [
        (
            "Normal",
            "Measured",
            "onnx on pc-1: 1.5 ms, accuracy 97.50%, onnx-int8 on pc-1: 1.5 ms, accuracy 97.50%,"
            " pt2: 1.5 ms, accuracy 97.50%",
        ),
        ("Normal", "Succeeded", "the job has succeeded"),
    ]
    assert lines[-1] == "phase Running -> Succeeded"


# What a forged status comes to


def test_measuring_that_nobody_asked_for_is_dropped() -> None:
    scene = Scene().running().with_status(measuring=MeasuringStatus(since=NOW))
    scene.settle()
    assert (scene.status.measuring, scene.status.phase) == (None, "Running")


def test_times_of_the_future_put_nothing_off() -> None:
    scene = complete()
    fails(scene, 1)
    scene.measurers = {}
    far = NOW.replace(year=9000)
    scene.with_status(measuring=measuring(scene).model_copy(update={"since": far, "failed_at": far}))
    scene.settle()
    assert measuring(scene).failed_at == measuring(scene).since == NOW
    assert made(scene.later(PAUSE_SECONDS).settle()) == ["Pod/digits-measure"]


def test_a_stage_that_was_taken_back_is_come_to_again() -> None:
    """The members' Pods are there, and say that they have done their part."""
    scene = complete().measurer()
    scene.settle()
    scene.with_status(measuring=None).settle()
    assert measuring(scene).failures == 0
