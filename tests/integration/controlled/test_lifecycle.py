"""A job's life on a real API server with the real garbage collector: whatever a user does to it, and in what order."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Space, until
from tests.integration.kubelet import Kubelet
from tests.integration.process import OperatorProcess
from tests.integration.watching import all_pods, condition, events, pod_status, reaches, refuses, write_status

pytestmark = pytest.mark.timeout(120)

SLEEP = {"command": ["sleep", "600"]}
REPORTS = """
import time
from edgecloud import worker
for step in range(10**6):
    worker.report(step=step + 1)
    if worker.should_stop():
        raise SystemExit(143)
    time.sleep(0.05)
"""
REPORTING = {"command": ["python", "-c", REPORTS]}


def change(space: Space, job: str, **spec: Any) -> None:
    space.api.merge(f"{space.jobs}/{job}", {"spec": spec})


def delete(space: Space, job: str, policy: str) -> None:
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
    space.api.call("DELETE", f"{space.jobs}/{job}", options)


def processes(node: Kubelet) -> list[str]:
    """Whose launchers are alive."""
    return sorted(played.name for played in list(node._played.values()) if played.process.poll() is None)


def nothing_is_left(space: Space, job: str) -> None:
    def left() -> list[str]:
        found = list(space.pods(job))
        for kind, name in (("services", job), ("configmaps", f"{job}-files")):
            found += [name] if space.api.find(f"{space.core}/{kind}/{name}") else []
        return found

    until(lambda: [True] if not left() else [], "all children are gone", saw=left)


# Suspend and resume, scale


def test_suspended_scaled_and_resumed(space: Space, node: Kubelet) -> None:
    space.submit("digits", program=REPORTING)
    reaches(space, "digits", "Running")
    change(space, "digits", suspend=True)
    status = reaches(space, "digits", "Suspended")
    assert status["rendezvous"] == {"round": 1, "members": []}
    all_pods(space, "digits", 0)
    until(lambda: space.status("digits")["readyWorkers"] == 0, "nobody is counted", saw=lambda: space.status("digits"))
    assert condition(space, "digits", "Suspended")["status"] == "True"
    scale = f"{space.jobs}/digits/scale"
    assert space.api.merge(scale, {"spec": {"replicas": 3}})["status"]["replicas"] == 0
    change(space, "digits", suspend=False)
    status = reaches(space, "digits", "Running")
    assert (len(status["rendezvous"]["members"]), status["rendezvous"]["round"], status["restarts"]) == (3, 2, 0)
    until(lambda: space.api.call("GET", scale)["status"]["replicas"] == 3, "the scale subresource counts three")


def test_scaled_down_and_up_in_mid_run(space: Space, node: Kubelet) -> None:
    space.submit("digits", workers=2, program=REPORTING)
    reaches(space, "digits", "Running")
    before = space.uids("digits")
    scale = f"{space.jobs}/digits/scale"
    space.api.merge(scale, {"spec": {"replicas": 1}})
    until(
        lambda: (s := space.status("digits")).get("phase") == "Running" and len(s["rendezvous"]["members"]) == 1,
        "it runs with one",
        saw=lambda: space.status("digits"),
    )
    all_pods(space, "digits", 1)
    assert space.uids("digits")["digits-worker-0"] == before["digits-worker-0"]
    space.api.merge(scale, {"spec": {"replicas": 2}})
    all_pods(space, "digits", 2)
    # Arrivals are batched for a minute; this one was opened an hour ago.
    write_status(space, "digits", rendezvous={"openedAt": "2026-01-01T00:00:00Z"})
    status = until(
        lambda: s if len((s := space.status("digits"))["rendezvous"]["members"]) == 2 else {},
        "it runs with two",
        saw=lambda: space.status("digits"),
    )
    assert (status["rendezvous"]["round"], status["restarts"]) == (3, 0)
    selector = space.api.call("GET", scale)["status"]["selector"].replace(",", "%2C").replace("=", "%3D")
    assert len(space.api.call("GET", f"{space.core}/pods?labelSelector={selector}")["items"]) == 2


# Deletion


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_a_deleted_job_takes_everything_with_it(space: Space, node: Kubelet, policy: str) -> None:
    space.submit("digits", program=SLEEP | {"files": {"t.py": "pass"}})
    reaches(space, "digits", "Running")
    seen = set(space.uids("digits").values())
    delete(space, "digits", policy)
    while space.api.find(f"{space.jobs}/digits"):
        seen |= set(space.uids("digits").values())
    nothing_is_left(space, "digits")
    until(lambda: [True] if not processes(node) else [], "its workers have ended", saw=lambda: processes(node))
    assert len(seen) == 2, "a child was made for a job that was on its way out"


def test_a_job_that_somebody_holds_back_from_being_gone_gets_no_child(space: Space, node: Kubelet) -> None:
    """Deleted, with a finalizer that takes its time: the Pods are the garbage collector's, later."""
    space.submit("digits", program=SLEEP)
    space.submit("beside", program={"command": ["sleep", "1"]})
    reaches(space, "digits", "Running")
    space.api.merge(f"{space.jobs}/digits", {"metadata": {"finalizers": ["example.com/slow"]}})
    delete(space, "digits", "Background")
    space.api.call("DELETE", f"{space.core}/pods/digits-worker-1")
    all_pods(space, "digits", 1)
    reaches(space, "beside", "Succeeded")  # by which time it would have been made anew
    assert sorted(space.pods("digits")) == ["digits-worker-0"]
    space.api.merge(f"{space.jobs}/digits", {"metadata": {"finalizers": None}})
    nothing_is_left(space, "digits")


