"""Which children are made and which are deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from edgecloud.api.job import TrainingJob
from edgecloud.api.spec import ResourceRequirements
from edgecloud.api.template import MAX_TEMPLATE_SIZE, TOO_LARGE, TOO_LARGE_REMEDY
from edgecloud_operator.core.observed import Service
from edgecloud_operator.core.plan import Children, Plan
from tests.unit.core.build import Scene


def made(plan: Plan) -> list[str]:
    return [f"{child['kind']}/{child['metadata']['name']}" for child in plan.create]


def gone(plan: Plan) -> list[tuple[str, str]]:
    return [(target.name, target.uid) for target in plan.delete]


def test_the_service_comes_first() -> None:
    scene = Scene(workers=2)
    scene.service = None
    scene.accepted()
    assert made(scene.settle()) == ["Service/digits"]
    scene.service = Service(name="digits", uid="service-uid")
    assert made(scene.settle()) == ["Pod/digits-worker-0", "Pod/digits-worker-1"]


def test_the_files_come_before_the_service_so_that_its_presence_tells_of_theirs() -> None:
    scene = Scene(program={"command": ["python", "a.py"], "files": {"a.py": "print()"}})
    scene.service = None
    scene.accepted()
    assert made(scene.settle()) == ["ConfigMap/digits-files", "Service/digits"]


def test_the_files_come_once_more_beside_each_batch_of_pods() -> None:
    """Deleted by hand they never came back, and the next Pods waited for them for ever."""
    scene = Scene(program={"command": ["python", "a.py"], "files": {"a.py": "print()"}}).accepted()
    assert made(scene.settle()) == ["ConfigMap/digits-files", "Pod/digits-worker-0", "Pod/digits-worker-1"]
    scene.up().running()
    assert made(scene.settle()) == []
    assert made(scene.vanishes(1).settle()) == ["ConfigMap/digits-files", "Pod/digits-worker-1"]


def test_pods_are_built_when_they_are_looked_at() -> None:
    create = Scene(workers=1000).accepted().settle().create
    assert isinstance(create, Children), "and not all of them at each decision"
    assert (len(create), create[0] == create[0], create[0] is create[0]) == (1000, True, False)
    assert create[998:] == (create[998], create[999]) != create[:2]


LARGE = {"metadata": {"annotations": {"note": "x" * MAX_TEMPLATE_SIZE}}}
MESSAGE = f"{TOO_LARGE}; {TOO_LARGE_REMEDY}"


def large(**spec: Any) -> Scene:
    """A job whose template no check has seen: the API server can't look into it."""
    scene = Scene(**spec)
    data = scene.job.dump()
    scene.job = TrainingJob.parse(data | {"spec": data["spec"] | {"podTemplate": LARGE}}, stored=True)
    return scene


def test_no_pod_is_made_of_a_template_that_is_too_large() -> None:
    scene = large(workers=3).accepted()
    scene.service = None
    plan = scene.settle()
    assert (made(plan), gone(plan), plan.requeue_after) == ([], [], None)
    blocked = scene.condition("Blocked")
    assert (blocked.status, blocked.reason, blocked.message) == ("True", "AdmissionDenied", MESSAGE)
    smaller = scene.spec(pod_template=None)
    assert made(smaller.settle()) == ["Service/digits"] and smaller.condition("Blocked").status == "False"


def test_who_trains_with_a_template_that_is_too_large_trains_on() -> None:
    """An earlier release took it; a worker that is lost is replaced, and its whole gang is not given up."""
    scene = large(workers=3, storage={"claimName": "claim"}).running()
    assert (scene.condition("Blocked").status, scene.status.phase) == ("False", "Running")
    plan = scene.vanishes(1).settle()
    assert (made(plan), gone(plan)) == (["Pod/digits-worker-1"], [])
    assert scene.condition("Blocked").status == "False"


