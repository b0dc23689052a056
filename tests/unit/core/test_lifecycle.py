"""A job's life: taken on, suspended and resumed, held to its deadlines, finished, deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgecloud_operator.core import conditions
from edgecloud_operator.core.builders import EXTRA_GRACE_SECONDS
from edgecloud_operator.core.failures import MAX_FALLS
from edgecloud_operator.core.members import SILENT_SECONDS
from edgecloud_operator.core.plan import Plan
from tests.unit.core.build import NOW, SETTINGS, Scene, make_pod, make_progress

# Taken on


def test_a_new_job_is_accepted_before_anything_is_made() -> None:
    scene = Scene()
    scene.service = None
    plan = scene.act()
    assert plan.status_first
    assert (plan.create, plan.delete) == ((), ())
    assert (scene.status.phase, scene.status.start_time) == ("Pending", NOW)
    assert scene.status.image == "edgecloud/trainer:1.0"
    assert [event.reason for event in plan.events] == ["Accepted"]
    said = {condition.type: (condition.status, condition.reason) for condition in scene.status.conditions}
    assert said == {
        "Accepted": ("True", "Accepted"),
        "Running": ("False", "WaitingForWorkers"),
        "Blocked": ("False", "NotBlocked"),
        "Suspended": ("False", "NotSuspended"),
        "Complete": ("False", "NotFinished"),
        "Failed": ("False", "NotFinished"),
        "Stalled": ("False", "Progressing"),
    }


def test_the_image_is_pinned() -> None:
    scene = Scene(image="mine:1").accepted()
    assert scene.status.image == "mine:1"
    scene.spec(image="mine:2").settle()
    assert scene.status.image == "mine:1"
    [pod, _] = scene.decide().create
    assert pod["spec"]["containers"][0]["image"] == "mine:1"


@pytest.mark.parametrize("phase", [None, "Running", "Suspended", "Succeeded"])
def test_a_job_that_is_being_deleted_is_left_alone(phase: str | None) -> None:
    scene = Scene().running() if phase else Scene()
    if phase:
        scene.with_status(phase=phase, completion_time=NOW)
    scene.job = scene.job.model_copy(
        update={"metadata": scene.job.metadata.model_copy(update={"deletion_timestamp": NOW})}
    )
    assert scene.decide() == Plan()


@pytest.mark.parametrize(("manager", "ours"), [("kueue.x-k8s.io/multikueue", False), ("edgecloud.io/operator", True)])
def test_a_job_of_another_controller_is_left_alone(manager: str, ours: bool) -> None:
    assert (Scene(managedBy=manager).decide() != Plan()) is ours


def generations(scene: Scene) -> set[int]:
    return {scene.status.observed_generation, *(one.observed_generation for one in scene.status.conditions)}


def test_every_condition_tells_the_generation_that_was_acted_on() -> None:
    """kubectl wait goes by it: a condition of an earlier one is not believed, however true."""
    scene = Scene().running().spec(workers=3)
    scene.settle()
    assert generations(scene) == {2}
    scene.spec(ttl_seconds_after_finished=900)
    assert scene.act().status is not None
    assert generations(scene) == {3}
    assert scene.decide().status is None
    scene.dies(0, 137).settle()
    assert generations(scene) == {3}


@pytest.mark.parametrize("suspend", [True, False])
def test_so_does_a_job_that_is_suspended_and_one_that_is_over(suspend: bool) -> None:
    scene = Scene().running().spec(suspend=suspend)
    scene.settle()
    scene.all_say(state="preempted" if suspend else "succeeded").settle()
    assert scene.status.phase == ("Suspended" if suspend else "Succeeded")
    scene.spec(active_deadline_seconds=900).settle()
    assert generations(scene) == {3}


# Suspended and resumed


def suspended(**spec: Any) -> Scene:
    scene = Scene(**spec).running().later(100).spec(suspend=True)
    scene.settle()
    scene.all_say(state="preempted").settle()
    return scene


def test_a_job_that_is_to_be_suspended_stops_at_a_checkpoint_first() -> None:
    scene = Scene().running().spec(suspend=True)
    plan = scene.settle()
    assert {told.action for told in plan.directives.values()} == {"stop"}
    assert plan.delete == ()
    suspended = scene.condition("Suspended")
    assert (suspended.status, suspended.reason) == ("Unknown", "Stopping")
    plan = scene.says(0, state="preempted").settle()
    assert scene.status.phase == "Running"
    scene.says(1, state="preempted")
    plan = scene.act()
    assert plan.status_first
    assert scene.status.phase == "Suspended"
    assert scene.condition("Suspended").status == "True"
    assert scene.rendezvous.round == 1
    assert scene.members == ()
    plan = scene.settle()
    assert {(told.action, told.exit_code) for told in plan.directives.values()} == {("exit", 143)}
    assert sorted(target.uid for target in plan.delete) == ["pod-0", "pod-1"]
    assert plan.create == ()


def test_a_stop_that_nobody_answers_ends_after_the_grace() -> None:
    scene = Scene(stopGraceSeconds=20).running().spec(suspend=True)
    limit = 20 + EXTRA_GRACE_SECONDS
    scene.settle()
    assert scene.later(limit - 1).settle().requeue_after == pytest.approx(1)
    assert scene.status.phase == "Running"
    scene.later(1).settle()
    assert scene.status.phase == "Suspended"


def test_a_job_that_was_done_while_it_was_to_stop_and_the_operator_was_away_has_succeeded() -> None:
    scene = Scene(stopGraceSeconds=20).running().spec(suspend=True)
    scene.settle()
    scene.later(100).operator_restarts()
    assert scene.settle().requeue_after == SILENT_SECONDS
    scene.all_say(state="succeeded").settle()
    assert scene.status.phase == "Succeeded"


def test_failures_while_it_is_being_suspended_cost_nothing() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 0}).running().spec(suspend=True)
    scene.settle()
    scene.fails(0, signal="SIGKILL").dies(1, 137).settle()
    assert (scene.status.phase, scene.status.restarts) == ("Suspended", 0)
    scene.settle()
    scene.spec(suspend=False).settle()
    assert (scene.status.phase, scene.status.restarts) == ("Pending", 0)


def test_a_job_that_finishes_while_it_is_being_suspended_is_finished() -> None:
    scene = Scene().running().spec(suspend=True)
    scene.settle()
    scene.all_say(state="succeeded").settle()
    assert scene.status.phase == "Succeeded"
    assert scene.condition("Suspended").status == "False"


def test_a_job_that_waits_for_workers_is_suspended_at_once() -> None:
    scene = Scene().accepted().up(0).spec(suspend=True)
    plan = scene.settle()
    assert scene.status.phase == "Suspended"
    assert [target.uid for target in plan.delete] == ["pod-0"]


TRAINER: dict[str, Any] = {"trainer": {"data": {"name": "digits"}}}
UNLESS = ", unless the program keeps its checkpoints elsewhere"


def said(scene: Scene) -> list[str]:
    """What is written until nothing is left to write, in events."""
    events: list[str] = []
    while (plan := scene.act()).status is not None:
        events += [event.reason for event in plan.events]
    return events


def test_without_a_claim_the_checkpoints_go_with_the_pods_and_the_status_says_so() -> None:
    """It said that the job stood at 90 %, stopped at a checkpoint, and resumed it began at 0."""
    scene = Scene(workers=1, **TRAINER).running()
    scene.says(0, progress=make_progress(9, total_steps=10, checkpoint_step=9)).settle()
    scene.fails(0, signal="SIGKILL").settle()
    scene.running()
    assert scene.budget.checkpoint_step == 9
    scene.spec(suspend=True)
    assert said(scene) == ["CheckpointsLost"]
    assert "without spec.storage.claimName" in scene.condition("Suspended").message
    scene.says(0, state="preempted")
    assert said(scene) == ["Suspended"]
    assert "without spec.storage.claimName" in scene.condition("Suspended").message
    assert scene.status.checkpoint is not None, "the Pod is still there"
    scene.vanishes(0).launchers.clear()
    scene.settle()
    assert (scene.status.checkpoint, scene.status.progress, scene.budget.checkpoint_step) == (None, None, 0)
    assert scene.status.summary is not None and scene.status.summary.progress == ""


def test_a_program_with_volumes_of_its_own_may_keep_its_checkpoints_there() -> None:
    volumes = [{"name": "mine", "persistentVolumeClaim": {"claimName": "mine"}}]
    scene = Scene(workers=1, podTemplate={"spec": {"volumes": volumes}}).running()
    scene.says(0, progress=make_progress(9, total_steps=10, checkpoint_step=9)).settle()
    scene.spec(suspend=True)
    assert said(scene) == []
    scene.says(0, state="preempted").settle()
    scene.vanishes(0).launchers.clear()
    scene.settle()
    assert scene.status.checkpoint is not None and scene.status.checkpoint.step == 9


def test_a_program_may_keep_its_checkpoints_where_nobody_sees_them() -> None:
    """One that had them in a bucket was said to start from the beginning at each drain, and stood without progress."""
    scene = Scene(workers=1).running()
    scene.says(0, progress=make_progress(9, total_steps=10, checkpoint_step=9)).settle()
    scene.says(0, draining=True, state="preempted").settle()
    scene.vanishes(0).launchers.clear()
    scene.settle()
    plan = scene.up(0).act()
    assert [event.reason for event in plan.events] == ["RoundOpened", "CheckpointsLost"]
    assert plan.events[-1].message.endswith(UNLESS)
    scene.running()
    assert scene.status.checkpoint is not None and scene.status.progress is not None
    scene.spec(suspend=True).settle()
    assert scene.condition("Suspended").message.endswith(UNLESS)
    scene.says(0, state="preempted").settle()
    scene.vanishes(0).launchers.clear()
    scene.settle()
    assert scene.condition("Suspended").message.endswith(UNLESS)
    assert said(scene.spec(suspend=False).up(0)) == ["RoundOpened"], "it was told"
    assert scene.status.checkpoint.step == 9
    scene.running().all_say(progress=make_progress(1, total_steps=10, checkpoint_step=1)).settle()
    assert (scene.status.checkpoint.step, scene.status.progress.step) == (1, 1)


def test_resumed_before_its_pods_are_gone_it_has_what_they_hold() -> None:
    for going in (False, True):
        scene = Scene(workers=1, **TRAINER).running()
        scene.says(0, progress=make_progress(9, checkpoint_step=9)).settle()
        scene.spec(suspend=True).settle()
        scene.says(0, state="preempted").act()
        scene.changes(0, terminating=going).spec(suspend=False).settle()
        assert (scene.status.checkpoint is None) is going


@pytest.mark.parametrize("kept", ["on a claim", "on one machine"])
def test_what_outlives_the_pods_is_still_there_when_they_are_gone(kept: str) -> None:
    scene = Scene(workers=1, storage={"claimName": "c"} if kept == "on a claim" else {})
    scene.settings = replace(SETTINGS, one_machine=kept == "on one machine")
    scene.running().says(0, progress=make_progress(9, checkpoint_step=9)).settle()
    scene.spec(suspend=True)
    assert said(scene) == []
    assert scene.condition("Suspended").message == "stopping at a checkpoint"
    scene.says(0, state="preempted")
    assert said(scene) == ["Suspended"]
    scene.vanishes(0).settle()
    assert scene.condition("Suspended").message == "stopped at a checkpoint; the workers are gone"
    assert scene.status.checkpoint is not None and scene.status.progress is not None


def lost(*indices: int, **spec: Any) -> Scene:
    """Two workers have trained, and the Pods of these die for good, with what lay in them; others are up."""
    scene = Scene(workers=2, **spec).running()
    scene.all_say(state="running", progress=make_progress(9, total_steps=10, checkpoint_step=9)).settle()
    for index in indices:
        scene.dies(index, 137)
    scene.settle()
    for index in indices:
        scene.vanishes(index)
    scene.settle()
    return scene.up(*indices)


def test_a_job_that_loses_every_copy_says_so_and_begins_anew() -> None:
    scene = lost(0, 1, **TRAINER)
    assert said(scene) == ["RoundOpened", "CheckpointsLost"]
    assert (scene.status.checkpoint, scene.status.progress) == (None, None)
    assert (scene.budget.checkpoint_step, scene.budget.highest_step, scene.budget.falls) == (0, 9, 1)
    assert said(scene.running()) == []
    scene.all_say(progress=make_progress(3, checkpoint_step=3)).settle()
    assert scene.status.checkpoint is not None and scene.status.checkpoint.step == 3


@pytest.mark.parametrize(
    ("indices", "spec"),
    [
        pytest.param((1,), {}, id="one has it"),
        pytest.param((0,), {}, id="so does the other"),
        pytest.param((0, 1), {"storage": {"claimName": "c"}}, id="on a claim"),
    ],
)
def test_a_copy_that_is_left_is_gone_on_from(indices: tuple[int, ...], spec: dict[str, Any]) -> None:
    scene = lost(*indices, **spec)
    assert said(scene) == ["RoundOpened"]
    assert scene.status.checkpoint is not None and scene.status.progress is not None


def test_a_copy_that_may_be_left_is_not_said_to_be_lost() -> None:
    """Worker 1 goes on living, and is not heard by an operator that has come up since."""
    scene = Scene(workers=2, minWorkers=1).running()
    scene.all_say(state="running", progress=make_progress(9, checkpoint_step=9)).settle()
    scene.dies(0, 137).settle()
    scene.vanishes(0).later(60).operator_restarts().up(0).settle()
    scene.later(15).settle()
    assert scene.members == (0,) and scene.status.checkpoint is not None


@pytest.mark.parametrize("steps", [(5,), (9, 5), (5, 7, 3), (5, None)])
@pytest.mark.parametrize("spec", [{}, TRAINER], ids=["program", "trainer"])
def test_to_lose_every_copy_again_and_again_ends_the_job(spec: dict[str, Any], steps: tuple[int | None, ...]) -> None:
    scene = Scene(workers=1, restartPolicy={"maxRestarts": 2}, **spec).accepted()
    for number in range(100):
        scene.later(60).up().settle()
        if scene.status.phase == "Failed":
            break
        progress = make_progress(9, checkpoint_step=steps[number % len(steps)])
        scene.all_say(state="running", progress=progress).settle()
        scene.dies(0, 137, out_of_memory=True).settle()
        scene.vanishes(0)
    assert scene.status.phase == "Failed" and scene.status.restarts <= 3 * (MAX_FALLS + len(steps))


def test_a_job_that_has_not_run_loses_nothing() -> None:
    scene = Scene(suspend=True)
    assert [event.message for event in scene.act().events] == ["the job is suspended"]
    assert said(scene) == ["Suspended"]
    assert scene.condition("Suspended").message == "suspended before it has run; there are no workers"


def test_a_job_that_is_created_suspended_never_gets_a_child() -> None:
    scene = Scene(suspend=True)
    scene.service = None
    plan = scene.settle()
    assert scene.status.phase == "Suspended"
    assert plan.create == ()


def test_a_suspended_job_is_blocked_by_nothing_and_counts_who_is_still_there() -> None:
    scene = Scene(workers=2).accepted().up().changes(1, phase="Pending", blocked=("Unschedulable", "no node"))
    scene.settle()
    assert scene.condition("Blocked").status == "True"
    scene.spec(suspend=True).settle()
    assert (scene.status.phase, scene.condition("Blocked").status) == ("Suspended", "False")
    for index in (0, 1):
        scene.vanishes(index)
    scene.spec(workers=3).settle()
    assert scene.status.workers is not None
    assert (scene.status.workers.ready, scene.status.workers.desired, scene.status.ready_workers) == (0, 3, 0)
    assert scene.status.observed_generation == scene.job.metadata.generation


def test_resumed_it_begins_anew_in_time_and_goes_on_in_rounds() -> None:
    scene = suspended(activeDeadlineSeconds=150)
    for index in (0, 1):
        scene.vanishes(index)
    scene.launchers.clear()
    scene.later(1000).spec(suspend=False)
    plan = scene.act()
    assert plan.status_first
    assert (scene.status.phase, scene.status.start_time, scene.status.running_time) == ("Pending", scene.now, None)
    assert scene.condition("Suspended").status == "False"
    assert len(scene.settle().create) == 2
    scene.up().settle()
    assert scene.rendezvous.round == 2
    scene.running().later(149).settle()
    assert scene.status.phase == "Running"
    scene.later(1).settle()
    assert scene.condition("Failed").reason == "ActiveDeadlineExceeded"


@pytest.mark.parametrize(
    ("there", "image", "pinned"),
    [
        (False, "mine:2", "mine:2"),
        (True, "mine:2", "mine:1"),  # workers of one round all have the same
        (False, None, "mine:1"),
    ],
)
def test_another_image_is_taken_up_when_the_job_is_resumed(there: bool, image: str | None, pinned: str) -> None:
    """It was ignored for ever: to delete the job and apply it again was the only way."""
    scene = suspended(image="mine:1").spec(image=image)
    scene.settle()
    assert scene.status.image == "mine:1"
    if not there:
        scene.changes(0, terminating=True).vanishes(1)
    scene.spec(suspend=False).settle()
    assert scene.status.image == pinned
    if not there:
        [pod] = scene.decide().create
        assert pod["spec"]["containers"][0]["image"] == pinned


def test_a_job_that_names_no_image_keeps_the_default_that_it_began_with() -> None:
    scene = suspended().vanishes(0).vanishes(1).with_status(image="edgecloud/trainer:0.9").spec(suspend=False)
    scene.settle()
    assert scene.status.image == "edgecloud/trainer:0.9"


def test_pods_that_the_suspension_left_dead_cost_nothing_and_are_replaced() -> None:
    scene = suspended().dies(0, 137).dies(1, 143).spec(suspend=False)
    plan = scene.settle()
    assert scene.status.restarts == 0
    assert sorted(target.uid for target in plan.delete) == ["pod-0", "pod-1"]


def test_a_resumed_job_is_not_stalled_by_its_old_progress() -> None:
    scene = Scene().running().all_say(progress=make_progress(5)).later(1).spec(suspend=True)
    scene.settle()
    scene.all_say(state="preempted").settle()
    scene.later(3600).spec(suspend=False).settle()
    scene.running()
    assert scene.status.phase == "Running"
    assert scene.condition("Stalled").status == "False"


# Deadlines


def test_a_job_that_does_not_start_in_time_fails() -> None:
    scene = Scene(startDeadlineSeconds=60).accepted()
    assert scene.later(40).settle().requeue_after == 20
    scene.later(20).settle()
    assert scene.status.phase == "Failed"
    assert scene.condition("Failed").reason == "StartDeadlineExceeded"
    assert "startDeadlineSeconds (60 s)" in scene.condition("Failed").message


def test_what_blocked_a_job_to_its_deadline_is_named_as_the_cause() -> None:
    """There are no logs to look at; and a Blocked condition that stayed would block what is over."""
    scene = Scene(startDeadlineSeconds=60).accepted()
    scene.refused = ("QuotaExceeded", "exceeded quota: gpus")
    scene.later(59).settle()
    why = scene.condition("Blocked").message
    scene.later(1).settle()
    said = f"no first step within startDeadlineSeconds (60 s), blocked by QuotaExceeded: {why}"
    assert (scene.condition("Failed").message, scene.condition("Blocked").status) == (said, "False")
    scene = Scene(activeDeadlineSeconds=100, minWorkers=1).running().spec(workers=3)
    scene.refused = ("QuotaExceeded", "exceeded quota: gpus")
    scene.later(99).settle()
    scene.later(1).settle()
    assert scene.condition("Failed").message.startswith(
        "not done within activeDeadlineSeconds (100 s) of first running, blocked by QuotaExceeded: exceeded quota: gpus"
    )


def test_to_have_started_is_to_have_done_a_step() -> None:
    scene = Scene(startDeadlineSeconds=60).running()
    assert (scene.status.phase, scene.status.running_time) == ("Starting", None)
    scene.later(30).says(0, progress=make_progress(1)).settle()
    assert (scene.status.phase, scene.status.running_time) == ("Running", scene.now)
    scene.later(600).settle()
    assert scene.status.phase == "Running"


def test_a_step_from_before_a_suspension_is_no_start() -> None:
    scene = Scene(startDeadlineSeconds=60).running().says(0, progress=make_progress(1)).spec(suspend=True)
    scene.settle()
    scene.all_say(state="preempted").settle()
    scene.spec(suspend=False).settle()
    scene.all_say(state="running", progress=None).settle()
    scene.running()
    assert (scene.status.phase, scene.status.running_time) == ("Starting", None)


def test_without_a_start_deadline_to_run_is_to_have_started() -> None:
    assert Scene().running().status.running_time == NOW


def test_a_job_that_takes_too_long_fails() -> None:
    scene = Scene(activeDeadlineSeconds=100).started().later(50).running().later(99)
    assert scene.settle().requeue_after == 1
    scene.fails(0, signal="SIGKILL").settle()
    assert scene.status.phase == "Recovering"
    scene.later(1).settle()
    assert scene.condition("Failed").reason == "ActiveDeadlineExceeded"


def test_a_job_that_is_done_at_its_deadline_has_succeeded() -> None:
    scene = Scene(activeDeadlineSeconds=100).running().later(200).all_say(state="succeeded")
    scene.settle()
    assert scene.status.phase == "Succeeded"


def test_a_job_that_was_done_while_the_operator_was_away_has_succeeded() -> None:
    scene = Scene(activeDeadlineSeconds=100).running().later(200).operator_restarts()
    assert scene.settle().requeue_after == SILENT_SECONDS
    scene.later(5).says(0, state="succeeded").settle()
    assert scene.status.phase == "Running"
    scene.says(1, state="succeeded").settle()
    assert scene.status.phase == "Succeeded"


def test_a_job_that_started_while_the_operator_was_away_is_in_time() -> None:
    scene = Scene(startDeadlineSeconds=60).started().later(3600).operator_restarts()
    assert scene.settle().requeue_after == SILENT_SECONDS
    scene.later(5).all_say(state="running", progress=make_progress(9)).settle()
    assert scene.status.phase == "Running"


def test_a_deadline_waits_for_no_member_that_stays_silent() -> None:
    scene = Scene(activeDeadlineSeconds=100).running().later(200).operator_restarts().says(0, state="running")
    scene.later(SILENT_SECONDS).settle()
    assert scene.condition("Failed").reason == "ActiveDeadlineExceeded"


@pytest.mark.parametrize("heard", [pytest.param(True, id="all are heard"), pytest.param(False, id="its Pod is gone")])
def test_an_operator_that_comes_up_holds_to_a_deadline_that_nobody_can_speak_for(heard: bool) -> None:
    scene = Scene(activeDeadlineSeconds=100).running().later(200).operator_restarts().says(0, state="running")
    if heard:
        scene.says(1, state="running")
    else:
        scene.vanishes(1)
    scene.settle()
    assert scene.condition("Failed").reason == "ActiveDeadlineExceeded"


def test_success_comes_before_a_stray_failure() -> None:
    scene = Scene(workers=3, minWorkers=2, restartPolicy={"maxRestarts": 0}).accepted().up(0, 1).later(15)
    scene.settle()
    scene.running().up(2).dies(2, 137).all_say(state="succeeded").settle()
    assert scene.status.phase == "Succeeded"


# Finished


def finished(phase: str, **spec: Any) -> Scene:
    scene = Scene(**spec).running()
    if phase == "Succeeded":
        scene.all_say(state="succeeded").settle()
    else:
        scene.fails(0, 2, reason="BadConfiguration").settle()
    assert scene.status.phase == phase
    return scene


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 1)])
def test_the_launchers_of_a_finished_job_are_sent_home(phase: str, code: int) -> None:
    plan = finished(phase).decide()
    assert {(told.action, told.exit_code) for told in plan.directives.values()} == {("exit", code)}
    assert (plan.delete, plan.requeue_after) == ((), EXTRA_GRACE_SECONDS)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_job_never_gets_a_child_and_only_tells_that_an_edit_was_seen(phase: str) -> None:
    """That was never told: whoever waited for observedGeneration waited for ever."""
    scene = finished(phase)
    scene.dies(0, 137).vanishes(1)
    scene.service = None
    for change in ({"workers": 3}, {"suspend": True}, {"suspend": False}, {"active_deadline_seconds": 1}):
        before = scene.status
        plan = scene.later(100).spec(**change).act()
        assert (plan.create, plan.events) == ((), ())
        assert scene.status == conditions.of_generation(before, scene.job.metadata.generation)
        assert scene.decide().status is None


def test_a_pod_that_does_not_leave_a_finished_job_is_deleted() -> None:
    scene = finished("Failed").dies(0, 1)
    scene.later(EXTRA_GRACE_SECONDS)
    assert [target.uid for target in scene.decide().delete] == ["pod-1"]
    scene.changes(1, terminating=True)
    assert (scene.decide().delete, scene.decide().requeue_after) == ((), None)


def test_a_sidecar_that_outlives_the_worker_of_a_finished_job_is_ended() -> None:
    """It gets the time that the kubelet gives it; then it would hold the Pod, and its GPUs, for ever."""
    scene = finished("Succeeded", stopGraceSeconds=20).dies(0, 0).dies(1, 0).changes(1, phase="Running", over=True)
    plan = scene.later(EXTRA_GRACE_SECONDS).decide()
    assert (plan.delete, plan.requeue_after) == ((), 20)
    assert [target.uid for target in scene.later(20).decide().delete] == ["pod-1"]


def test_a_finished_job_goes_when_its_time_is_up() -> None:
    scene = finished("Succeeded", ttlSecondsAfterFinished=100).dies(0, 0).dies(1, 0)
    assert scene.later(99).decide().requeue_after == 1
    [target] = scene.later(1).decide().delete
    assert (target.kind, target.name, target.uid) == ("TrainingJob", "digits", "job-uid")


def test_a_finished_job_without_a_ttl_stays() -> None:
    plan = finished("Succeeded").dies(0, 0).dies(1, 0).later(10**6).decide()
    assert (plan.delete, plan.requeue_after) == ((), None)


def test_a_finished_job_is_neither_blocked_nor_stalled() -> None:
    scene = Scene().running().all_say(progress=make_progress(1)).later(700)
    scene.settle()
    assert scene.condition("Stalled").status == "True"
    scene.changes(1, blocked=("ErrImagePull", "no such image")).settle()
    assert scene.condition("Blocked").status == "True"
    scene.all_say(state="succeeded").settle()
    for kind in ("Blocked", "Stalled", "Failed", "Suspended"):
        assert not conditions.is_true(scene.status, kind)


def test_pods_of_a_finished_job_whose_status_was_wiped_cost_nothing() -> None:
    scene = finished("Succeeded", restartPolicy={"maxRestarts": 0})
    for index in (0, 1):
        scene.dies(index, 0, round=1, outcome="succeeded")
    scene.job = scene.job.with_status(None)
    plan = scene.settle()
    assert (scene.status.phase, scene.status.restarts) == ("Pending", 0)
    assert len(plan.delete) == 2


def test_times_are_kept_to_the_second() -> None:
    scene = Scene()
    scene.now += timedelta(microseconds=123456)
    scene.started()
    scene.running()
    assert scene.status.start_time == NOW
    assert scene.decide().status is None


def test_a_job_that_was_accepted_is_written_once_until_its_workers_are_heard() -> None:
    scene = Scene(workers=2).accepted()
    assert scene.act().status is None
    scene.pods = {f"pod-{index}": make_pod(index, phase="Pending", running_since=None) for index in range(2)}
    assert scene.later(1).act().status is None