def orphan_seconds(seconds: float) -> dict[str, Any]:
    """A launcher that nobody knows any more waits for ten minutes; in a test for less."""
    env = [{"name": "EDGECLOUD_ORPHAN_SECONDS", "value": str(seconds)}]
    return {"podTemplate": {"spec": {"containers": [{"name": "worker", "env": env}]}}}


def test_an_orphaned_workers_training_ends_and_no_later_job_takes_it_on(space: Space, node: Kubelet) -> None:
    space.submit("digits", program={"command": ["sleep", "6"]}, **orphan_seconds(1.0))
    reaches(space, "digits", "Running")
    before = space.uids("digits")
    delete(space, "digits", "Orphan")
    until(lambda: space.api.find(f"{space.jobs}/digits") is None, "the job is gone")
    assert all(not pod["metadata"].get("ownerReferences") for pod in space.pods("digits").values())
    space.submit("digits", program={"command": ["sleep", "1"]})
    until(lambda: space.blocked("digits") == "NameTaken", "its name is taken", saw=lambda: space.status("digits"))
    message = condition(space, "digits", "Blocked")["message"]
    assert "kubectl delete service digits" in message and "another name" in message
    assert space.uids("digits") == before, "they are neither taken on nor deleted"
    until(
        lambda: {pod["status"]["phase"] for pod in space.pods("digits").values()} == {"Succeeded"},
        "the orphans end by themselves",
        saw=lambda: {name: pod["status"] for name, pod in space.pods("digits").items()},
    )
    assert space.uids("digits") == before
    space.api.call("DELETE", f"{space.core}/services/digits")
    until(lambda: "kubectl delete pod" in condition(space, "digits", "Blocked")["message"], "the Pods are named")
    for name in before:
        space.api.call("DELETE", f"{space.core}/pods/{name}")
    reaches(space, "digits", "Succeeded")


def test_deleted_and_applied_again_at_once(space: Space, node: Kubelet) -> None:
    program = SLEEP | {"files": {"t.py": "pass"}}
    first = space.submit("digits", program=program)
    reaches(space, "digits", "Running")
    before = space.uids("digits")
    delete(space, "digits", "Background")
    second = space.submit("digits", program=program)
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    status = reaches(space, "digits", "Running")
    assert (status["rendezvous"]["round"], status["restarts"]) == (1, 0)
    assert not set(space.uids("digits").values()) & set(before.values())
    reasons = [event["reason"] for event in events(space, "digits") if event["type"] == "Warning"]
    assert "NameTaken" not in reasons, reasons


def test_a_namespace_that_is_deleted(space: Space, node: Kubelet, running: OperatorProcess) -> None:
    space.submit("digits", program=SLEEP)
    reaches(space, "digits", "Running")
    space.api.call("DELETE", f"/api/v1/namespaces/{space.name}")
    until(
        lambda: space.api.find(f"/api/v1/namespaces/{space.name}") is None,
        "the namespace is gone",
        saw=lambda: space.api.find(f"/api/v1/namespaces/{space.name}"),
    )
    until(lambda: [True] if not processes(node) else [], "its workers have ended")


# Deadlines and the end


def test_a_job_that_does_not_start_in_time_and_one_that_takes_too_long(space: Space, node: Kubelet) -> None:
    space.submit("late", program=SLEEP, startDeadlineSeconds=3)
    space.submit("long", program=REPORTING, startDeadlineSeconds=60, activeDeadlineSeconds=4)
    for job, reason in (("late", "StartDeadlineExceeded"), ("long", "ActiveDeadlineExceeded")):
        reaches(space, job, "Failed")
        failed = condition(space, job, "Failed")
        assert (failed["status"], failed["reason"]) == ("True", reason)
    until(lambda: [True] if not processes(node) else [], "all workers are sent home", saw=lambda: processes(node))


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_finished_job_goes_when_its_time_is_up(space: Space, node: Kubelet, seconds: int) -> None:
    space.submit("digits", program={"command": ["sleep", "1"]}, ttlSecondsAfterFinished=seconds)
    until(lambda: space.api.find(f"{space.jobs}/digits") is None, "it is gone", saw=lambda: space.status("digits"))
    nothing_is_left(space, "digits")


