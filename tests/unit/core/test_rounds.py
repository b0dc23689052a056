"""Rounds: when one opens and closes, what that costs, and who is in the next."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from edgecloud.api.status import Budget
from edgecloud.protocol import Acknowledged
from edgecloud_operator.core.failures import MAX_UNPAID
from edgecloud_operator.core.members import SILENT_SECONDS
from edgecloud_operator.core.rounds import BELIEVED_ROUNDS, CAUSE_SECONDS, GROW_SECONDS, SMALLER_SECONDS
from tests.unit.core.build import SHUTDOWN, Scene, make_failure, make_pod, make_progress, member

# Opening


def test_a_round_opens_when_all_workers_are_heard() -> None:
    scene = Scene(workers=3).accepted().up(0, 1)
    scene.settle()
    assert scene.rendezvous.round == 0
    assert scene.status.phase == "Pending"
    scene.up(2).settle()
    assert scene.rendezvous.round == 1
    assert scene.rendezvous.members == (member(0), member(1), member(2))
    assert scene.rendezvous.opened_at == scene.now
    assert scene.status.phase == "Starting"
    assert scene.condition("Running").reason == "RendezvousOpened"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda scene: scene.changes(1, owned=False), id="a foreign Pod"),
        pytest.param(lambda scene: scene.changes(1, terminating=True), id="one that is going"),
        pytest.param(lambda scene: scene.dies(1, 143), id="a dead one"),
        pytest.param(lambda scene: scene.says(1, draining=True), id="one that was asked to leave"),
        pytest.param(lambda scene: scene.launchers.pop("pod-1"), id="one that was never heard"),
        pytest.param(
            lambda scene: scene.later(15, heard=False).says(0).says(2), id="one that was not heard for 15 seconds"
        ),
    ],
)
def test_who_is_no_candidate(change: Any) -> None:
    scene = Scene(workers=3).accepted().up()
    change(scene)
    scene.settle()
    assert scene.rendezvous.round == 0


def test_workers_beyond_the_spec_are_no_candidates() -> None:
    scene = Scene(workers=2).accepted().up(0, 1, 2)
    scene.settle()
    assert scene.members == (0, 1)


def test_an_elastic_job_waits_for_the_missing_from_when_enough_have_arrived() -> None:
    """However long its image was pulled: the others are heard a moment later, and need no second round."""
    scene = Scene(workers=4, minWorkers=2).accepted().later(60).up(0)
    scene.settle()
    scene.later(20).up(1)
    assert scene.settle().requeue_after == SMALLER_SECONDS
    scene.later(14).up(2).settle()
    assert scene.members == ()
    scene.later(1).settle()
    assert scene.members == (0, 1, 2)


def test_who_alone_can_mount_the_checkpoints_has_to_have_arrived() -> None:
    scene = Scene(workers=4, minWorkers=2, storage={"claimName": "c", "accessMode": "ReadWriteOnce"}).accepted()
    scene.up(1, 2).later(60).up(0)
    assert scene.settle().requeue_after == SMALLER_SECONDS


def test_an_operator_that_comes_up_hears_the_others_before_it_opens_a_smaller_round() -> None:
    scene = Scene(workers=3, minWorkers=2).running().dies(2, 143).all_say(state="preempted")
    scene.settle()
    scene.vanishes(2).up(2).later(14).operator_restarts()
    scene.says(0, round=1, state="preempted").says(1, round=1, state="preempted")
    assert scene.settle().requeue_after == SMALLER_SECONDS
    scene.later(5).says(2, round=0).settle()
    assert scene.members == (0, 1, 2)


def test_those_who_stopped_late_have_been_there_all_the_time() -> None:
    """After a lost node the rest wait for 15 seconds from the end of the round, not from when they all had stopped."""
    scene = Scene(workers=3, minWorkers=2).running().later(100).vanishes(2)
    assert scene.settle().requeue_after == SMALLER_SECONDS
    assert scene.members == ()
    scene.later(10).says(0, state="preempted").says(1, state="preempted").settle()
    scene.later(5).settle()
    assert scene.members == (0, 1)


def test_a_round_is_above_all_that_anybody_knows() -> None:
    scene = Scene().accepted().up().says(1, round=6)
    scene.settle()
    assert scene.rendezvous.round == 7


def test_a_round_is_above_what_a_process_met_in_its_storage() -> None:
    """Status was wiped, but checkpoints of round 9 are there: whoever meets them says so, and it costs nothing."""
    scene = Scene().accepted().up()
    scene.settle()
    scene.says(0, round=1, state="failed", failure=make_failure(75, reason="Transient", seen_round=9))
    scene.says(1, round=1, state="failed", failure=make_failure(75, reason="Transient"))
    scene.settle()
    assert scene.rendezvous.round == 10
    assert scene.status.restarts == 0


@pytest.mark.parametrize("seen", [BELIEVED_ROUNDS + 2, 10**9])
def test_a_forged_round_is_not_believed(seen: int) -> None:
    scene = Scene().accepted().up()
    scene.settle()
    scene.says(0, round=1, state="failed", failure=make_failure(75, reason="Transient", seen_round=seen))
    scene.settle()
    assert scene.rendezvous.round <= 2


def test_an_elastic_job_waits_15_seconds_for_the_missing() -> None:
    scene = Scene(workers=3, minWorkers=2).accepted().up(0, 2)
    assert scene.settle().requeue_after == SMALLER_SECONDS
    scene.later(14).settle()
    assert scene.rendezvous.round == 0
    scene.later(1).settle()
    assert scene.members == (0, 2)


def test_an_elastic_job_never_goes_below_its_least() -> None:
    scene = Scene(workers=3, minWorkers=2).accepted().up(1).later(600)
    scene.settle()
    assert scene.members == ()


@pytest.mark.parametrize(("access", "members"), [("ReadWriteOnce", ()), ("ReadWriteMany", (1, 2))])
def test_where_worker_0_alone_has_the_storage_there_is_no_round_without_it(access: str, members: Any) -> None:
    scene = Scene(workers=3, minWorkers=1, storage={"claimName": "c", "accessMode": access})
    scene.accepted().up(1, 2).later(20).settle()
    assert scene.members == members


def test_a_round_is_written_before_anybody_is_told_of_it() -> None:
    scene = Scene().accepted().up()
    plan = scene.act()
    assert plan.status_first
    assert plan.status is not None
    assert {told.action for told in plan.directives.values()} <= {"wait"}


# Failing


def test_a_strong_cause_closes_the_round_at_once() -> None:
    scene = Scene().running().fails(1, signal="SIGKILL")
    scene.settle()
    assert scene.rendezvous.round == 2
    assert scene.members == (0, 1)
    assert (scene.status.restarts, scene.status.phase) == (1, "Recovering")
    assert scene.status.last_failure is not None
    assert (scene.status.last_failure.worker, scene.status.last_failure.signal) == (1, "SIGKILL")
    assert scene.condition("Running").status == "False"


def test_a_weak_cause_waits_5_seconds_for_a_better_one() -> None:
    scene = Scene().running().fails(1)
    assert scene.settle().requeue_after == CAUSE_SECONDS
    assert (scene.rendezvous.round, scene.status.restarts) == (1, 0)
    scene.later(4.9).settle()
    assert scene.rendezvous.round == 1
    scene.later(0.1).settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (2, 1)


def test_the_better_cause_is_the_one_that_is_named_and_they_cost_one_restart() -> None:
    scene = Scene(workers=3).running().fails(1, message="Connection reset by peer")
    scene.settle()
    scene.later(2).dies(2, 137, out_of_memory=True).settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (1, 1)
    assert scene.members == ()
    assert scene.status.last_failure is not None
    assert (scene.status.last_failure.worker, scene.status.last_failure.reason) == (2, "OutOfMemory")


def test_a_weak_cause_does_not_wait_when_all_have_ended() -> None:
    scene = Scene().running().fails(1).says(0, state="succeeded")
    scene.settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (2, 1)


def test_several_failures_of_one_round_cost_one_restart() -> None:
    scene = Scene(workers=3).running().fails(0).fails(1).fails(2, signal="SIGSEGV")
    scene.settle()
    assert scene.status.restarts == 1


def test_an_old_failure_is_not_paid_again() -> None:
    scene = Scene().running().fails(1, signal="SIGKILL")
    scene.settle()
    for _ in range(3):
        scene.later(10).settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (2, 1)


def test_a_lost_pod_is_replaced_before_the_next_round() -> None:
    scene = Scene().running().dies(1, 137)
    plan = scene.settle()
    assert scene.members == ()
    assert scene.budget.paid_pods == ("pod-1",)
    assert [target.uid for target in plan.delete] == ["pod-1"]
    plan = scene.vanishes(1).settle()
    assert [child["metadata"]["name"] for child in plan.create] == ["digits-worker-1"]
    scene.up(1).settle()
    assert scene.rendezvous.round == 2
    assert scene.rendezvous.members[1].pod_uid != "pod-1"
    assert scene.status.restarts == 1


def test_a_worker_that_died_beside_a_sidecar_is_lost_as_well() -> None:
    """The Pod's phase stays Running for as long as anything runs in it."""
    scene = Scene().running().dies(1, 137, out_of_memory=True).changes(1, phase="Running", over=True)
    scene.settle()
    assert scene.status.phase == "Recovering"
    assert scene.status.last_failure is not None
    assert scene.status.last_failure.reason == "OutOfMemory"
    assert [target.uid for target in scene.decide().delete] == ["pod-1"]


