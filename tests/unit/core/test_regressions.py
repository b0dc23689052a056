"""One story for each bug that the core has had. Those that a table tells as well as a story stand in the tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgecloud_operator.core.reconcile import reconcile
from tests.unit.core.build import SETTINGS, Scene, died, make_failure, make_pod, make_progress


def test_a_report_at_a_fraction_of_a_second_is_not_written_for_ever() -> None:
    scene = Scene().running()
    scene.says(0, progress=make_progress(1, reported_at=scene.now.timestamp() + 0.75)).settle()
    assert scene.decide().status is None


def test_the_files_are_made_even_if_the_operator_died_between_two_creates() -> None:
    """The Service was made first, and from its presence the next operator took the ConfigMap for made."""
    scene = Scene(program={"command": ["python", "a.py"], "files": {"a.py": "print()"}})
    scene.service = None
    scene.accepted()
    first = scene.settle().create[0]
    assert first["kind"] == "ConfigMap"
    assert scene.settle().create[0] == first


def test_the_order_in_which_pods_are_seen_does_not_matter() -> None:
    scene = Scene(workers=3).accepted().up().dies(0, 137).dies(1, 137)
    scene.changes(2, blocked=("ErrImagePull", "no"))
    turned = replace(scene.observed, pods=scene.observed.pods[::-1])
    assert reconcile(scene.job, turned, scene.now, SETTINGS) == scene.decide()


@pytest.mark.parametrize("said", [{"state": "idle", "round": 0}, {"state": "idle", "round": 1}])
def test_a_stop_does_not_wait_for_a_worker_that_has_not_taken_the_round_up(said: dict[str, Any]) -> None:
    """A launcher that is told to stop before it began has nothing to say to that, and all waited for its word."""
    scene = Scene(workers=3).running()
    scene.fails(0, signal="SIGKILL").settle()
    assert scene.rendezvous.round == 2
    scene.says(0, state="running").says(1, draining=True, state="running").says(2, **said).settle()
    scene.says(0, state="preempted").dies(1, 143).settle()
    assert scene.members == ()


def test_a_suspension_does_not_wait_for_a_worker_that_has_not_taken_the_round_up() -> None:
    scene = Scene(workers=2).started().says(0, state="running").spec(suspend=True)
    scene.settle()
    scene.says(0, state="preempted").settle()
    assert scene.status.phase == "Suspended"


def test_a_suspension_that_was_taken_back_leaves_nothing_behind() -> None:
    """Its beginning stayed in the condition, and the next suspension believed that its grace had run out."""
    scene = Scene(workers=2).running().spec(suspend=True)
    scene.settle()
    scene.later(1).spec(suspend=False)
    assert scene.settle().directives["pod-0"].action == "stop"
    scene.all_say(state="preempted").settle()
    assert (scene.rendezvous.round, scene.budget.unpaid, scene.status.restarts) == (2, 0, 0)
    assert scene.condition("Suspended").reason == "NotSuspended"
    scene.running().later(1000).spec(suspend=True).settle()
    assert scene.status.phase == "Running"
    assert scene.decide().directives["pod-0"].action == "stop"


def test_what_breaks_while_a_round_stops_for_a_resize_is_no_failure() -> None:
    """A script that does not know of stopping ends with 1 when it gets a SIGTERM."""
    scene = Scene(workers=3).running().spec(workers=2)
    scene.settle()
    for index in range(3):
        scene.fails(index)
    scene.settle()
    assert (scene.rendezvous.round, scene.members, scene.status.restarts) == (2, (0, 1), 0)


def test_what_breaks_in_a_worker_that_is_called_away_is_no_failure() -> None:
    scene = Scene(workers=2).running().fails(1).says(1, draining=True).later(6)
    assert scene.settle().directives["pod-0"].action == "stop"
    scene.says(0, state="preempted").settle()
    assert (scene.status.restarts, scene.members) == (0, ())


def test_a_worker_that_is_not_wanted_any_more_costs_nothing() -> None:
    scene = Scene(workers=3).running().spec(workers=2).dies(2, 137)
    scene.settle()
    scene.says(0, state="preempted").says(1, state="preempted").settle()
    assert (scene.rendezvous.round, scene.members, scene.status.restarts) == (2, (0, 1), 0)


def test_scaling_down_does_not_wait_for_a_worker_on_a_lost_node() -> None:
    scene = Scene(workers=3).running().spec(workers=2).later(15, heard=False)
    scene.says(0, state="preempted").says(1, state="preempted").settle()
    assert (scene.rendezvous.round, scene.members) == (2, (0, 1))


def test_an_elastic_job_does_not_wait_for_a_deleted_pod_on_a_lost_node() -> None:
    """Its Pod is terminating and stays so: the kubelet that would end it is gone."""
    scene = Scene(workers=3, minWorkers=2).running().changes(2, terminating=True).later(16, heard=False)
    for index in (0, 1):
        scene.says(index, state="preempted", progress=make_progress(5, reported_at=scene.now.timestamp()))
    scene.settle()
    assert (scene.members, scene.status.restarts) == ((), 0)
    scene.later(16, heard=False).says(0).says(1).settle()
    assert scene.members == (0, 1)


def test_a_lost_node_with_two_workers_costs_one_restart() -> None:
    """The second Pod died after the round of both was closed and paid for, and was paid for again."""
    scene = Scene(workers=3).running().dies(0, 137)
    scene.settle()
    assert scene.status.restarts == 1
    scene.later(3).dies(1, 137)
    plan = scene.settle()
    assert (scene.status.restarts, scene.budget.unpaid) == (1, 1)
    assert sorted(target.uid for target in plan.delete) == ["pod-0", "pod-1"]


def test_so_it_does_if_the_next_round_was_opened_with_one_of_them() -> None:
    scene = Scene(workers=2).running().fails(0, message="Connection reset by peer").later(5, heard=False)
    scene.says(0).settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (2, 1)
    scene.dies(1, 137).settle()
    assert (scene.status.restarts, scene.budget.unpaid, scene.members) == (1, 1, ())


def test_so_it_does_if_the_worker_on_it_was_given_up_for_silence() -> None:
    scene = Scene(workers=3, minWorkers=2).running().fails(0, message="Connection reset by peer")
    scene.fails(1, message="Connection reset by peer").later(5, heard=False).says(0).says(1).settle()
    assert (scene.rendezvous.round, scene.status.restarts) == (2, 1)
    scene.later(15, heard=False).says(0, state="running").says(1, state="running").settle()
    scene.later(1, heard=False).says(0).says(1).settle()
    assert (scene.status.restarts, scene.budget.unpaid, scene.members) == (1, 1, (0, 1))


def test_what_died_in_a_round_that_was_closed_unpaid_is_not_paid_later() -> None:
    scene = Scene(workers=2).running().says(0, state="preempted").fails(1).dies(1, 1)
    scene.settle()
    assert (scene.rendezvous.round, scene.status.restarts, scene.budget.paid_pods) == (1, 0, ("pod-1",))
    scene.later(10).settle()
    assert scene.status.restarts == 0


def test_a_run_directive_always_has_its_order() -> None:
    """The launcher takes one without it for no directive at all."""
    scene = Scene(workers=2).running()
    for told in scene.settle().directives.values():
        assert told.action == "run"
        assert told.run is not None


def test_the_master_port_is_one_for_all_even_if_the_master_took_an_older_round_up_meanwhile() -> None:
    """Its next port was told to the others, then an answer on its way made it use that port for another round."""
    scene = Scene(workers=2).running()
    scene.fails(1, signal="SIGKILL").settle()
    assert scene.decide().directives["pod-1"].run is None
    scene.says(0, state="running", round=1, port=20000, next_port=30007)
    scene.says(0, state="running", round=2, port=30007, next_port=30014)
    run = scene.settle().directives["pod-1"].run
    assert run is not None
    assert run.master_port == 30007


def test_a_word_to_wait_for_the_others_does_not_end_the_round_it_waits_for() -> None:
    """Two conversations may overtake each other: a wait that comes after the run it preceded is told by its number."""
    scene = Scene(workers=2).running()
    scene.fails(0, signal="SIGKILL").settle()
    told = scene.settle().directives["pod-1"]
    assert (told.action, told.round, scene.rendezvous.round) == ("wait", 1, 2)


def test_a_launcher_whose_own_configuration_is_bad_ends_the_job_at_once() -> None:
    scene = Scene(workers=2).accepted().up().dies(0, 2)
    scene.settle()
    assert scene.condition("Failed").reason == "BadConfiguration"


def test_pods_of_one_index_seen_at_once_are_no_riddle() -> None:
    """The store may still hold a Pod that its replacement has followed."""
    scene = Scene(workers=1).accepted().up(0).later(5).up(0)
    first, second = scene.observed.pods
    turned = replace(scene.observed, pods=(second, first))
    assert reconcile(scene.job, turned, scene.now, SETTINGS) == scene.decide()
    scene.settle()
    assert scene.rendezvous.members[0].pod_uid == scene.uid(0)


def test_a_clean_end_outside_a_round_costs_nothing() -> None:
    scene = Scene(workers=1, restartPolicy={"maxRestarts": 0}).accepted()
    scene.pods["pod-0"] = died(make_pod(0), 0, round=2, outcome="succeeded")
    plan = scene.settle()
    assert (scene.status.phase, scene.status.restarts) == ("Pending", 0)
    assert [target.uid for target in plan.delete] == ["pod-0"]


def test_a_weak_failure_that_only_the_pod_tells_of_is_waited_for_once_and_not_for_ever() -> None:
    """An operator that had come up since never heard its launcher, and the 5 seconds began anew with each decision."""
    scene = Scene(workers=2).running().operator_restarts().says(0, state="running")
    scene.dies(1, 1, round=1, outcome="failed", failure=make_failure()).settle()
    assert scene.rendezvous.round == 1
    scene.later(5).settle()
    assert (scene.members, scene.status.restarts) == ((), 1)
