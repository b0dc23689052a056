"""The Blocked and Stalled conditions, and when time alone would bring them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.core.events import MAX_MESSAGE
from edgecloud_operator.core.health import (
    GATED,
    GATED_REMEDY,
    LEFTOVER_SECONDS,
    MEASURING_REMEDIES,
    REMEDIES,
    STALLED_SECONDS,
    UNKNOWN_FIELD_REMEDY,
    UNSAID_MEASURING,
    UNSAID_OF_POOLS,
    UNSAID_REMEDY,
    UNSCOPED_REMEDY,
    WEBHOOK_REMEDY,
)
from edgecloud_operator.core.members import SILENT_SECONDS
from edgecloud_operator.core.stuck import UNHEARD_SECONDS
from tests.unit.core.build import MEASURED, Scene, make_progress


def silent(scene: Scene) -> None:
    scene.launchers.pop("pod-1")
    scene.later(UNHEARD_SECONDS)


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        pytest.param(
            lambda scene: setattr(scene, "service", replace(scene.service, owned=False)),
            "NameTaken",
            "a Service digits that is not this job's exists",
            id="a foreign Service",
        ),
        pytest.param(
            lambda scene: scene.changes(1, owned=False),
            "NameTaken",
            "a Pod digits-worker-1 that is not this job's exists",
            id="a foreign Pod",
        ),
        pytest.param(
            lambda scene: scene.changes(1, phase="Pending", blocked=("Unschedulable", "0/3 nodes are available")),
            "Unschedulable",
            "digits-worker-1: 0/3 nodes are available",
            id="no node",
        ),
        pytest.param(
            lambda scene: scene.changes(1, phase="Pending", blocked=("ErrImagePull", "no such image")),
            "ErrImagePull",
            "digits-worker-1: no such image",
            id="no image",
        ),
        pytest.param(
            silent,
            "CoordinatorUnreachable",
            "digits-worker-1 runs on node-1, and its launcher was not heard",
            id="mute",
        ),
        pytest.param(
            lambda scene: scene.dies(1, 137).changes(1, blocked=("ErrImagePull", "no such image")),
            "NotBlocked",
            "",
            id="a dead Pod is not blocked",
        ),
        pytest.param(
            lambda scene: scene.up(2).changes(2, owned=False), "NotBlocked", "", id="a foreign Pod beyond the spec"
        ),
        pytest.param(
            lambda scene: scene.spec(workers=1).changes(1, blocked=("Unschedulable", "no node")),
            "NotBlocked",
            "",
            id="a Pod that is not wanted any more",
        ),
        pytest.param(lambda scene: None, "NotBlocked", "", id="nothing"),
    ],
)
def test_what_blocks_a_job(change: Any, reason: str, words: str) -> None:
    scene = Scene(workers=2).accepted().up()
    change(scene)
    scene.settle()
    blocked = scene.condition("Blocked")
    assert (blocked.reason, blocked.status) == (reason, "False" if reason == "NotBlocked" else "True")
    assert words in blocked.message


def test_a_round_that_waits_for_the_cause_of_a_failure_is_not_said_to_start() -> None:
    scene = Scene().running().fails(1)
    scene.settle()
    running = scene.condition("Running")
    assert (scene.status.phase, running.status, running.reason) == ("Recovering", "False", "RoundClosed")
    assert running.message == "round 1 ends: worker 1 failed"


def test_a_refused_child_blocks_for_as_long_as_it_is_refused() -> None:
    scene = Scene(workers=2, minWorkers=1).accepted().up(0)
    scene.refused = ("QuotaExceeded", "pods: used 4 of 4")
    plan = scene.settle()
    blocked = scene.condition("Blocked")
    assert (blocked.reason, blocked.status) == ("QuotaExceeded", "True")
    assert blocked.message == f"pods: used 4 of 4; {REMEDIES['QuotaExceeded']}"
    assert [child["metadata"]["name"] for child in plan.create] == ["digits-worker-1"]
    scene.refused = None
    scene.later(1).settle()
    assert scene.condition("Blocked").status == "False"


def test_a_webhook_that_cannot_be_asked_is_no_rule_that_the_spec_could_keep_to() -> None:
    scene = Scene().accepted()
    words = 'Internal error occurred: failed calling webhook "policy.example.com": connection refused'
    scene.refused = ("AdmissionDenied", words)
    scene.settle()
    blocked = scene.condition("Blocked")
    assert (blocked.reason, blocked.message) == ("AdmissionDenied", f"{words}; {WEBHOOK_REMEDY}")


def test_a_field_that_the_server_does_not_know_is_no_rule_either() -> None:
    scene = Scene().accepted()
    scene.refused = ("AdmissionDenied", 'strict decoding error: unknown field "spec.nodeSelectr"')
    scene.settle()
    assert scene.condition("Blocked").message == f"{scene.refused[1]}; {UNKNOWN_FIELD_REMEDY}"


_UNSAID = 'pods "a" is forbidden: failed quota: team: must specify limits.cpu for: worker; limits.memory for: worker'
_UNSCOPED = 'pods "a" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [high]}]'
_OTHERS = 'pods "a" is forbidden: insufficient quota to match these scopes: [{CrossNamespacePodAffinity Exists []}]'


@pytest.mark.parametrize(
    ("spec", "words", "remedy"),
    [
        ({}, _UNSAID, UNSAID_REMEDY),
        ({"workers": 1}, _UNSAID, UNSAID_REMEDY),
        ({"pools": [{"name": "a", "workers": 2}]}, _UNSAID, UNSAID_REMEDY),
        ({"pools": [{"name": "a", "workers": 2, "resources": {"limits": {"cpu": 1}}}]}, _UNSAID, UNSAID_OF_POOLS),
        (MEASURED, _UNSAID, UNSAID_MEASURING),
        ({}, _UNSCOPED, UNSCOPED_REMEDY),
        (MEASURED, _UNSCOPED, UNSCOPED_REMEDY),
        ({}, _OTHERS, REMEDIES["QuotaExceeded"]),
    ],
)
def test_a_quota_that_is_not_used_up_is_not_to_be_raised(spec: dict[str, Any], words: str, remedy: str) -> None:
    scene = Scene(**spec)
    if spec is MEASURED:
        scene.trained().later(1).settle()
        assert scene.status.measuring is not None
    else:
        scene.accepted()
    scene.refused = ("QuotaExceeded", words)
    scene.settle()
    assert scene.condition("Blocked").message == f"{words}; {remedy}"


@pytest.mark.parametrize(
    ("spec", "ways"),
    [
        ({"workers": 2}, ", lower spec.workers or set spec.minWorkers"),
        ({"workers": 1}, ""),
        ({"pools": [{"name": "a", "workers": 2}]}, ", or set spec.minWorkers"),
        ({"pools": [{"name": "a", "workers": 2}], "minWorkers": 1}, ""),
        ({"pools": [{"name": "a", "workers": 1}]}, ""),
    ],
)
def test_a_remedy_is_one_that_the_job_can_take(spec: dict[str, Any], ways: str) -> None:
    """The pools stay as they were created, and of one worker there are no fewer."""
    scene = Scene(**spec).accepted().up(0).changes(0, phase="Pending", blocked=("Unschedulable", "no node"))
    scene.settle()
    assert scene.condition("Blocked").message.endswith(f"free GPUs or other resources that it asks for{ways}")
    scene.changes(0, blocked=None)
    scene.refused = ("QuotaExceeded", "used 4 of 4")
    scene.settle()
    assert scene.condition("Blocked").message.endswith(f"; raise the quota or free what it counts{ways}")


@pytest.mark.parametrize("remedies", [REMEDIES, MEASURING_REMEDIES])
def test_the_way_to_a_pull_secret_is_one_that_counts(remedies: dict[str, str]) -> None:
    """What stands right below podTemplate, beside its spec, is no field."""
    assert "imagePullSecrets, in spec.podTemplate.spec or at the ServiceAccount" in remedies["ErrImagePull"]


def pulls(scene: Scene, words: str) -> str:
    scene.changes(0, phase="Pending", blocked=("ErrImagePull", words)).settle()
    return scene.condition("Blocked").message


def test_an_image_that_is_waited_for_again_and_again_says_the_same_all_the_while() -> None:
    scene = Scene(workers=1).accepted().up(0)
    why = pulls(scene, "ErrImagePull: not found")
    since = scene.condition("Blocked").last_transition_time
    for _ in range(3):
        assert pulls(scene.later(30), 'ImagePullBackOff: Back-off pulling image "nope"') == why
        assert pulls(scene.later(30), "ErrImagePull: not found") == why
    assert pulls(scene, "ErrImagePull: no route to host") != why
    assert scene.condition("Blocked").last_transition_time == since


def test_an_image_of_which_nothing_better_is_known() -> None:
    scene = Scene(workers=1).accepted().up(0)
    assert pulls(scene, "ImagePullBackOff").startswith("digits-worker-0: ImagePullBackOff; push the image")
    scene.changes(0, phase="Pending", blocked=("Unschedulable", "no node")).settle()
    assert scene.condition("Blocked").reason == "Unschedulable"


@given(st.sampled_from(sorted(REMEDIES)), st.text(max_size=5000))
def test_a_message_is_one_bounded_line_with_its_remedy(reason: Any, words: str) -> None:
    scene = Scene(workers=2).accepted().up(0).changes(0, phase="Pending", blocked=(reason, words))
    plan = scene.act()
    message = scene.condition("Blocked").message
    assert message.splitlines() == [message]
    assert message.startswith("digits-worker-0:") and message.endswith(f"; {REMEDIES[reason]}")
    assert len(message) <= MAX_MESSAGE
    assert [event.message for event in plan.events if event.reason == reason] == [message], "whole in the event"


def test_every_reason_to_be_blocked_that_is_given_has_a_remedy() -> None:
    assert all("; " not in remedy[-2:] and remedy == " ".join(remedy.split()) for remedy in REMEDIES.values())


@pytest.mark.parametrize("kind", ["Pod", "Service"])
def test_what_an_earlier_job_of_this_name_has_left_is_given_time_to_go(kind: str) -> None:
    scene = Scene(workers=2).accepted().up()
    if kind == "Pod":
        scene.changes(1, owned=False, leftover=True)
    else:
        assert scene.service is not None
        scene.service = replace(scene.service, owned=False, leftover=True)
    scene.settle()
    assert scene.condition("Blocked").status == "False"
    plan = scene.later(LEFTOVER_SECONDS - 1).settle()
    assert scene.condition("Blocked").status == "False"
    assert plan.requeue_after is not None and plan.requeue_after <= 1
    scene.later(1).settle()
    blocked = scene.condition("Blocked")
    name = "digits-worker-1" if kind == "Pod" else "digits"
    assert blocked.reason == "NameTaken"
    assert f"a {kind} {name} that is left of an earlier job of this name exists" in blocked.message
    assert f"kubectl delete {kind.lower()} {name}" in blocked.message


def test_what_no_longer_blocks_is_taken_back() -> None:
    scene = Scene(workers=1).accepted().up(0).changes(0, phase="Pending", blocked=("Unschedulable", "no node"))
    scene.settle()
    scene.later(5).changes(0, phase="Running", blocked=None).settle()
    blocked = scene.condition("Blocked")
    assert (blocked.status, blocked.last_transition_time) == ("False", scene.now)


def test_a_running_pod_has_30_seconds_to_be_heard() -> None:
    scene = Scene(workers=1).accepted().up(0)
    scene.launchers.clear()
    assert scene.settle().requeue_after == UNHEARD_SECONDS
    assert scene.later(29).settle().requeue_after == 1
    assert scene.condition("Blocked").status == "False"
    scene.later(1).settle()
    assert scene.condition("Blocked").reason == "CoordinatorUnreachable"


def test_so_has_an_operator_that_comes_up() -> None:
    scene = Scene(workers=1).running().later(100).operator_restarts().later(29)
    scene.settle()
    assert scene.condition("Blocked").status == "False"
    scene.later(1).settle()
    assert scene.condition("Blocked").reason == "CoordinatorUnreachable"


@pytest.mark.parametrize("change", [{"phase": "Pending"}, {"running_since": None}, {"phase": "Failed"}])
def test_only_running_pods_are_missed(change: dict[str, Any]) -> None:
    scene = Scene(workers=1).accepted().up(0).changes(0, **change)
    scene.launchers.clear()
    scene.later(100).settle()
    assert scene.condition("Blocked").status == "False"


def test_a_job_whose_steps_stop_is_stalled() -> None:
    scene = Scene(workers=1).running().says(0, progress=make_progress(7))
    plan = scene.settle()
    assert plan.requeue_after is not None
    scene.later(STALLED_SECONDS - 1).settle()
    assert scene.condition("Stalled").status == "False"
    plan = scene.later(1).act()
    assert scene.condition("Stalled").reason == "NoProgress"
    assert [event.reason for event in plan.events] == ["NoProgress"]
    scene.later(1).says(0, progress=make_progress(8, reported_at=scene.now.timestamp())).settle()
    assert scene.condition("Stalled").status == "False"


def test_a_job_that_reports_no_steps_is_never_stalled() -> None:
    scene = Scene(workers=1).running().later(10 * STALLED_SECONDS)
    scene.settle()
    assert scene.condition("Stalled").status == "False"


def test_a_job_that_recovers_is_not_stalled() -> None:
    scene = Scene().running().says(0, progress=make_progress(7)).dies(1, 137).later(2 * STALLED_SECONDS)
    scene.settle()
    assert scene.condition("Stalled").status == "False"


@pytest.mark.parametrize(
    "story",
    [
        pytest.param(lambda scene: scene.accepted(), id="nothing is there"),
        pytest.param(lambda scene: scene.started(), id="starting"),
        pytest.param(lambda scene: scene.running(), id="running"),
        pytest.param(lambda scene: scene.running().says(0, progress=make_progress(3)), id="stepping"),
        pytest.param(lambda scene: scene.running().fails(0), id="failing"),
        pytest.param(lambda scene: scene.running().dies(0, 137), id="closed"),
        pytest.param(lambda scene: scene.running().operator_restarts(), id="taken over"),
    ],
)
def test_a_decision_says_when_time_alone_would_change_it(story: Any) -> None:
    scene = Scene(workers=3, minWorkers=2, startDeadlineSeconds=3000, activeDeadlineSeconds=5000)
    story(scene)
    for _ in range(30):
        plan = scene.settle()
        if plan.requeue_after is None:
            return
        soon = scene.later(plan.requeue_after - 0.01, heard=False).decide()
        assert (soon.status, soon.create, soon.delete, soon.directives) == (
            None,
            plan.create,
            plan.delete,
            plan.directives,
        )
        scene.later(0.01, heard=False)
    assert scene.status.phase in ("Failed", "Pending", "Recovering", "Running")


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_workers_clock_does_not_tell_whether_a_job_is_stalled(skew: float) -> None:
    scene = Scene().running()
    for step in range(5):
        scene.later(STALLED_SECONDS / 2, heard=True)
        for index in (0, 1):
            scene.polls(index, progress=make_progress(step, reported_at=scene.now.timestamp() + skew))
        scene.settle()
        assert scene.condition("Stalled").status == "False"
    scene.later(STALLED_SECONDS - 1).settle()
    assert scene.condition("Stalled").status == "False"
    scene.later(1).settle()
    assert scene.condition("Stalled").status == "True"


def test_a_job_is_not_stalled_for_an_operator_that_was_away() -> None:
    """Nor is it said of one that is stalled that it makes progress, before anybody has said so."""
    scene = Scene().running()
    scene.all_say(progress=make_progress(7, reported_at=scene.now.timestamp())).settle()
    scene.later(2 * STALLED_SECONDS).operator_restarts()
    assert scene.settle().requeue_after == SILENT_SECONDS
    assert scene.condition("Stalled").status == "False"
    scene.later(5).all_say(state="running", progress=make_progress(9, reported_at=scene.now.timestamp())).settle()
    assert scene.condition("Stalled").status == "False"
    scene.later(STALLED_SECONDS).settle()
    assert scene.condition("Stalled").status == "True"
    scene.operator_restarts().settle()
    assert scene.condition("Stalled").status == "True"
    scene.later(SILENT_SECONDS).settle()
    assert scene.condition("Stalled").status == "True"


def test_an_operator_that_comes_up_finds_a_job_stalled_that_has_been_for_long() -> None:
    scene = Scene().running()
    stuck = make_progress(7, reported_at=scene.now.timestamp())
    scene.later(2 * STALLED_SECONDS).operator_restarts()
    scene.polls(0, progress=stuck).polls(1, progress=stuck).settle()
    assert scene.condition("Stalled").status == "True"


def test_the_clusters_words_come_without_what_a_terminal_would_obey() -> None:
    """Some of them are a registry's, or an init container's."""
    scene = Scene().accepted()
    scene.refused = ("AdmissionDenied", "denied by\x1b[2J\nrule.")
    scene.settle()
    assert scene.condition("Blocked").message.startswith("denied by [2J rule; change spec")


@pytest.mark.parametrize("spec", [{"workers": 1}, {"workers": 2}])
def test_a_gated_pod_waits_for_its_queue(spec: dict[str, Any]) -> None:
    """To free GPUs would not bring it up: no scheduler looks at it."""
    scene = Scene(**spec).accepted().up().changes(0, phase="Pending", blocked=("Unschedulable", f"{GATED}: blocked"))
    scene.settle()
    message = scene.condition("Blocked").message
    assert message == f"digits-worker-0: {GATED}: blocked; {GATED_REMEDY}"
