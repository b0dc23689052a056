"""Half a gang gives its places back; a running round, and the only copy of what was trained, never go for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.core.context import Context
from edgecloud_operator.core.gang import GIVE_BACK_SECONDS, until_nobody_waits
from edgecloud_operator.core.health import GATED
from edgecloud_operator.core.plan import GivenBack, Plan
from edgecloud_operator.core.rounds import enough
from edgecloud_operator.core.stuck import UNHEARD_SECONDS
from tests.unit.core.build import SETTINGS, Scene
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


# For some there is a node, and for the others none

NO_NODE: Any = ("Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
UNPLACED: dict[str, Any] = {"phase": "Pending", "node": "", "running_since": None, "blocked": NO_NODE}
PATIENCE = SETTINGS.give_back_seconds


def half_placed(**spec: Any) -> Scene:
    """The last worker waits for a node, the others have theirs."""
    scene = Scene(**{"workers": 3} | spec).accepted().up()
    last = scene.job.spec.worker_count() - 1
    scene.launchers.pop(scene.uid(last))
    return scene.changes(last, **UNPLACED)


def patience(scene: Scene) -> float:
    """How long the workers of a job keep their places, as the plan has it."""
    left = until(scene)
    assert PATIENCE <= left < 2 * PATIENCE
    return left


def until(scene: Scene) -> float:
    return until_nobody_waits(Context(scene.job, scene.observed, scene.now, scene.settings), scene.status)


def test_workers_whose_others_find_no_node_give_theirs_to_whoever_can_use_them() -> None:
    scene = half_placed()
    left = patience(scene)
    plan = scene.later(left - 1).settle()
    assert (gone(plan), made(plan), plan.given_back) == ([], [], None)
    assert plan.requeue_after == pytest.approx(1)
    plan = scene.later(1).settle()
    assert (gone(plan), made(plan), plan.held) == (["pod-0", "pod-1", "pod-2"], [], True)
    assert plan.given_back == GivenBack(
        message="workers with a place: 2, without: 1; the places were given back for others to use, and all workers are"
        f" made anew soon. digits-worker-2: {NO_NODE[1]}",
        pause=PATIENCE / 10,
    )
    # From here on as if the next ones had been refused, until the pause is over.
    scene.refused = ("Unschedulable", plan.given_back.message)
    scene.changes(0, terminating=True).vanishes(1).vanishes(2)
    plan = scene.settle()
    assert (gone(plan), made(plan), plan.held, plan.given_back) == ([], [], True, None), "one is still on its way out"
    assert scene.condition("Blocked").message.startswith("workers with a place: 2, without: 1; ")
    plan = scene.vanishes(0).settle()
    assert made(plan) == ["digits-worker-0", "digits-worker-1", "digits-worker-2"]
    assert (scene.status.restarts, scene.status.last_failure) == (0, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda scene: scene.changes(2, blocked=("Unschedulable", f"{GATED}: a queue holds it")),
        lambda scene: scene.changes(2, blocked=("VolumeNotBound", "pod has unbound claims")),
        lambda scene: scene.changes(2, blocked=None),
        lambda scene: scene.changes(0, **UNPLACED).changes(1, **UNPLACED),
        lambda scene: scene.spec(workers=2),
        lambda scene: scene.spec(min_workers=2),
    ],
    ids=["gated", "volume", "not looked at yet", "nobody has a node", "not wanted", "enough for a round"],
)
def test_who_need_not_give_a_node_back(change: Any) -> None:
    scene = half_placed()
    for uid in list(scene.launchers):
        scene.launchers.pop(uid)  # images are pulled
    change(scene)
    plan = scene.later(10 * PATIENCE, heard=False).settle()
    assert ([uid for uid in gone(plan) if uid != "pod-2"], plan.given_back) == ([], None)


def test_no_node_is_given_back_where_that_is_switched_off() -> None:
    scene = half_placed()
    scene.settings = replace(SETTINGS, give_back_seconds=0)
    assert scene.later(1e6).settle().given_back is None


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_while_nodes_come_up_one_after_the_other_all_are_waited_for(phase: str) -> None:
    """Whatever is done on the node: an image is pulled, an init container runs, or a sidecar before the worker."""
    scene = half_placed(workers=4)
    scene.changes(1, **UNPLACED).changes(2, **UNPLACED)
    scene.later(patience(scene) - 1)
    scene.changes(1, phase=phase, node="node-9", blocked=None, placed_at=scene.now, waits_since=None)
    left = patience(scene)
    scene.later(60).dies(1, 1)
    assert until(scene) == left - 60, "it did get a node, whatever has become of it since"


def test_a_volume_may_be_one_reason_and_full_nodes_the_other() -> None:
    scene = half_placed()
    words = "0/6 nodes are available: 3 Insufficient nvidia.com/gpu, 3 node(s) had volume node affinity conflict."
    scene.changes(2, blocked=("VolumeNotBound", words))
    patience(scene)


@pytest.mark.parametrize("words", ["exceeded quota: pods", 'failed calling webhook "policy.example.com": refused'])
def test_an_elastic_job_of_which_one_worker_is_refused_as_well(words: str) -> None:
    scene = Scene(workers=4, minWorkers=2).accepted().up(0, 1, 2)
    for index in (1, 2):
        scene.launchers.pop(scene.uid(index))
        scene.changes(index, **UNPLACED)
    scene.refused = ("QuotaExceeded", words)
    plan = scene.later(2 * PATIENCE).settle()
    webhook = "webhook" in words
    assert gone(plan) == ([] if webhook else ["pod-0", "pod-1", "pod-2"])
    assert (plan.given_back is None) is webhook


def test_what_was_trained_is_kept_after_the_status_was_set_back() -> None:
    scene = Scene(workers=2).running().dies(1, 137)
    scene.settle()
    scene.vanishes(1).up(1).changes(1, **UNPLACED)
    scene.launchers.pop(scene.uid(1))
    scene.job = scene.job.with_status(None)
    plan = scene.later(10 * PATIENCE).settle()
    assert (scene.rendezvous.round, gone(plan), plan.given_back) == (0, [], None)


@pytest.mark.parametrize("spec", [{}, CLAIM])
def test_workers_that_have_trained_keep_their_nodes(spec: dict[str, Any]) -> None:
    """A lost node comes back, or another one does; and whoever has not trained gives way."""
    scene = Scene(workers=2, **spec).running().dies(1, 137)
    scene.settle()
    scene.vanishes(1).up(1).changes(1, **UNPLACED)
    scene.launchers.pop(scene.uid(1))
    plan = scene.later(10 * PATIENCE).settle()
    assert (scene.members, gone(plan), plan.given_back) == ((), [], None)


def test_of_two_jobs_that_wait_for_each_other_one_gives_way_first() -> None:
    """Made in the same moment and held up in the same moment: what they wait differs by their uids, by seconds."""
    lefts = []
    for number in range(40):
        scene = half_placed()
        metadata = scene.job.metadata.model_copy(update={"uid": f"uid-{number}"})
        scene.job = scene.job.model_copy(update={"metadata": metadata})
        lefts.append(patience(scene))
    close = sum(abs(one - other) < 5 for one, other in pairwise(lefts))
    assert close <= 4, lefts


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