def test_the_job_fails_when_its_restarts_are_used_up() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 1}).running().fails(1, signal="SIGKILL")
    scene.settle()
    scene.running().fails(0, signal="SIGKILL").settle()
    assert (scene.status.phase, scene.status.restarts) == ("Failed", 1)
    assert scene.condition("Failed").reason == "RestartBudgetExceeded"
    assert "worker 0: Killed (SIGKILL), and the 1 restarts" in scene.condition("Failed").message


def test_a_newer_checkpoint_brings_the_restarts_back() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 1}).running()
    for step in (10, 20, 30):
        scene.running().all_say(progress=make_progress(step, checkpoint_step=step)).settle()
        scene.fails(1, signal="SIGKILL").settle()
    assert (scene.status.phase, scene.status.restarts) == ("Recovering", 3)


def test_checkpoints_that_were_lost_do_not_keep_the_restarts_back_for_good() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 2}).running()
    for step in (900, 50, 100, 150):
        scene.running().all_say(progress=make_progress(step, checkpoint_step=step)).settle()
        scene.fails(1, signal="SIGKILL").settle()
        scene.later(1).settle()
    assert (scene.status.phase, scene.status.restarts, scene.budget.spent) == ("Recovering", 4, 1)


@pytest.mark.parametrize(
    ("exit_code", "reason", "condition", "words"),
    [
        (2, "BadConfiguration", "BadConfiguration", "a configuration error is not tried again"),
        (None, "StartFailed", "BadConfiguration", "a configuration error is not tried again"),
        (9, "ProgramError", "ExitCodeRule", "a rule of restartPolicy.exitCodeRules ends the job"),
    ],
)
def test_what_ends_a_job_at_once(exit_code: int | None, reason: str, condition: str, words: str) -> None:
    rules = [{"exitCodes": [9], "action": "Fail"}]
    scene = Scene(restartPolicy={"exitCodeRules": rules}).running().fails(1, exit_code, reason=reason)
    scene.later(5).settle()
    assert (scene.status.phase, scene.status.restarts) == ("Failed", 0)
    assert scene.condition("Failed").reason == condition
    how = "ValueError: no such file" if exit_code is None else f"exit code {exit_code}"
    assert f"worker 1: {reason} ({how}): {words}" in scene.condition("Failed").message


