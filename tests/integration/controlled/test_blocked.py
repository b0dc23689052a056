"""Every reason for which a job can be blocked: shown in one line with since when and what to do, and taken back.

Quotas and admission are the server's own. What a scheduler or a kubelet would write into a Pod's status is written
here, in their words.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgecloud_operator.core.health import REMEDIES, UNKNOWN_FIELD_REMEDY
from tests.integration.api import Api, Space, until
from tests.integration.kubelet import kubelet
from tests.integration.process import OperatorProcess
from tests.integration.watching import PROBE, all_pods, condition, events, pod_status, reaches, refuses

pytestmark = pytest.mark.timeout(120)

SLEEP = {"command": ["sleep", "600"]}


def blocked(space: Space, job: str, reason: str, *, seconds: float = 30.0, remedy: str = "") -> dict[str, Any]:
    """The Blocked condition, once it has that reason; and that it says what it should as it should."""
    until(lambda: space.blocked(job) == reason, f"{reason} is shown", seconds=seconds, saw=lambda: space.status(job))
    found = condition(space, job, "Blocked")
    assert found["status"] == "True"
    assert found["message"].splitlines() == [found["message"]]
    assert found["message"].endswith(remedy or REMEDIES[reason])  # type: ignore[index]
    assert len(found["message"]) <= 1024
    since = datetime.fromisoformat(found["lastTransitionTime"])
    assert 0 <= (datetime.now(UTC) - since).total_seconds() < 40
    assert space.status(job)["summary"]["reason"] == reason
    return found


def goes_on(space: Space, job: str) -> None:
    until(lambda: space.blocked(job) == "NotBlocked", "it is taken back", seconds=40, saw=lambda: space.status(job))
    found = condition(space, job, "Blocked")
    assert (found["status"], found["message"]) == ("False", "")


def warned(space: Space, job: str) -> list[tuple[str, int]]:
    return [(one["reason"], one["count"]) for one in events(space, job) if one["type"] == "Warning"]


def waiting(reason: str, message: str) -> dict[str, Any]:
    """A container that does not start, as a kubelet shows it."""
    state = {"name": "worker", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    return {
        "phase": "Pending",
        "containerStatuses": [state | {"state": {"waiting": {"reason": reason, "message": message}}}],
    }


def unscheduled(message: str) -> dict[str, Any]:
    """A Pod for which a scheduler finds no node."""
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


UNBOUND = (
    "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found. preemption: 0/3 nodes are"
    " available: 3 Preemption is not helpful for scheduling."
)
NO_GPU = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, 2 Insufficient"
    " nvidia.com/gpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption"
    " victims found for incoming pod."
)
NO_SECRET = 'secret "credentials" not found'
NO_IMAGE = (
    'failed to pull and unpack image "docker.io/team/train:1": failed to resolve reference "docker.io/team/train:1":'
    " docker.io/team/train:1: not found"
)
STARTED = {"containerStatuses": [], "conditions": [{"type": "PodScheduled", "status": "True"}]}


@pytest.mark.parametrize(
    ("reason", "status", "words"),
    [
        ("Unschedulable", unscheduled(NO_GPU), "digits-worker-1: " + NO_GPU.rstrip(".")),
        ("VolumeNotBound", unscheduled(UNBOUND), "digits-worker-1: " + UNBOUND.rstrip(".")),
        ("ErrImagePull", waiting("ErrImagePull", NO_IMAGE), "digits-worker-1: ErrImagePull: " + NO_IMAGE),
        (
            "CreateContainerConfigError",
            waiting("CreateContainerConfigError", f"{NO_SECRET}\n\n"),
            f"digits-worker-1: CreateContainerConfigError: {NO_SECRET}",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_a_pod_that_does_not_come_up(
    space: Space, running: OperatorProcess, reason: str, status: dict[str, Any], words: str
) -> None:
    space.submit("digits")
    all_pods(space, "digits", 2)
    pod_status(space, "digits-worker-1", **status)
    found = blocked(space, "digits", reason)
    assert found["message"] == f"{words}; {REMEDIES[reason]}"  # type: ignore[index]
    until(lambda: warned(space, "digits") == [(reason, 1)], "one event", saw=lambda: warned(space, "digits"))
    pod_status(space, "digits-worker-1", **STARTED)
    goes_on(space, "digits")


def test_an_image_that_is_pulled_again_and_again_is_said_once(space: Space, running: OperatorProcess) -> None:
    """And so is a scheduler that counts anew: neither an event nor a write for each of their words."""
    space.submit("digits")
    all_pods(space, "digits", 2)
    backing = f'Back-off pulling image "team/train:1": ErrImagePull: {NO_IMAGE}'
    pod_status(space, "digits-worker-0", **waiting("ErrImagePull", NO_IMAGE))
    found = blocked(space, "digits", "ErrImagePull")
    version = space.job("digits")["metadata"]["resourceVersion"]
    for place in range(6):
        bare = 'Back-off pulling image "team/train:1"'
        pod_status(space, "digits-worker-0", **waiting("ImagePullBackOff", bare if place % 2 else backing))
        pod_status(space, "digits-worker-0", **waiting("ErrImagePull", NO_IMAGE))
    space.submit("beside")
    all_pods(space, "beside", 2)
    pod_status(space, "beside-worker-0", **unscheduled("0/3 nodes are available"))
    blocked(space, "beside", "Unschedulable")  # by which time all of that was seen
    assert (condition(space, "digits", "Blocked"), space.job("digits")["metadata"]["resourceVersion"]) == (
        found,
        version,
    )
    version = space.job("beside")["metadata"]["resourceVersion"]
    for nodes in range(4, 10):
        pod_status(space, "beside-worker-0", **unscheduled(f"0/{nodes} nodes are available"))
    pod_status(space, "digits-worker-0", **STARTED)
    goes_on(space, "digits")
    assert space.job("beside")["metadata"]["resourceVersion"] == version
    until(lambda: len(warned(space, "beside")) == 1, "an event")
    assert (warned(space, "digits"), warned(space, "beside")) == ([("ErrImagePull", 1)], [("Unschedulable", 1)])


@pytest.mark.long
def test_a_launcher_that_does_not_reach_the_operator(space: Space, running: OperatorProcess) -> None:
    space.submit("digits", workers=1)
    all_pods(space, "digits", 1)
    # A quarter of a minute ago, so that the test need not wait for a whole half.
    began = datetime.fromtimestamp(time.time() - 15, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"name": "worker", "image": "x", "imageID": "", "ready": True, "restartCount": 0}
    state["state"] = {"running": {"startedAt": began}}
    pod_status(space, "digits-worker-0", phase="Running", startTime=began, containerStatuses=[state])
    found = blocked(space, "digits", "CoordinatorUnreachable", seconds=45)
    assert found["message"].startswith("digits-worker-0 runs, and its launcher was not heard for 30 s; ")
    space.api.call(
        "DELETE",
        f"{space.core}/pods/digits-worker-0",
        {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0},
    )
    goes_on(space, "digits")


def test_a_name_that_is_taken(space: Space, running: OperatorProcess) -> None:
    """The other workers do not stand about while it is."""
    space.api.call("POST", f"{space.core}/pods", {"metadata": {"name": "digits-worker-1"}, "spec": PROBE["spec"]})
    space.submit("digits", workers=2)
    found = blocked(space, "digits", "NameTaken")
    assert found["message"].startswith(
        "a Pod digits-worker-1 that is not this job's exists; delete it (kubectl delete pod"
    )
    # The stranger has none of our labels, and so is met only when its place is wanted.
    until(
        lambda: sorted(space.pods("digits")) == ["digits-worker-1"], "no other worker", saw=lambda: space.pods("digits")
    )
    space.api.call("DELETE", f"{space.core}/pods/digits-worker-1")
    all_pods(space, "digits", 2)
    goes_on(space, "digits")


# What the server refuses


def set_quota(space: Space, pods: int) -> None:
    """A quota that the server's admission counts by."""
    path = f"{space.core}/resourcequotas"
    body = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": str(pods)}}}
    if space.api.find(f"{path}/few"):
        space.api.merge(f"{path}/few", {"spec": body["spec"]})
    else:
        space.api.call("POST", path, body)
    until(
        lambda: space.api.call("GET", f"{path}/few").get("status", {}).get("hard", {}).get("pods") == str(pods),
        "the quota is counted",
        saw=lambda: space.api.call("GET", f"{path}/few"),
    )