def test_a_finished_job_never_runs_again(
    controlled: ControlPlane, space: Space, node: Kubelet, running: OperatorProcess
) -> None:
    space.submit("digits", program={"command": ["sleep", "1"]})
    before = reaches(space, "digits", "Succeeded")
    for name in space.pods("digits"):
        space.api.call("DELETE", f"{space.core}/pods/{name}")
    space.api.call("DELETE", f"{space.core}/services/digits")
    all_pods(space, "digits", 0)
    change(space, "digits", workers=3, stopGraceSeconds=5)
    running.kill()
    running.start()
    change(space, "digits", suspend=True)
    change(space, "digits", suspend=False)
    space.submit("later", program={"command": ["sleep", "1"]})
    reaches(space, "later", "Succeeded")
    controlled.kubectl("wait", "--namespace", space.name, "--for=condition=Complete", "tj/digits", "--timeout=10s")
    # Nothing but that the edits were seen.
    after = space.status("digits")
    spoken = [one | {"observedGeneration": 1} for one in after["conditions"]]
    assert after | {"observedGeneration": 1, "conditions": spoken} == before
    assert (space.pods("digits"), space.api.find(f"{space.core}/services/digits")) == ({}, None)


def test_a_job_of_another_controller_is_left_alone(space: Space, running: OperatorProcess) -> None:
    space.submit("theirs", managedBy="kueue.x-k8s.io/multikueue")
    space.submit("ours", managedBy="edgecloud.io/operator")
    all_pods(space, "ours", 2)
    assert (space.pods("theirs"), space.status("theirs")) == ({}, {})
    assert space.api.find(f"{space.core}/services/theirs") is None


# What users change