def test_a_program_that_was_not_started_and_says_nothing_is_named_once() -> None:
    scene = Scene().running().fails(1, None, reason="StartFailed", message="")
    scene.later(5).settle()
    assert scene.condition("Failed").message.startswith("worker 1: StartFailed: a configuration error")


def test_a_program_that_never_began_ends_the_job_in_the_launchers_words() -> None:
    words = "cannot start 'nosuch': no such program. Is it in the image and on its PATH?"
    scene = Scene().running().fails(1, None, reason="StartFailed", message=words)
    scene.later(5).settle()
    said = f"worker 1: StartFailed ({words}): a configuration error is not tried again; correct program.command"
    assert said in scene.condition("Failed").message


def test_transient_failures_are_free_five_times_and_then_are_not() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 1}).running()
    for number in range(1, MAX_UNPAID + 1):
        scene.running().fails(1, 75, reason="Transient").later(20).settle()
        assert (scene.rendezvous.round, scene.status.restarts) == (number + 1, 0)
    scene.running().fails(1, 75, reason="Transient").later(60).settle()
    assert scene.status.restarts == 1
    scene.running().fails(1, 75, reason="Transient").later(5).settle()
    assert scene.status.phase == "Failed"


# Pods that die outside a round


def test_a_stray_dead_pod_is_paid_once() -> None:
    scene = Scene().accepted().up().dies(1, 137)
    plan = scene.settle()
    assert (scene.status.restarts, scene.rendezvous.round) == (1, 0)
    assert scene.status.last_failure is not None
    assert (scene.status.last_failure.rank, scene.status.last_failure.reason) == (None, "PodLost")
    assert [target.uid for target in plan.delete] == ["pod-1"]
    scene.later(30).settle()
    assert scene.status.restarts == 1


def test_a_pod_that_failed_before_its_worker_began_says_why() -> None:
    why = "init container fetch ended with 6: could not resolve host"
    scene = Scene().accepted().up(0).up(1).dies(1, None).changes(1, why=why)
    scene.settle()
    assert scene.status.last_failure is not None
    assert scene.status.last_failure.message == why


def test_an_image_without_the_launchers_program_ends_the_job_at_once_and_says_so() -> None:
    words = 'StartError: exec: "python3": executable file not found in $PATH'
    scene = Scene().accepted().up(0, 1)
    scene.launchers.clear()
    scene.dies(1, 128, failure=make_failure(None, reason="StartFailed", message=words)).settle()
    assert (scene.status.phase, scene.status.restarts) == ("Failed", 0)
    message = scene.condition("Failed").message
    assert f"worker 1: StartFailed ({words}): a configuration error is not tried again; its image has to" in message
    assert scene.status.last_failure is not None and scene.status.last_failure.message == words


def test_a_job_whose_pods_are_lost_says_in_the_clusters_words_why() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 0}).running()
    scene.dies(1, 137).changes(1, why="Evicted: The node was low on resource: memory.").settle()
    assert scene.condition("Failed").reason == "RestartBudgetExceeded"
    assert "PodLost (the worker was killed by SIGKILL" in scene.condition("Failed").message
    assert "(Evicted: The node was low on resource: memory.)), and the 0" in scene.condition("Failed").message


WHY = "UnexpectedAdmissionError: Allocate failed due to no healthy devices present"


def rejected(scene: Scene, index: int, number: int) -> Scene:
    """A node has rejected the worker's newest Pod, of which nothing is known but that."""
    uid = f"rejected-{number}"
    scene.pods[uid] = make_pod(index, uid=uid, phase="Failed", created_at=scene.now, running_since=None, why=WHY)
    return scene


def test_pods_that_no_node_takes_cost_a_job_nothing_while_it_trains_without_them() -> None:
    scene = Scene(workers=3, minWorkers=2, restartPolicy={"maxRestarts": 0}).accepted().up(0, 1)
    rejected(scene, 2, -1).settle()
    scene.later(15).settle()
    del scene.pods["rejected--1"]
    assert (scene.members, scene.budget.rejected) == ((0, 1), 0)
    scene.running()
    for number, length in enumerate([10, 20, 40, 80, 160, 300, 300]):
        plan = rejected(scene.later(1), 2, number).settle()
        assert plan.delete == plan.create == ()
        assert scene.status.last_failure is not None and scene.status.last_failure.message == WHY
        assert scene.status.last_failure.at == scene.now
        plan = scene.later(length - 1).settle()
        assert plan.delete == () and plan.requeue_after is not None and plan.requeue_after <= 1
        plan = scene.later(1).settle()
        assert [target.uid for target in plan.delete] == [f"rejected-{number}"]
        del scene.pods[f"rejected-{number}"]
        assert len(scene.settle().create) == 1
    assert (scene.status.phase, scene.rendezvous.round, scene.members) == ("Running", 1, (0, 1))
    assert (scene.status.restarts, scene.budget.spent, scene.budget.unpaid) == (0, 0, 0)
    scene.up(2).later(60).settle()
    scene.all_say(state="preempted").settle()
    assert (scene.members, scene.budget.rejected) == ((0, 1, 2), 0)