def held(space: Space, job: str, until_time: float) -> tuple[float, float]:
    """For how long, until then, a job has had Pods: in all, and at most at a time. Seconds."""
    total = longest = 0.0
    since, last = 0.0, time.monotonic()
    while (now := time.monotonic()) < until_time:
        there = bool(space.pods(job))
        total += (now - last) * there
        since = (since or last) if there else 0.0
        longest, last = max(longest, now - since if since else 0.0), now
    return total, longest


def test_half_a_gang_gives_back_what_it_holds(space: Space, running: OperatorProcess, tmp_path: Path) -> None:
    """Three of four fit the quota: they are given back, all are tried again, and run as soon as there is room."""
    set_quota(space, 3)
    with kubelet(space, tmp_path / "kubelet"):
        space.submit("digits", workers=4, program={"command": ["sleep", "2"]})
        found = blocked(space, "digits", "QuotaExceeded")
        assert re.match(
            r'pods "digits-worker-\d" is forbidden: exceeded quota: few, requested: pods=1', found["message"]
        )
        seconds = 4.0
        total, longest = held(space, "digits", time.monotonic() + seconds)
        print(f"\nhalf a gang held Pods for {total:.1f} s of {seconds:g}, at most {longest:.1f} s at a time")
        assert (total < seconds / 2, longest < 4) == (True, True), (total, longest)
        until(
            lambda: warned(space, "digits") == [("QuotaExceeded", 1)], "it is told", saw=lambda: events(space, "digits")
        )
        set_quota(space, 4)
        status = reaches(space, "digits", "Succeeded")
        assert (status["restarts"], status["rendezvous"]["round"]) == (0, 1)
    goes_on(space, "digits")


