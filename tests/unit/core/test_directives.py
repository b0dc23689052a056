"""What each launcher is told."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud.protocol import RunOrder
from edgecloud_operator.core.members import SILENT_SECONDS
from tests.unit.core.build import Scene


def orders(scene: Scene) -> dict[int, RunOrder | None]:
    """What the members are told of their part, the first having taken the round up."""
    scene.says(scene.members[0], state="running", port=29000)
    told = scene.settle().directives
    assert {told[scene.uid(index)].action for index in scene.members} == {"run"}
    return {index: told[scene.uid(index)].run for index in scene.members}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        pytest.param({"workers": 3}, {0: (0, 1, 0), 1: (1, 1, 1), 2: (2, 1, 2)}, id="one process each"),
        pytest.param({"workers": 2, "processesPerWorker": 4}, {0: (0, 4, 0), 1: (4, 4, 1)}, id="four processes each"),
        pytest.param(
            {"workers": 2, "resources": {"limits": {"nvidia.com/gpu": 2}}},
            {0: (0, 2, 0), 1: (2, 2, 1)},
            id="a process for each GPU",
        ),
        pytest.param(
            {
                "pools": [
                    {"name": "cloud", "workers": 1, "resources": {"limits": {"nvidia.com/gpu": "2"}}},
                    {"name": "edge", "workers": 2},
                ]
            },
            {0: (0, 2, 0), 1: (2, 1, 1), 2: (3, 1, 2)},
            id="unequal pools",
        ),
    ],
)
def test_ranks_and_world_size(spec: dict[str, Any], parts: dict[int, tuple[int, int, int]]) -> None:
    said = orders(Scene(**spec).started())
    world = sum(part[1] for part in parts.values())
    for index, order in said.items():
        assert order is not None
        assert (order.first_rank, order.processes, order.group_rank) == parts[index]
        assert (order.world_size, order.group_size) == (world, len(parts))
        assert (order.master_address, order.master_port) == ("10.0.0.0", 29000)


def test_ranks_of_a_smaller_round_have_no_gaps() -> None:
    scene = Scene(workers=3, minWorkers=2, processesPerWorker=2).accepted().up(0, 2).later(15)
    scene.settle()
    said = orders(scene)
    assert {index: order and order.first_rank for index, order in said.items()} == {0: 0, 2: 2}
    assert {order.world_size for order in said.values() if order} == {4}


def test_the_first_member_is_told_its_free_port_and_the_others_wait_until_it_has_taken_it() -> None:
    scene = Scene(workers=2).started()
    told = scene.settle().directives
    assert told["pod-0"].run is not None
    assert (told["pod-0"].action, told["pod-0"].round, told["pod-0"].run.master_port) == ("run", 1, 20000)
    assert (told["pod-1"].action, told["pod-1"].round) == ("wait", 0)
    scene.says(0, state="running", port=20000, next_port=30001)
    told = scene.settle().directives
    for uid in ("pod-0", "pod-1"):
        run = told[uid].run
        assert run is not None
        assert run.master_port == 20000


def test_the_next_round_has_the_next_port() -> None:
    scene = Scene(workers=2).started().says(0, state="running", port=20000, next_port=30001).says(1, state="running")
    scene.settle()
    scene.fails(1, signal="SIGKILL").settle()
    told = scene.settle().directives
    assert told["pod-0"].run is not None
    assert (told["pod-0"].round, told["pod-0"].run.master_port) == (2, 30001)


def test_the_first_member_of_the_round_is_the_master_not_worker_0() -> None:
    scene = Scene(workers=3, minWorkers=2).accepted().up(1, 2).later(15)
    scene.settle()
    for order in orders(scene).values():
        assert order is not None
        assert order.master_address == "10.0.0.1"


def test_who_is_in_the_round_is_never_told_to_wait() -> None:
    scene = Scene(workers=2).running().operator_restarts().says(1, state="running", round=1)
    told = scene.settle().directives
    assert (told["pod-1"].action, told["pod-1"].round) == ("run", 1)
    scene.says(0, state="running", round=1, port=20000)
    told = scene.settle().directives
    assert told["pod-1"].run is not None
    assert told["pod-1"].run.master_port == 20000


def test_who_is_in_no_round_waits() -> None:
    scene = Scene(workers=3, minWorkers=2).accepted().up(0, 1).later(15)
    scene.settle()
    told = scene.up(2).settle().directives["pod-2"]
    assert (told.action, told.round) == ("wait", 1)


def test_between_rounds_all_wait() -> None:
    scene = Scene(workers=2).running().dies(0, 137)
    told = scene.settle().directives
    assert {(one.action, one.round) for one in told.values()} == {("wait", 1)}


def test_only_who_was_heard_is_told_anything() -> None:
    scene = Scene(workers=2).accepted().up(0)
    scene.pods["pod-1"] = scene.pods["pod-0"]
    assert set(scene.settle().directives) == {"pod-0"}


def test_directives_follow_the_status_that_was_written_not_the_one_to_be_written() -> None:
    scene = Scene(workers=2).running().fails(0, signal="SIGKILL")
    plan = scene.decide()
    assert plan.status is not None
    assert plan.status.rendezvous is not None
    assert plan.status.rendezvous.round == 2
    assert {told.round for told in plan.directives.values()} == {1}


def test_the_grace_of_a_stop_is_the_users() -> None:
    scene = Scene(workers=2, stopGraceSeconds=7).running().says(0, draining=True)
    assert {told.grace_seconds for told in scene.settle().directives.values()} == {7.0}


@pytest.mark.parametrize(
    ("said", "asked"), [({"asks": True}, True), ({}, False), ({"asks": True, "round": 0, "state": "idle"}, False)]
)
def test_a_stop_says_to_all_whether_a_process_of_the_round_asks_for_it(said: dict[str, Any], asked: bool) -> None:
    scene = Scene(workers=2).running().says(1, **said).says(0, draining=True)
    stops = scene.settle().directives
    assert {(told.action, told.asked) for told in stops.values()} == {("stop", asked)}


@pytest.mark.parametrize("suspend", [True, False])
def test_a_member_that_an_operator_has_yet_to_hear_may_be_the_one_that_asks(suspend: bool) -> None:
    """The others are not ended by SIGTERM before it says so; but it is not waited for long."""
    scene = Scene(workers=2).running().operator_restarts()
    scene.spec(suspend=suspend).later(1).says(1, state="running", draining=not suspend)
    told = scene.settle().directives["pod-1"]
    assert (told.action, told.asked) == ("stop", True)
    told = scene.later(SILENT_SECONDS).settle().directives["pod-1"]
    assert (told.action, told.asked) == ("stop", False)


def test_a_member_that_is_gone_is_not_expected_to_ask() -> None:
    scene = Scene(workers=2).running().operator_restarts().later(1).dies(0, 143)
    scene.spec(suspend=True).says(1, state="running")
    told = scene.settle().directives["pod-1"]
    assert (told.action, told.asked) == ("stop", False)


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 1), ("Suspended", 143)])
def test_whoever_has_nothing_left_to_do_is_sent_home(phase: str, code: int) -> None:
    scene = Scene(workers=2).running().with_status(phase=phase, completion_time=None)
    scene.spec(suspend=phase == "Suspended")
    told = scene.settle().directives["pod-0"]
    assert (told.action, told.exit_code) == ("exit", code)
    assert phase.lower() in told.reason