def test_pods_that_no_node_takes_are_paid_by_a_job_that_waits_for_them_and_it_says_why_it_failed() -> None:
    scene = Scene(workers=2, restartPolicy={"maxRestarts": 2}).accepted().up(0)
    seconds = 0
    for number in range(3):
        rejected(scene, 1, number).settle()
        while scene.status.phase != "Failed" and not scene.decide().delete:
            scene.later(1).settle()
            seconds += 1
        del scene.pods[f"rejected-{number}"]
    assert (scene.status.phase, scene.status.restarts, seconds) == ("Failed", 2, 10 + 20)
    words = f"worker 1: PodLost ({WHY}), and the 2 restarts of restartPolicy.maxRestarts are used up"
    assert scene.condition("Failed").message == words


def test_a_pod_that_no_node_took_beside_one_that_crashed() -> None:
    scene = Scene(workers=4, minWorkers=2).accepted().up(0, 1).later(15)
    scene.settle()
    scene.running().up(2).dies(2, 1)
    plan = rejected(scene, 3, 0).settle()
    assert (scene.status.restarts, scene.budget.rejected) == (1, 1)
    assert [target.name for target in plan.delete] == ["digits-worker-2"], "only the other one is replaced at once"


def test_a_failure_at_a_time_that_cannot_be_holds_no_name_for_ever() -> None:
    scene = rejected(Scene(workers=1).accepted(), 0, 0)
    scene.settle()
    assert scene.status.last_failure is not None
    for years in (-70, 70):
        at = scene.now + timedelta(days=365 * years)
        scene.with_status(last_failure=scene.status.last_failure.model_copy(update={"at": at}))
        assert [target.uid for target in scene.settle().delete] == ["rejected-0"]


def test_stray_dead_pods_together_cost_one_restart() -> None:
    scene = Scene(workers=3).accepted().up().dies(0, 137).dies(1, 1).dies(2, 137)
    scene.settle()
    assert scene.status.restarts == 1
    assert scene.budget.paid_pods == ("pod-0", "pod-1", "pod-2")


def test_pods_that_crash_again_and_again_end_the_job() -> None:
    scene = Scene(workers=1, restartPolicy={"maxRestarts": 2}).accepted()
    for _ in range(3):
        scene.up(0).dies(0, 1).settle()
        scene.vanishes(0)
    assert (scene.status.phase, scene.status.restarts) == ("Failed", 2)


def test_what_is_paid_is_forgotten_with_its_pod() -> None:
    scene = Scene(workers=2).accepted().up().dies(0, 137)
    scene.settle()
    scene.vanishes(0).up(0).dies(1, 137).settle()
    assert scene.budget.paid_pods == ("pod-1",)
    assert scene.status.restarts == 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda scene: scene.dies(1, 143).changes(1, terminating=True), id="it left, being deleted"),
        pytest.param(lambda scene: scene.dies(1, 143).changes(1, why=SHUTDOWN), id="its node is shut down"),
        pytest.param(lambda scene: scene.dies(1, 137).changes(1, terminating=True), id="somebody deleted it"),
        pytest.param(lambda scene: scene.dies(1, 0, round=4, outcome="succeeded"), id="it had done its part"),
        pytest.param(lambda scene: scene.dies(1, 137).changes(1, owned=False), id="it is foreign"),
        pytest.param(lambda scene: scene.spec(workers=1).dies(1, 137), id="it is not wanted any more"),
    ],
)
def test_stray_dead_pods_that_cost_nothing(change: Any) -> None:
    scene = Scene(workers=2).accepted().up()
    change(scene)
    plan = scene.settle()
    assert (scene.status.restarts, scene.budget.unpaid, scene.status.last_failure) == (0, 0, None)
    pod = scene.pods["pod-1"]
    if pod.owned:
        assert [target.uid for target in plan.delete] == ([] if pod.terminating else ["pod-1"])
    else:
        assert [target.uid for target in plan.delete] == ["pod-0"], "half a gang is given back"


# A status that was set back


def test_a_status_that_was_set_back_goes_on_above_what_the_launchers_know() -> None:
    scene = Scene().running()
    scene.all_say(round=5, state="running")
    plan = scene.act()
    assert plan.status_first
    assert (scene.rendezvous.round, scene.status.restarts) == (6, 0)
    assert scene.members == (0, 1)


def test_a_status_that_was_wiped_goes_on_above_what_the_launchers_know() -> None:
    scene = Scene().running()
    scene.all_say(round=5, state="running")
    scene.job = scene.job.with_status(None)
    scene.settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (6, 0)


def test_a_round_that_a_launcher_has_still_to_begin_is_not_given_again() -> None:
    """It takes it up when the processes of the last one have ended: beside others, who would be in another one."""
    scene = Scene().running()
    scene.all_say(round=1, state="stopping", ack=Acknowledged(action="run", round=2))
    scene.job = scene.job.with_status(None)
    scene.settle()
    assert scene.rendezvous.round == 3


def test_a_directive_that_begins_nothing_is_no_round() -> None:
    scene = Scene().running()
    scene.all_say(round=1, state="idle", ack=Acknowledged(action="wait", round=5))
    scene.job = scene.job.with_status(None)
    scene.settle()
    assert scene.rendezvous.round == 2