def test_a_round_that_runs_is_not_broken_up_for_a_quota(space: Space, running: OperatorProcess, tmp_path: Path) -> None:
    set_quota(space, 2)
    with kubelet(space, tmp_path / "kubelet"):
        space.submit("digits", workers=2, program=SLEEP)
        reaches(space, "digits", "Running")
        space.submit("elastic", workers=2, minWorkers=1, program=SLEEP)
        before = space.uids("digits")
        space.api.merge(f"{space.jobs}/digits", {"spec": {"workers": 3}})
        blocked(space, "digits", "QuotaExceeded")
        blocked(space, "elastic", "QuotaExceeded")
        set_quota(space, 3)
        # One more Pod: whoever is first has it, and an elastic job runs with it.
        until(lambda: len(space.pods()) == 3, "three Pods", seconds=45, saw=lambda: sorted(space.pods()))
        assert before.items() <= space.uids("digits").items()
        assert space.status("digits")["rendezvous"]["round"] == 1


@pytest.mark.timeout(300)
def test_the_only_copy_of_what_was_trained_is_kept(space: Space, running: OperatorProcess, tmp_path: Path) -> None:
    """Checkpoints in an emptyDir: the worker that is left waits for room, with its Pod and what is in it."""
    with kubelet(space, tmp_path / "kubelet") as node:
        space.submit("kept", workers=2, program=SLEEP)
        space.submit("claimed", workers=2, program=SLEEP, storage={"claimName": "checkpoints"})
        for job in ("kept", "claimed"):
            reaches(space, job, "Running")
        kept = space.uids("kept")["kept-worker-0"]
        set_quota(space, 2)
        for job in ("kept", "claimed"):
            node.kill(f"{job}-worker-1")
        for job in ("kept", "claimed"):
            blocked(space, job, "QuotaExceeded")
        until(
            lambda: [True] if not space.pods("claimed") else [],
            "the other gives its place back",
            saw=lambda: sorted(space.pods()),
        )
        assert space.uids("kept")["kept-worker-0"] == kept
        # Which is room enough for the first: it goes on with what it has.
        # Both try each half minute or sooner, and the one that has to give back what it got may be the first at times.
        assert reaches(space, "kept", "Running", seconds=180)["rendezvous"]["round"] == 2
        assert space.uids("kept")["kept-worker-0"] == kept