def test_a_template_that_is_too_large_is_told_before_there_is_a_job() -> None:
    with pytest.raises(ValidationError) as caught:
        Scene(podTemplate=LARGE)
    [error] = caught.value.errors()
    assert error["loc"] == ("spec", "podTemplate")
    assert (error["ctx"]["message"], error["ctx"]["remedy"]) == (TOO_LARGE, TOO_LARGE_REMEDY)
    less = {"metadata": {"annotations": {"note": "x" * (MAX_TEMPLATE_SIZE - 100)}}}
    assert made(Scene(podTemplate=less).accepted().settle()) == ["Pod/digits-worker-0", "Pod/digits-worker-1"]


UNCOUNTED = ResourceRequirements.parse({"limits": {"amd.com/gpu": 4}})


def test_no_pod_holds_an_accelerator_that_the_trainer_does_not_count() -> None:
    """It would train on the CPU. A stored job whose workers have trained so trains on."""
    scene = Scene(trainer={"data": {"name": "digits"}}).spec(resources=UNCOUNTED).accepted()
    scene.service = None
    assert (made(scene.settle()), scene.condition("Blocked").reason) == ([], "AdmissionDenied")
    message = scene.condition("Blocked").message
    assert message.startswith('spec.resources.limits["amd.com/gpu"]: amd.com/gpu is not counted')
    assert "; delete the job, write trainer.device: cuda" in message
    scene = Scene(trainer={"data": {"name": "digits"}}).running().spec(resources=UNCOUNTED)
    assert made(scene.vanishes(1).settle()) == ["Pod/digits-worker-1"]


def test_a_service_that_was_deleted_comes_back() -> None:
    scene = Scene().running()
    scene.service = None
    assert made(scene.settle()) == ["Service/digits"]


def test_only_missing_pods_are_made() -> None:
    scene = Scene(workers=4).accepted().up(1).up(3).dies(3, 137)
    assert made(scene.settle()) == ["Pod/digits-worker-0", "Pod/digits-worker-2"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"terminating": True}, id="a terminating Pod still owns its name"),
        pytest.param({"owned": False}, id="so does a foreign one"),
        pytest.param({"phase": "Failed"}, id="and a dead one"),
        pytest.param({"phase": "Unknown"}, id="and one on a lost node"),
    ],
)
def test_a_name_that_is_taken(change: dict[str, Any]) -> None:
    scene = Scene(workers=1).accepted().up(0).changes(0, **change)
    assert made(scene.settle()) == []


def test_a_foreign_pod_is_never_touched() -> None:
    scene = Scene(workers=1).accepted().up(0, 1).changes(0, owned=False).changes(1, owned=False).dies(0, 1)
    assert gone(scene.settle()) == []


def test_beside_a_foreign_service_no_pod_is_made() -> None:
    scene = Scene().accepted()
    assert scene.service is not None
    scene.service = replace(scene.service, owned=False)
    plan = scene.settle()
    assert (made(plan), gone(plan)) == ([], [])


def test_a_dead_pod_is_deleted_by_its_uid_once_it_is_reckoned_with() -> None:
    scene = Scene().accepted().up().dies(1, 137)
    plan = scene.act()
    assert plan.status_first
    assert gone(scene.decide()) == [("digits-worker-1", "pod-1")]
    scene.changes(1, terminating=True)
    assert gone(scene.decide()) == []


def test_a_dead_member_stays_until_its_round_is_closed() -> None:
    scene = Scene().running().dies(1, 0, round=1, outcome="succeeded")
    assert gone(scene.settle()) == []


@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_a_pod_that_is_not_wanted_any_more_is_deleted(phase: str) -> None:
    scene = Scene(workers=3).accepted().up(0, 2).changes(2, phase=phase).spec(workers=2)
    assert gone(scene.settle()) == [("digits-worker-2", "pod-2")]


def test_a_suspended_job_has_no_pods() -> None:
    scene = Scene(workers=3).accepted().up(0, 1, 2).changes(1, terminating=True).changes(2, owned=False)
    plan = scene.spec(suspend=True).settle()
    assert (made(plan), gone(plan)) == ([], [("digits-worker-0", "pod-0")])
