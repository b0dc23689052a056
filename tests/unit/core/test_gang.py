"""Half a gang gives its places back; a running round, and the only copy of what was trained, never go for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.rounds import enough
from tests.unit.core.build import Scene
from tests.unit.core.profile import tries

CLAIM = {"storage": {"claimName": "checkpoints"}}
ONCE = {"storage": {"claimName": "checkpoints", "accessMode": "ReadWriteOnce"}}
QUOTA: Any = ("QuotaExceeded", "exceeded quota: gpus")


def refused(scene: Scene) -> Scene:
    scene.refused = QUOTA
    return scene


def gone(plan: Plan) -> list[str]:
    return sorted(target.uid for target in plan.delete)


def made(plan: Plan) -> list[str]:
    return [child["metadata"]["name"] for child in plan.create]


def test_half_a_gang_is_given_back_and_all_are_tried_again_together() -> None:
    scene = refused(Scene(workers=3).accepted().up(0, 1))
    plan = scene.settle()
    assert (gone(plan), made(plan), plan.held) == (["pod-0", "pod-1"], [], True)
    scene.changes(0, terminating=True).vanishes(1)
    plan = scene.settle()
    assert (gone(plan), made(plan), plan.held) == ([], [], True), "one is still on its way out"
    scene.vanishes(0)
    plan = scene.settle()
    assert (gone(plan), plan.held) == ([], False)
    assert made(plan) == ["digits-worker-0", "digits-worker-1", "digits-worker-2"]


def test_without_a_refusal_nothing_is_given_back() -> None:
    plan = Scene(workers=3).accepted().up(0, 1).settle()
    assert (gone(plan), made(plan), plan.held) == ([], ["digits-worker-2"], False)


@pytest.mark.parametrize(
    ("spec", "there", "stays"),
    [
        ({"workers": 3}, (0, 1), False),
        ({"workers": 3, "minWorkers": 2}, (0, 1), True),
        ({"workers": 3, "minWorkers": 2}, (0,), False),
        ({"workers": 3, "minWorkers": 2} | ONCE, (1, 2), False),
        ({"workers": 3, "minWorkers": 2} | ONCE, (0, 2), True),
        ({"workers": 3, "minWorkers": 2} | CLAIM, (1, 2), True),
    ],
)
def test_whom_a_round_can_run_with_stays(spec: dict[str, Any], there: tuple[int, ...], stays: bool) -> None:
    plan = refused(Scene(**spec).accepted().up(*there)).settle()
    assert (gone(plan) == []) is stays
    assert (len(made(plan)) == 3 - len(there)) is stays


@pytest.mark.parametrize("spec", [{}, CLAIM])
def test_the_members_of_a_round_never_go(spec: dict[str, Any]) -> None:
    scene = Scene(workers=2, **spec).running().spec(workers=4)
    plan = refused(scene).settle()
    assert (gone(plan), made(plan)) == ([], ["digits-worker-2", "digits-worker-3"])


@pytest.mark.parametrize(("spec", "stays"), [({}, True), (CLAIM, False)])
def test_the_only_copy_of_what_was_trained_is_kept(spec: dict[str, Any], stays: bool) -> None:
    scene = Scene(workers=2, **spec).running().dies(1, 137)
    scene.settle()
    scene.vanishes(1)
    plan = refused(scene).settle()
    assert (scene.members, gone(plan)) == ((), [] if stays else ["pod-0"])
    assert made(plan) == (["digits-worker-1"] if stays else [])


@pytest.mark.parametrize("kind", ["Pod", "Service"])
def test_a_name_that_is_taken_is_a_refusal_too(kind: str) -> None:
    scene = Scene(workers=2).accepted().up(0)
    if kind == "Pod":
        scene.up(1).changes(1, owned=False)
    else:
        assert scene.service is not None
        scene.service = type(scene.service)(name="digits", uid="foreign", owned=False)
    plan = scene.settle()
    assert (gone(plan), made(plan)) == (["pod-0"], [])
    scene.vanishes(0)
    plan = scene.settle()
    assert (gone(plan), made(plan), plan.held) == ([], [], False)


def test_a_name_that_an_elastic_job_can_do_without() -> None:
    scene = Scene(workers=3, minWorkers=2).accepted().up(1).changes(1, owned=False)
    plan = scene.settle()
    assert (gone(plan), made(plan)) == ([], ["digits-worker-0", "digits-worker-2"])


@tries(300)
@given(
    workers=st.integers(1, 4),
    least=st.integers(0, 3),
    storage=st.sampled_from((None, "ReadWriteMany", "ReadWriteOnce")),
    story=st.sampled_from(("accepted", "running", "closed")),
    pods=st.lists(st.sampled_from(("alive", "going", "dead", "foreign", "absent")), min_size=4, max_size=4),
    is_refused=st.booleans(),
)
def test_any_half(workers: int, least: int, storage: str | None, story: str, pods: list[str], is_refused: bool) -> None:
    """Outside of a round a refused job holds Pods that could make one, or what it has trained; or none, by this plan.

    And in one plan nothing is both given back and asked for.
    """
    spec: dict[str, Any] = {"workers": workers, "minWorkers": min(least, workers) or None}
    if storage:
        spec["storage"] = {"claimName": "checkpoints", "accessMode": storage}
    scene = Scene(**spec).running() if story != "accepted" else Scene(**spec).accepted().up()
    for index, how in enumerate(pods[:workers]):
        if story == "closed" and index == 0:
            scene.dies(0, 137).settle()
        if how == "going":
            scene.changes(index, terminating=True)
        elif how == "dead":
            scene.dies(index, 137)
        elif how == "foreign":
            scene.changes(index, owned=False)
        elif how == "absent":
            scene.vanishes(index)
    scene.refused = QUOTA if is_refused else None
    plan = scene.settle()
    members = {member.pod_uid for member in scene.rendezvous.members}
    going = {target.uid for target in plan.delete}
    assert not going & members, "a member of the round is deleted"
    own = [pod for pod in scene.pods.values() if pod.owned]
    held = [pod.index for pod in own if not pod.dead and not pod.terminating and pod.uid not in going]
    if is_refused and not scene.members and scene.status.phase not in ("Failed", "Succeeded"):
        trained = scene.rendezvous.round > 0 and storage is None
        assert not held or trained or enough(scene.job, held)
        assert not (plan.create and going & {pod.uid for pod in own if not pod.dead})
    if not is_refused and all(pod.owned for pod in scene.pods.values()):
        assert not any(not pod.dead for pod in own if pod.uid in going), "given back although nobody refuses anything"