def policy(api: Api, space: Space, expression: str, message: str, resources: list[str]) -> str:
    """A real ValidatingAdmissionPolicy for one namespace."""
    root = "/apis/admissionregistration.k8s.io/v1"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": resources}]
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": expression, "message": message}],
    }
    api.call("POST", f"{root}/validatingadmissionpolicies", {"metadata": {"name": space.name}, "spec": spec})
    selector = {"matchLabels": {"kubernetes.io/metadata.name": space.name}}
    bound = {
        "policyName": space.name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": selector},
    }
    api.call("POST", f"{root}/validatingadmissionpolicybindings", {"metadata": {"name": space.name}, "spec": bound})
    return f"{root}/validatingadmissionpolicybindings/{space.name}"


@pytest.mark.parametrize("what", ["pods", "everything"])
def test_a_job_whose_children_an_admission_rule_refuses(space: Space, running: OperatorProcess, what: str) -> None:
    words = "no training on weekdays, and no quota for it"
    resources = ["pods"] if what == "pods" else ["pods", "services", "configmaps"]
    binding = policy(space.api, space, "false", words, resources)
    until(
        lambda: (
            refuses(
                space.api,
                "POST",
                f"{space.core}/{resources[-1]}?dryRun=All",
                PROBE if what == "pods" else {"metadata": {"generateName": "a"}},
            )[0]
            == 422
        ),
        "the rule counts",
    )
    space.submit("digits", program=SLEEP | {"files": {"a.py": "pass"}})
    found = blocked(space, "digits", "AdmissionDenied")
    assert words in found["message"]
    assert space.pods("digits") == {}
    until(
        lambda: warned(space, "digits") == [("AdmissionDenied", 1)], "it is told", saw=lambda: events(space, "digits")
    )
    space.api.call("DELETE", binding)
    all_pods(space, "digits", 2)
    goes_on(space, "digits")


def test_a_misspelt_field_of_a_pod_is_named(space: Space, running: OperatorProcess) -> None:
    """And not dropped: the worker would run without its node, its Secret or its label."""
    container = {"name": "worker", "envFrm": [{"secretRef": {"name": "wandb"}}]}
    template = {"metadata": {"labls": {}}, "spec": {"nodeSelectr": {"gpu": "h100"}, "containers": [container]}}
    space.submit("digits", podTemplate=template)
    found = blocked(space, "digits", "AdmissionDenied", remedy=UNKNOWN_FIELD_REMEDY)
    for field in ("metadata.labls", "spec.nodeSelectr", "spec.containers[0].envFrm"):
        assert f'unknown field "{field}"' in found["message"]
    assert space.pods("digits") == {}
    space.api.merge(f"{space.jobs}/digits", {"spec": {"podTemplate": None}})
    all_pods(space, "digits", 2)
    goes_on(space, "digits")


# Why it failed, after the Pod is gone


def test_the_first_cause_and_the_last_lines_outlive_the_pod(
    space: Space, running: OperatorProcess, tmp_path: Path
) -> None:
    words = "import sys; print('a\\nb\\nthe file of labels is missing', file=sys.stderr); sys.exit(2)"
    with kubelet(space, tmp_path / "kubelet"):
        space.submit("digits", workers=1, program={"command": ["python", "-c", words]})
        failure = reaches(space, "digits", "Failed")["lastFailure"]
        assert (failure["reason"], failure["exitCode"], failure["worker"]) == ("BadConfiguration", 2, 0)
        assert "the file of labels is missing" in failure["message"]
        space.api.call("DELETE", f"{space.core}/pods/digits-worker-0")
        all_pods(space, "digits", 0)
        assert space.status("digits")["lastFailure"] == failure
