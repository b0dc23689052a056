"""Half a gang gives its places back; a running round, and the only copy of what was trained, never go for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.core.gang import GIVE_BACK_SECONDS
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.rounds import enough
from edgecloud_operator.core.stuck import UNHEARD_SECONDS
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


def half_lost(**spec: Any) -> Scene:
    """One of two workers is gone for good, the other one waits for another."""
    scene = Scene(workers=2, **spec).running().dies(1, 137)
    scene.settle()
    scene.vanishes(1)
    return refused(scene)


@pytest.mark.parametrize(("spec", "stays"), [({}, True), (CLAIM, False)])
def test_the_only_copy_of_what_was_trained_is_kept(spec: dict[str, Any], stays: bool) -> None:
    scene = half_lost(**spec)
    plan = scene.settle()
    assert (scene.members, gone(plan)) == ((), [] if stays else ["pod-0"])
    assert made(plan) == (["digits-worker-1"] if stays else [])


def test_what_was_never_in_a_round_holds_no_copy() -> None:
    """Resumed under a quota that others use now, a job without a claim holds no place that it has no use for."""
    scene = Scene(workers=2).running().spec(suspend=True)
    scene.all_say(state="preempted").settle()
    scene.vanishes(0).vanishes(1).spec(suspend=False).settle()
    scene.up(0).changes(0, phase="Pending", running_since=None)
    scene.launchers.clear()
    assert gone(refused(scene).settle()) == [scene.uid(0)]
    scene.changes(0, phase="Running", running_since=scene.now)
    assert gone(scene.settle()) == [], "who has not been heard may have trained while nobody listened"
    assert gone(scene.says(0, round=0).settle()) == [scene.uid(0)]


def test_workers_that_have_trained_wait_a_while_for_one_that_is_refused() -> None:
    scene = half_lost(**CLAIM)
    scene.refused_since = scene.now
    plan = scene.settle()
    assert (gone(plan), made(plan), plan.held) == ([], ["digits-worker-1"], False)
    plan = scene.later(GIVE_BACK_SECONDS - 1).settle()
    assert (gone(plan), plan.requeue_after) == ([], 1)
    assert gone(scene.later(1).settle()) == ["pod-0"]


@pytest.mark.parametrize("trained", [False, True])
def test_for_a_webhook_that_is_away_nothing_is_given_back(trained: bool) -> None:
    scene = half_lost(**CLAIM) if trained else Scene(workers=2).accepted().up(0)
    scene.refused = ("AdmissionDenied", 'failed calling webhook "policy.example.com": connection refused')
    plan = scene.later(3600).settle()
    assert (gone(plan), made(plan)) == ([], ["digits-worker-1"])


@pytest.mark.parametrize("node", ["node-1", ""])
def test_a_pod_that_does_not_go_holds_up_nothing_for_ever(node: str) -> None:
    """As one on a lost node does not, until somebody sees to the node."""
    scene = refused(Scene(workers=3).accepted().up(0, 1))
    scene.changes(1, terminating=True, leaves_by=scene.now + timedelta(seconds=45), node=node)
    assert gone(scene.settle()) == ["pod-0"]
    plan = scene.vanishes(0).later(45 + UNHEARD_SECONDS - 1, heard=False).settle()
    assert (made(plan), plan.held, plan.requeue_after) == ([], True, 1), "it may yet go"
    plan = scene.later(1, heard=False).settle()
    assert (made(plan), plan.held) == (["digits-worker-0", "digits-worker-2"], False)
    assert scene.condition("Blocked").reason == ("WorkerSilent" if node else "QuotaExceeded")


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
        heard = [scene.launchers[pod.uid].report.round for pod in own if pod.index in held]
        trained = storage is None and max(heard, default=0) > 0
        assert not held or trained or enough(scene.job, held)
        assert not (plan.create and going & {pod.uid for pod in own if not pod.dead})
    if not is_refused and all(pod.owned for pod in scene.pods.values()):
        assert not any(not pod.dead for pod in own if pod.uid in going), "given back although nobody refuses anything"