# Being called away


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda scene: scene.says(1, draining=True), id="SIGTERM"),
        pytest.param(lambda scene: scene.changes(1, terminating=True), id="deletion"),
    ],
)
def test_a_worker_that_is_called_away_takes_all_along_to_a_checkpoint(call: Any) -> None:
    scene = Scene(workers=3).running()
    call(scene)
    plan = scene.settle()
    assert scene.rendezvous.round == 1
    assert {told.action for told in plan.directives.values()} == {"stop"}
    assert {told.grace_seconds for told in plan.directives.values()} == {30.0}
    assert scene.status.phase == "Running"
    scene.says(0, state="preempted").says(1, state="preempted").settle()
    assert scene.members == (0, 1, 2)
    scene.says(2, state="preempted").dies(1, 143).changes(1, why=SHUTDOWN).settle()
    assert scene.members == ()
    assert (scene.status.restarts, scene.budget.unpaid, scene.status.last_failure) == (0, 0, None)
    assert scene.condition("Running").message == "stopped at a checkpoint"
    scene.vanishes(1).up(1).settle()
    assert (scene.rendezvous.round, scene.members) == (2, (0, 1, 2))


def test_what_breaks_while_one_is_called_away_is_no_failure() -> None:
    scene = Scene(workers=3).running().says(1, draining=True).fails(0).later(10)
    assert scene.settle().directives["pod-2"].action == "stop"
    assert scene.status.restarts == 0
    scene.says(2, state="preempted").dies(1, 143).changes(1, why=SHUTDOWN).settle()
    assert scene.members == ()
    assert (scene.status.restarts, scene.status.last_failure) == (0, None)


def test_a_strong_failure_is_one_even_then() -> None:
    scene = Scene(workers=3).running().says(1, draining=True).fails(0, signal="SIGKILL")
    scene.settle()
    assert scene.status.restarts == 1


def test_a_drained_elastic_job_waits_for_the_replacement_before_it_goes_on_smaller() -> None:
    scene = Scene(workers=3, minWorkers=2).running().dies(1, 143).changes(1, terminating=True)
    scene.all_say(state="preempted").launchers.pop("pod-1")
    assert scene.settle().requeue_after == SMALLER_SECONDS
    assert scene.members == ()
    scene.later(15).settle()
    assert scene.members == (0, 2)


# Leaving unasked


def test_a_program_that_leaves_by_itself_goes_on_unpaid_and_not_for_ever() -> None:
    scene = Scene(restartPolicy={"maxRestarts": 1}).running()
    for number in range(1, MAX_UNPAID + 1):
        scene.running().says(1, state="preempted")
        assert scene.settle().directives["pod-0"].action == "stop"
        scene.says(0, state="preempted").settle()
        scene.later(60).settle()
        assert (scene.rendezvous.round, scene.status.restarts, scene.budget.unpaid) == (number + 1, 0, number)
        assert scene.status.last_failure is None
    scene.running().all_say(state="preempted").settle()
    scene.later(60).settle()
    assert scene.status.restarts == 1
    assert scene.status.last_failure is not None
    assert "143 6 times without a newer checkpoint" in scene.status.last_failure.message
    scene.running().all_say(state="preempted").settle()
    assert scene.status.phase == "Failed"
    assert scene.condition("Failed").reason == "RestartBudgetExceeded"


@pytest.mark.parametrize(("action", "phase"), [("Fail", "Failed"), ("Restart", "Recovering")])
def test_a_rule_can_make_143_a_failure(action: str, phase: str) -> None:
    rules = [{"exitCodes": [143], "action": action}]
    scene = Scene(restartPolicy={"exitCodeRules": rules}).running().all_say(state="preempted")
    scene.settle()
    assert scene.status.phase == phase
    assert phase != "Failed" or scene.condition("Failed").reason == "ExitCodeRule"
    assert scene.status.last_failure is not None
    assert scene.status.last_failure.message == "the program left with exit code 143 without being asked to"


def test_who_left_unasked_is_named_and_not_who_was_ended_for_it() -> None:
    rules = [{"exitCodes": [143], "action": "Restart"}]
    scene = Scene(restartPolicy={"exitCodeRules": rules}).running().says(1, state="preempted")
    scene.settle()
    scene.later(4).says(0, state="preempted").settle()
    assert scene.status.last_failure is not None
    assert scene.status.last_failure.worker == 1


def test_one_that_is_done_and_one_that_left_go_on_together() -> None:
    scene = Scene().running().says(0, state="succeeded").says(1, state="preempted")
    scene.settle()
    assert (scene.rendezvous.round, scene.members) == (2, (0, 1))


# Growing and shrinking


def grown() -> Scene:
    """An elastic job that goes on with two of three, and whose third is back."""
    scene = Scene(workers=3, minWorkers=2).accepted().up(0, 1).later(15)
    scene.settle()
    scene.running().later(10).up(2)
    return scene


def test_arrivals_are_batched_for_a_minute() -> None:
    scene = grown()
    wait = scene.settle().requeue_after
    assert wait is not None
    assert wait <= GROW_SECONDS - 10
    scene.later(49).settle()
    assert scene.decide().directives["pod-0"].action == "run"
    plan = scene.later(1).settle()
    assert {plan.directives[uid].action for uid in ("pod-0", "pod-1")} == {"stop"}
    assert plan.directives["pod-2"].action == "wait"
    scene.all_say(state="preempted").settle()
    assert (scene.rendezvous.round, scene.members) == (2, (0, 1, 2))
    assert (scene.status.restarts, scene.budget.unpaid) == (0, 0)
    assert scene.condition("Running").reason == "RendezvousOpened"