def test_what_can_be_changed_in_mid_run_is_and_what_cannot_is_refused(space: Space, node: Kubelet) -> None:
    space.submit("digits", program=SLEEP)
    reaches(space, "digits", "Running")
    job, merge = f"{space.jobs}/digits", "application/merge-patch+json"
    for field, value in (("program", {"args": ["x"]}), ("storage", {"claimName": "a"}), ("managedBy", "a.io/b")):
        code, words = refuses(space.api, "PATCH", job, {"spec": {field: value}}, kind=merge)
        assert (code, f"{field} cannot be changed" in words) == (422, True), words
    assert refuses(space.api, "PATCH", job, {"spec": {"workers": 0}}, kind=merge)[0] == 422
    assert refuses(space.api, "PATCH", job, {"spec": {"minWorkers": 3}}, kind=merge)[0] == 422
    template = {"metadata": {"annotations": {"example.com/of": "the second"}}}
    change(space, "digits", podTemplate=template, resources={"requests": {"cpu": "10m"}})
    until(lambda: space.status("digits")["observedGeneration"] == 2, "it was seen")
    assert space.status("digits")["rendezvous"]["round"] == 1, "what runs is not torn down for it"
    uid = space.uids("digits")["digits-worker-1"]
    space.api.call("DELETE", f"{space.core}/pods/digits-worker-1")
    until(lambda: space.uids("digits").get("digits-worker-1") not in (None, uid), "a new Pod")
    made = space.pods("digits")["digits-worker-1"]
    assert made["metadata"]["annotations"]["example.com/of"] == "the second"
    assert made["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "10m"}
    change(space, "digits", activeDeadlineSeconds=1)
    reaches(space, "digits", "Failed")


FORGED: dict[str, dict[str, Any]] = {
    "round": {"rendezvous": {"round": 10**9}},
    "members": {"rendezvous": {"round": 1, "members": [{"index": 0, "podUid": "x"}, {"index": 0, "podUid": "x"}]}},
    "conditions": {
        "conditions": [
            {"type": kind, "status": "True", "reason": "Resizing", "lastTransitionTime": "9000-01-01T00:00:00Z"}
            for kind in ("Complete", "Failed", "Suspended", "Stalled")
        ]
    },
    "numbers": {"restarts": 2**53, "observedGeneration": 2**53, "readyWorkers": 1000, "budget": {"unpaid": 2**53}},
    "times": {"startTime": "9000-01-01T00:00:00Z", "runningTime": "9000-01-01T00:00:00Z", "completionTime": None},
    "phase": {"phase": "Suspended", "startTime": None},
    "checkpoint": {"checkpoint": {"step": 2**53}, "progress": {"step": 2**53}, "summary": {"workers": "9/9"}},
}


def test_a_forged_status_stops_nothing(space: Space, node: Kubelet) -> None:
    """After each forgery the job runs as before, at nobody's cost, and what is shown is true again."""
    space.submit("digits", program=REPORTING)
    reaches(space, "digits", "Running")
    uids = space.uids("digits")
    for what, fields in FORGED.items():
        restarts = 2**53 - 1 if space.status("digits")["restarts"] else 0
        write_status(space, "digits", **fields)

        def healed(what: str = what, restarts: int = restarts) -> bool:
            status = space.status("digits")
            said = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
            members = [member["podUid"] for member in status["rendezvous"]["members"]]
            good = (status["phase"], members) == ("Running", list(uids.values()))
            good = good and status["summary"]["workers"] == "2/2" and status["rendezvous"]["round"] < 100
            good = good and status["observedGeneration"] == 1 and status["startTime"] < "9000"
            good = good and (status["restarts"] == restarts or what == "numbers")
            return good and [said.get(kind) for kind in ("Running", "Failed", "Complete", "Accepted")] == [
                ("True", "WorkersRunning"),
                ("False", "NotFinished"),
                ("False", "NotFinished"),
                ("True", "Accepted"),
            ]

        until(healed, f"it runs on after forged {what}", saw=lambda: space.status("digits"), seconds=30)
    assert space.uids("digits") == uids
    code, words = refuses(
        space.api,
        "PATCH",
        f"{space.jobs}/digits/status",
        {"status": {"restarts": -1, "phase": "Resting"}},
        kind="application/merge-patch+json",
    )
    assert code == 422 and "restarts" in words and "phase" in words


@pytest.mark.parametrize(("phase", "kind"), [("Succeeded", "Complete"), ("Failed", "Failed")])
def test_a_forged_end_is_an_end(space: Space, node: Kubelet, phase: str, kind: str) -> None:
    space.submit("digits", program=SLEEP, ttlSecondsAfterFinished=3)
    reaches(space, "digits", "Running")
    write_status(space, "digits", phase=phase)
    until(lambda: condition(space, "digits", kind).get("reason") == "StatusEdited", "it is a whole end")
    assert space.status("digits")["completionTime"]
    until(lambda: [True] if not processes(node) else [], "its workers are sent home", saw=lambda: processes(node))
    until(lambda: space.api.find(f"{space.jobs}/digits") is None, "its time is up")


# What users do to children


def test_a_worker_that_was_taken_away_from_its_job(space: Space, node: Kubelet) -> None:
    """Its ownerReferences removed: it is nobody's, is told to stop, and stands in the way until it is deleted."""
    space.submit("digits", program=SLEEP)
    reaches(space, "digits", "Running")
    orphan = space.uids("digits")["digits-worker-1"]
    space.api.merge(f"{space.core}/pods/digits-worker-1", {"metadata": {"ownerReferences": None}})
    until(lambda: space.blocked("digits") == "NameTaken", "it is shown", saw=lambda: space.status("digits"))
    assert "kubectl delete pod digits-worker-1" in condition(space, "digits", "Blocked")["message"]
    assert space.uids("digits")["digits-worker-1"] == orphan
    space.api.call("DELETE", f"{space.core}/pods/digits-worker-1")
    status = reaches(space, "digits", "Running")
    assert status["restarts"] <= 1
    assert space.blocked("digits") == "NotBlocked"


def test_children_that_somebody_edited(space: Space, node: Kubelet) -> None:
    """A Pod without our labels is still the job's; a Service with another selector is left as it is, and trains on."""
    space.submit("digits", program={"command": ["sleep", "5"]})
    reaches(space, "digits", "Running")
    uids = space.uids("digits")
    labels = dict.fromkeys(space.pods("digits")["digits-worker-1"]["metadata"]["labels"])
    space.api.merge(f"{space.core}/pods/digits-worker-1", {"metadata": {"labels": labels}})
    space.api.merge(f"{space.core}/services/digits", {"spec": {"selector": {"a": "b"}}})
    space.api.merge(f"{space.core}/pods/digits-worker-0", {"metadata": {"annotations": {"a": "b"}}})
    status = reaches(space, "digits", "Succeeded")
    assert status["restarts"] <= 1, "at most a lost Pod's price"
    assert space.uids("digits") == uids


def test_a_pod_status_that_somebody_forged(space: Space, node: Kubelet) -> None:
    """A worker that is said to be over costs what a lost one does; nothing else is believed of it."""
    space.submit("digits", program=SLEEP)
    reaches(space, "digits", "Running")
    began = time.monotonic()
    pod_status(space, "digits-worker-1", phase="Failed", reason="Evicted", message="says who")
    until(lambda: space.status("digits")["rendezvous"]["round"] == 2, "a new round", saw=lambda: space.status("digits"))
    status = reaches(space, "digits", "Running")
    assert (status["restarts"], status["lastFailure"]["message"]) == (1, "Evicted: says who")
    assert time.monotonic() - began < 60