def test_the_minute_counts_from_the_opening() -> None:
    scene = grown()
    waits = [scene.later(1).settle().requeue_after or 0.0 for _ in range(60)]
    assert waits[-1] > 0
    assert scene.decide().directives["pod-0"].action == "stop"


def test_a_worker_that_was_added_joins_after_a_minute() -> None:
    scene = Scene(workers=1).running().spec(workers=2).up(1).later(GROW_SECONDS)
    assert scene.settle().directives["pod-0"].action == "stop"
    scene.says(0, state="preempted").settle()
    assert scene.members == (0, 1)


def test_a_worker_that_was_added_and_never_comes_stops_nobody() -> None:
    scene = Scene(workers=1).running().spec(workers=2).later(600)
    assert scene.settle().directives["pod-0"].action == "run"


def test_a_job_that_is_not_elastic_goes_on_until_all_that_were_added_are_there() -> None:
    scene = Scene(workers=2).running().spec(workers=4).up(2).later(GROW_SECONDS)
    plan = scene.settle()
    assert [plan.directives[uid].action for uid in ("pod-0", "pod-1", "pod-2")] == ["run", "run", "wait"]
    scene.up(3).settle()
    assert scene.decide().directives["pod-0"].action == "stop"
    scene.all_say(state="preempted").settle()
    assert (scene.rendezvous.round, scene.members) == (2, (0, 1, 2, 3))


def test_nobody_is_stopped_for_newcomers_while_a_member_is_not_heard() -> None:
    """One that is cut off from the operator alone trains on with the others, and would not stop with them."""
    scene = grown()
    stepping: list[bool] = []
    for step in range(20):
        scene.later(5, heard=False).says(2, round=0)
        if step == 18:
            scene.says(1)
        scene.says(0, progress=make_progress(step, reported_at=scene.now.timestamp()))
        stepping.append(scene.settle().directives["pod-0"].action == "run")
    assert stepping == [True] * 18 + [False] * 2
    assert (scene.rendezvous.round, scene.status.restarts) == (1, 0)


def test_a_stop_for_newcomers_costs_nothing_though_one_of_them_falls_silent_meanwhile() -> None:
    scene = Scene(workers=2).running().spec(workers=4).up(2, 3).later(GROW_SECONDS)
    scene.settle()
    scene.later(15, heard=False).all_say(state="stopping").says(2, round=0).settle()
    scene.all_say(state="preempted").settle()
    assert (scene.condition("Running").reason, scene.members, scene.budget.unpaid) == ("Resizing", (), 0)
    scene.says(3, round=0).settle()
    assert scene.members == (0, 1, 2, 3)


def test_a_worker_that_is_not_wanted_any_more_leaves_at_once() -> None:
    scene = Scene(workers=3).running().spec(workers=2)
    plan = scene.settle()
    assert {told.action for told in plan.directives.values()} == {"stop"}
    assert plan.delete == ()
    plan = scene.all_say(state="preempted").settle()
    assert (scene.rendezvous.round, scene.members) == (2, (0, 1))
    assert [target.uid for target in plan.delete] == ["pod-2"]
    assert plan.directives["pod-2"].action == "wait"
    assert (scene.status.restarts, scene.budget.unpaid) == (0, 0)


def test_a_resize_does_not_wait_for_the_missing() -> None:
    scene = Scene(workers=4, minWorkers=2).running().spec(workers=3).says(1, state="preempted").later(15, heard=False)
    for index in (0, 2, 3):
        scene.says(index, state="preempted")
    scene.settle()
    assert scene.members == (0, 2)


# A resize that is taken back while the members stop for it


@pytest.mark.parametrize("rules", [None, [{"exitCodes": [143], "action": "Fail"}]])
def test_a_resize_that_is_taken_back_costs_nothing(rules: Any) -> None:
    policy = {"maxRestarts": 0, "exitCodeRules": rules} if rules else {"maxRestarts": 0}
    scene = Scene(workers=3, restartPolicy=policy).running()
    for number in range(1, 10):
        first = scene.later(30).spec(workers=2).act()
        assert first.status_first and scene.rendezvous.stopping, "it is written before it is told"
        scene.settle()
        scene.all_say(state="stopping").spec(workers=3)
        assert {told.action for told in scene.settle().directives.values()} == {"stop"}
        scene.all_say(state="preempted").settle()
        assert (scene.rendezvous.round, scene.members, scene.rendezvous.stopping) == (number + 1, (0, 1, 2), None)
        scene.running()
    assert (scene.status.phase, scene.status.restarts, scene.budget.unpaid) == ("Running", 0, 0)


def test_a_newcomer_that_vanishes_while_the_others_stop_for_it_costs_nothing() -> None:
    scene = grown()
    scene.later(60).settle()
    scene.all_say(state="stopping").vanishes(2).launchers.pop("pod-2")
    scene.settle()
    scene.all_say(state="preempted").settle()
    scene.later(SMALLER_SECONDS).settle()
    assert (scene.members, scene.budget.unpaid, scene.status.last_failure) == ((0, 1), 0, None)


def test_an_operator_that_comes_up_hears_those_who_stopped_before_the_newcomer() -> None:
    scene = grown()
    scene.later(60).settle()
    scene.operator_restarts().all_say(state="preempted").settle()
    assert (scene.members, scene.budget.unpaid, scene.condition("Running").reason) == ((), 0, "Resizing")
    scene.says(2, round=0).settle()
    assert (scene.members, scene.budget.unpaid) == ((0, 1, 2), 0)


def test_a_stop_that_comes_too_late_lets_the_last_one_end_its_work() -> None:
    scene = grown()
    scene.later(60).settle()
    assert scene.says(1, state="succeeded").settle().directives["pod-0"].action == "run"
    scene.says(0, state="preempted").settle()
    assert (scene.members, scene.budget.unpaid) == ((0, 1, 2), 0)


# Silence


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0])
def test_a_workers_clock_does_not_hold_up_the_others(skew: float) -> None:
    """Nor does it have a worker given up that is cut off from the operator, but steps along with the others."""
    scene = Scene(workers=3, minWorkers=2).running()
    for step in range(1, 26):
        scene.later(1, heard=False)
        for index in (0, 1):
            scene.polls(index, progress=make_progress(step, reported_at=scene.now.timestamp() + skew))
        scene.settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (1, 0)
    assert scene.status.progress is not None and scene.status.progress.reported_at == scene.now
    for seconds in (14, 1):
        assert scene.rendezvous.round == 1
        scene.later(seconds, heard=False).polls(0).polls(1).settle()
    assert scene.status.restarts == 1 and scene.members == ()


def test_an_elastic_job_goes_on_without_the_silent_when_no_rank_steps() -> None:
    scene = Scene(workers=3, minWorkers=2).running()
    scene.later(14, heard=False).says(0).says(1).settle()
    assert scene.rendezvous.round == 1
    scene.later(1, heard=False).says(0).says(1).settle()
    assert (scene.status.restarts, scene.members) == (1, ())
    assert scene.status.last_failure is not None
    assert (scene.status.last_failure.worker, scene.status.last_failure.reason) == (2, "PodLost")
    scene.later(15).settle()
    assert scene.members in ((0, 1), (0, 1, 2))


def test_while_a_rank_steps_nobody_is_given_up() -> None:
    scene = Scene(workers=3, minWorkers=2).running()
    for step in range(8):
        scene.later(5, heard=False)
        for index in (0, 1):
            scene.says(index, progress=make_progress(step, reported_at=scene.now.timestamp()))
        scene.settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (1, 0)
    assert scene.settle().requeue_after == 15.0


def test_a_job_that_is_not_elastic_waits_for_the_silent() -> None:
    scene = Scene(workers=3).running().later(600, heard=False).says(0).says(1)
    scene.settle()
    assert (scene.rendezvous.round, scene.status.restarts, scene.status.phase) == (1, 0, "Running")


@pytest.mark.parametrize(
    ("least", "heard", "storage"),
    [
        pytest.param(2, (), None, id="nobody is heard"),
        pytest.param(2, (0,), None, id="too few for a round"),
        pytest.param(3, (0, 1), None, id="all are needed"),
        pytest.param(2, (1, 2), {"claimName": "a", "accessMode": "ReadWriteOnce"}, id="nobody can mount the claim"),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_nobody_is_given_up_whom_the_others_cannot_go_on_without(
    least: int, heard: tuple[int, ...], storage: Any, restarted: bool
) -> None:
    """The workers may all be well, and only the way between them and the operator be cut."""
    scene = Scene(workers=3, minWorkers=least, storage=storage, restartPolicy={"maxRestarts": 0}).running()
    if restarted:
        scene.operator_restarts()
    for _ in range(5):
        scene.later(10, heard=False)
        for index in heard:
            scene.says(index, state="running")
        scene.settle()
    assert (scene.rendezvous.round, scene.status.phase, scene.status.restarts) == (1, "Running", 0)
    assert scene.condition("Blocked").reason == "CoordinatorUnreachable"
    scene.all_say(state="running", progress=make_progress(9, reported_at=scene.now.timestamp())).settle()
    assert (scene.rendezvous.round, scene.status.restarts, scene.status.last_failure) == (1, 0, None)
    assert scene.condition("Blocked").status == "False"


def test_a_dead_node_is_found_as_soon_as_enough_others_are_heard() -> None:
    """At the latest by its Pod, which the node controller has go."""
    scene = Scene(workers=3, minWorkers=2).running().later(20, heard=False).says(0)
    scene.settle()
    assert scene.rendezvous.round == 1 and scene.members == (0, 1, 2)
    scene.says(1).settle()
    assert (scene.status.restarts, scene.members) == (1, ())
    scene = Scene(workers=2, minWorkers=2).running().later(20, heard=False).says(0)
    scene.settle()
    assert scene.members == (0, 1)
    scene.changes(1, terminating=True).says(0, state="preempted").settle()
    assert (scene.status.restarts, scene.members) == (0, ())


def test_an_operator_that_comes_up_adopts_the_round() -> None:
    scene = Scene(workers=3, minWorkers=2).running().operator_restarts()
    scene.settle()
    assert (scene.rendezvous.round, scene.status.phase) == (1, "Running")
    scene.later(14).all_say(state="running").settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (1, 0)


def test_an_operator_that_comes_up_takes_nobody_for_gone() -> None:
    """It has heard no launcher yet, and a 0/3 for each running job would be false."""
    scene = Scene(workers=3).running()
    scene.settle()
    before = scene.status
    assert before.ready_workers == 3
    scene.operator_restarts()
    assert scene.decide().status is None
    scene.later(5).says(0, state="running").settle()
    assert scene.status == before
    scene.later(10).says(0, state="running").says(1, state="running").settle()
    assert scene.status.ready_workers == 2


@pytest.mark.parametrize("restarts", [0, 3])
def test_a_drain_while_the_operator_is_away_costs_nothing(restarts: int) -> None:
    """All have saved and left together; nobody saw how worker 1 did, and worker 0 may still be saving."""
    scene = Scene(workers=3, restartPolicy={"maxRestarts": restarts}).running().later(8).operator_restarts()
    plan = scene.vanishes(1).settle()
    assert plan.requeue_after is not None and plan.requeue_after <= SILENT_SECONDS
    scene.later(3).says(0, state="running").says(2, state="running").settle()
    assert scene.rendezvous.round == 1 and scene.members
    scene.later(1).says(0, state="preempted").settle()
    scene.says(2, state="preempted").settle()
    assert (scene.members, scene.status.restarts, scene.status.last_failure) == ((), 0, None)
    scene.up(1).settle()
    assert (scene.members, scene.budget) == ((0, 1, 2), Budget())


@pytest.mark.parametrize(
    ("says", "seconds"),
    [
        pytest.param({"state": "running"}, CAUSE_SECONDS, id="all others go on"),
        pytest.param({"state": "idle"}, 0.0, id="they were told to wait"),
        pytest.param({}, SILENT_SECONDS, id="nobody says anything"),
    ],
)
def test_who_is_gone_and_was_not_called_away_for_all_that_is_known_is_paid_for(says: Any, seconds: float) -> None:
    scene = Scene(workers=2).running().later(8).operator_restarts().vanishes(1)
    if says:
        scene.says(0, **says)
    scene.later(max(0.0, seconds - 1)).settle()
    assert scene.status.restarts == (0 if seconds else 1)
    scene.later(1).settle()
    assert (scene.members, scene.status.restarts) == ((), 1)


@pytest.mark.parametrize("skew", [-1.0, 0.0, 1.0])
def test_a_cause_that_is_known_waits_for_nobody_else(skew: float) -> None:
    """Whatever the clock of its worker says."""
    scene = Scene(workers=3).running().later(8).operator_restarts().vanishes(1)
    scene.fails(0, signal="SIGKILL", at=scene.now.timestamp() + skew).settle()
    assert (scene.status.restarts, scene.members) == (1, ())


def test_an_end_that_is_known_costs_what_it_does_though_the_others_have_stopped() -> None:
    """As of one that runs out of memory while it saves."""
    scene = Scene(workers=2).running().spec(workers=3).up(2).later(GROW_SECONDS)
    scene.settle()
    scene.operator_restarts().dies(1, 137, out_of_memory=True).says(0, state="preempted").settle()
    assert (scene.status.restarts, scene.members) == (1, ())
    assert scene.status.last_failure is not None and scene.status.last_failure.reason == "OutOfMemory"


# The end


def test_a_job_succeeds_when_every_member_has() -> None:
    scene = Scene().running().says(0, state="succeeded")
    scene.settle()
    assert scene.status.phase == "Running"
    scene.says(1, state="succeeded")
    plan = scene.act()
    assert plan.status_first
    assert (scene.status.phase, scene.status.completion_time) == ("Succeeded", scene.now)
    assert scene.condition("Complete").status == "True"
    assert scene.condition("Running").status == "False"


def test_failure_and_success_of_one_round_are_a_failure() -> None:
    scene = Scene().running().says(0, state="succeeded").fails(1)
    scene.settle()
    assert (scene.status.phase, scene.rendezvous.round) == ("Recovering", 2)


# The program is at its end: one rank still writes down what came of it


@pytest.mark.parametrize(
    "goes",
    [
        pytest.param(lambda scene: scene.says(1, state="succeeded", draining=True), id="SIGTERM"),
        pytest.param(lambda scene: scene.changes(1, terminating=True), id="deletion"),
    ],
)
def test_who_has_done_his_part_may_go_and_stops_nobody(goes: Any) -> None:
    scene = Scene(workers=2).running().says(1, state="succeeded")
    assert goes(scene).settle().directives["pod-0"].action == "run"
    scene.vanishes(1)
    assert scene.settle().directives["pod-0"].action == "run"
    scene.says(0, state="succeeded").settle()
    assert (scene.status.phase, scene.status.restarts) == ("Succeeded", 0)


def test_nobody_joins_a_program_that_is_at_its_end() -> None:
    scene = Scene(workers=2, minWorkers=1).running().says(1, state="succeeded").spec(workers=3).up(2)
    assert scene.later(2 * GROW_SECONDS).settle().directives["pod-0"].action == "run"
    scene.says(0, state="succeeded").settle()
    assert scene.status.phase == "Succeeded"


def test_a_worker_that_sees_no_gpu_is_made_anew() -> None:
    """Another try in its Pod would see none either, until the budget is spent. One restart is paid, once."""
    scene = Scene(workers=2, storage={"claimName": "models"}).running().later(60)
    scene.says(0, state="stopping").fails(1, reason="GPUNotVisible")
    assert scene.act().delete == (), "what it costs is written first"
    gone = scene.settle().delete
    assert [(one.name, one.uid) for one in gone] == [("digits-worker-1", "pod-1")]
    assert (scene.members, scene.status.restarts) == ((), 1)
    scene.operator_restarts()
    scene.says(0, state="stopping").fails(1, reason="GPUNotVisible")
    assert [one.uid for one in scene.settle().delete] == ["pod-1"] and not scene.members
    scene.changes(1, terminating=True)
    assert scene.settle().delete == ()
    plan = scene.vanishes(1).settle()
    assert [child["metadata"]["name"] for child in plan.create] == ["digits-worker-1"]
    scene.up(1).later(15).settle()
    assert (scene.members, scene.status.restarts, scene.rendezvous.round) == ((0, 1), 1, 2)
    assert scene.rendezvous.members[1].pod_uid != "pod-1"
