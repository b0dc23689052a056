"""What Kubernetes objects are read as; and that no object, however mangled, raises."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecloud.api.job import TrainingJob
from edgecloud.launcher.messages import MAX_TERMINATION, termination
from edgecloud_operator.core.builders import Settings, build_pod, build_service
from edgecloud_operator.core.measurer import build_measurer
from edgecloud_operator.core.observed import Observed, Pod, Service, Termination
from edgecloud_operator.core.reconcile import reconcile
from edgecloud_operator.kube.client import DEPTH
from edgecloud_operator.kube.sight import (
    EPOCH,
    MAX_MESSAGE,
    UnreadableError,
    mark,
    see_job,
    see_pod,
    see_service,
    version_of,
)
from tests.unit.kube.objects import JOB_UID, container, make_job, make_pod, make_service, owner

TRAINER = {"data": {"name": "digits"}}
NOON = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def seen(raw: Any) -> Pod:
    found = see_pod(raw)
    assert found is not None
    return found.pod


def status(phase: str, **fields: Any) -> dict[str, Any]:
    return {"phase": phase} | fields


# Which


def test_what_we_build_is_read_as_ours() -> None:
    job = see_job(make_job())
    made = build_pod(job, 1, "image", Settings())
    made["metadata"] |= {"uid": "pod-1", "resourceVersion": "7", "creationTimestamp": "2026-11-24T12:00:00Z"}
    found = see_pod(made)
    assert found is not None
    assert (found.key, found.owner, found.watched) == (("team", "digits"), JOB_UID, True)
    assert found.pod == Pod(name="digits-worker-1", uid="pod-1", index=1, phase="Pending", created_at=NOON)
    service = build_service(job)
    service["metadata"] |= {"uid": "s"}
    found_service = see_service(service)
    assert found_service is not None
    assert (found_service.key, found_service.owner, found_service.watched) == (("team", "digits"), JOB_UID, True)
    assert found_service.service == Service(name="digits", uid="s")


@pytest.mark.parametrize(
    ("name", "job", "index"),
    [
        ("digits-worker-0", "digits", 0),
        ("digits-worker-999", "digits", 999),
        ("a-worker-1-worker-2", "a-worker-1", 2),
        ("digits-worker-1000", None, None),
        ("digits-worker-01", None, None),
        ("digits-worker-", None, None),
        ("digits-worker-x", None, None),
        ("-worker-1", None, None),
        ("9-worker-1", None, None),
        ("digits", None, None),
        (51 * "a" + "-worker-1", None, None),
        (50 * "a" + "-worker-1", 50 * "a", 1),
        ("a-measure-worker-0", "a-measure", 0),
    ],
)
def test_the_name_says_whose_pod_it_is_and_which(name: str, job: str | None, index: int | None) -> None:
    found = see_pod(make_pod(0, name=name))
    if job is None:
        assert found is None
    else:
        assert found is not None
        assert (found.key, found.pod.index, found.pod.role) == (("team", job), index, "worker")


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("digits-measure", "digits"),
        ("a-measure-measure", "a-measure"),
        ("a-worker-0-measure", "a-worker-0"),
        (50 * "a" + "-measure", 50 * "a"),
        (51 * "a" + "-measure", None),
        ("-measure", None),
        ("measure", None),
        ("digits-measure-0", None),
        ("digits-measured", None),
    ],
)
def test_the_name_of_the_one_that_measures(name: str, job: str | None) -> None:
    found = see_pod(make_pod(0, name=name))
    if job is None:
        assert found is None
    else:
        assert found is not None
        assert (found.key, found.pod.role, found.pod.index) == (("team", job), "measure", 0)


@pytest.mark.parametrize(
    "references",
    [
        [],
        None,
        "nonsense",
        [None],
        [owner(controller=False)],
        [owner(kind="Job")],
        [owner(apiVersion="batch/v1")],
        [owner(uid=None)],
    ],
)
def test_what_the_job_does_not_control_is_not_its_own(references: Any) -> None:
    found = see_pod(make_pod(ownerReferences=references))
    assert found is not None
    assert found.owner == ""


def test_a_later_version_of_the_api_owns_as_well() -> None:
    found = see_pod(make_pod(ownerReferences=[{}, owner(apiVersion="edgecloud.io/v1")]))
    assert found is not None
    assert found.owner == JOB_UID


@pytest.mark.parametrize(
    "labels", [None, {}, {"edgecloud.io/job": "digits"}, {"app.kubernetes.io/managed-by": "edgecloud"}]
)
def test_without_our_labels_no_watch_tells_of_it(labels: Any) -> None:
    found = see_pod(make_pod(labels=labels))
    assert found is not None
    assert not found.watched


@pytest.mark.parametrize(
    ("text", "number"),
    [("17", 17), ("0", 0), ("", None), ("1a", None), ("-1", None), (17, None), (None, None), ("٣", None)],
)
def test_versions(text: Any, number: int | None) -> None:
    assert version_of(text) == number


# How a Pod is


@pytest.mark.parametrize(
    ("said", "phase"),
    [("Pending", "Pending"), ("Running", "Running"), ("Succeeded", "Succeeded"), ("Failed", "Failed"),
     ("Unknown", "Unknown"), ("Sleeping", "Unknown"), (None, "Pending"), (7, "Unknown")],
)  # fmt: skip
def test_phases(said: Any, phase: str) -> None:
    assert seen(make_pod(status={"phase": said})).phase == phase


@pytest.mark.parametrize(
    ("fields", "since"),
    [
        (status("Running", containerStatuses=[container(running={"startedAt": "2026-11-24T12:00:00Z"})]), NOON),
        (status("Running", startTime="2026-11-24T12:00:00Z"), NOON),
        (status("Running", startTime="2026-11-24T13:00:00+01:00"), NOON),
        (status("Pending", startTime="2026-11-24T12:00:00Z"), None),
        (status("Running", containerStatuses=[container("sidecar", running={"startedAt": "2026-11-24T11:00:00Z"}),
                                              container(running={"startedAt": "2026-11-24T12:00:00Z"})]), NOON),
        (status("Running", containerStatuses=[container(waiting={})], startTime="2026-11-24T12:00:00Z"), None),
        (status("Running", startTime="2026-11-24T12:00:00"), None),
        (status("Running", startTime="0001-01-01T00:00:00Z"), None),
        (status("Running", startTime="9999-12-31T23:59:59-23:59"), None),
        (status("Running", startTime="noon"), None),
        (status("Running", startTime=7), None),
    ],
)  # fmt: skip
def test_since_when_it_runs(fields: dict[str, Any], since: datetime | None) -> None:
    assert seen(make_pod(status=fields)).running_since == since


def test_a_pod_that_goes() -> None:
    going, staying = seen(make_pod(deletionTimestamp="2026-11-24T12:00:00Z")), seen(make_pod())
    assert (going.terminating, going.leaves_by) == (True, NOON)
    assert (staying.terminating, staying.leaves_by) == (False, None)
    assert seen(make_pod(deletionTimestamp="soon")).terminating
    assert seen(make_pod(finalizers=["a/b", 7, "c/d", "e/f"])).finalizers == ("a/b", "", "c/d")
    assert staying.finalizers == seen(make_pod(finalizers="a/b")).finalizers == ()
    assert seen(make_pod(creationTimestamp=None)).created_at == EPOCH


@pytest.mark.parametrize(
    ("fields", "blocked"),
    [
        (status("Pending"), None),
        (status("Pending", containerStatuses=[container(waiting={"reason": "ContainerCreating"})]), None),
        (status("Pending", containerStatuses=[container(waiting={"reason": "ErrImagePull", "message": "no"})]),
         ("ErrImagePull", "ErrImagePull: no")),
        (status("Pending", containerStatuses=[container(waiting={
            "reason": "ImagePullBackOff",
            "message": 'Back-off pulling image "a:1": ErrImagePull: failed to resolve "a:1": not found'})]),
         ("ErrImagePull", 'ErrImagePull: failed to resolve "a:1": not found')),
        (status("Pending", containerStatuses=[container(waiting={"reason": "ImagePullBackOff"})]),
         ("ErrImagePull", "ImagePullBackOff")),
        (status("Pending", initContainerStatuses=[container("launcher", waiting={"reason": "InvalidImageName"})]),
         ("ErrImagePull", "InvalidImageName")),
        (status("Pending", containerStatuses=[container(waiting={"reason": "CreateContainerConfigError", "message": "x"})]),  # noqa: E501
         ("CreateContainerConfigError", "CreateContainerConfigError: x")),
        (status("Pending", containerStatuses=[container(waiting={"reason": "CreateContainerError"})]),
         ("CreateContainerConfigError", "CreateContainerError")),
        (status("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                        "message": "0/3 nodes are available"}]),
         ("Unschedulable", "0/3 nodes are available")),
        (status("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
         ("Unschedulable", "SchedulingGated")),
        (status("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                                        "message": "Scheduling is blocked due to non-empty scheduling gates"}]),
         ("Unschedulable", "SchedulingGated: Scheduling is blocked due to non-empty scheduling gates")),
        (status("Pending", conditions=[{"type": "PodScheduled", "status": "False",
                                        "message": "pod has unbound immediate PersistentVolumeClaims"}]),
         ("VolumeNotBound", "pod has unbound immediate PersistentVolumeClaims")),
        (status("Pending", conditions=[{"type": "PodScheduled", "status": "False",
                                        "message": 'persistentvolumeclaim "data" not found'}]),
         ("VolumeNotBound", 'persistentvolumeclaim "data" not found')),
        *((status("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": said}]),
           ("VolumeNotBound", said))
          for said in ("0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.",
                       "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.",
                       "0/2 nodes are available: 2 node(s) had no available volume zone.",
                       "0/2 nodes are available: 2 node(s) exceed max volume count.")),
        (status("Pending", conditions=[{"type": "PodScheduled", "status": "True"}]), None),
        (status("Running", conditions=[{"type": "PodScheduled", "status": "False"}]), None),
        (status("Failed", containerStatuses=[container(waiting={"reason": "ErrImagePull"})]), None),
    ],
)  # fmt: skip
def test_what_blocks_a_pod(fields: dict[str, Any], blocked: Any) -> None:
    assert seen(make_pod(status=fields)).blocked == blocked


SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-24T12:00:00Z"}
CREATING = container(waiting={"reason": "ContainerCreating"})
PREPARING = container(waiting={"reason": "PodInitializing"})


@pytest.mark.parametrize(
    ("fields", "since"),
    [
        (status("Pending", conditions=[SCHEDULED], containerStatuses=[CREATING]), NOON),
        (status("Pending", conditions=[SCHEDULED]), NOON),  # no kubelet has met it yet
        (status("Pending", containerStatuses=[CREATING]), None),
        (status("Pending", conditions=[SCHEDULED | {"status": "False"}], containerStatuses=[CREATING]), None),
        (status("Pending", conditions=[SCHEDULED | {"lastTransitionTime": "?"}], containerStatuses=[CREATING]), None),
        (status("Running", conditions=[SCHEDULED], containerStatuses=[container(running={})]), None),
        (status("Failed", conditions=[SCHEDULED], containerStatuses=[CREATING]), None),
        (status("Pending", conditions=[SCHEDULED], containerStatuses=[
            container(running={"startedAt": "2026-11-24T12:00:09Z"}), container("beside", waiting={})]), None),
        (status("Pending", conditions=[SCHEDULED], containerStatuses=[PREPARING],
                initContainerStatuses=[container("launcher", waiting={"reason": "PodInitializing"})]), NOON),
        (status("Pending", conditions=[SCHEDULED], containerStatuses=[PREPARING],
                initContainerStatuses=[container("fetch", running={"startedAt": "2026-11-24T12:00:09Z"})]), None),
        (status("Pending", conditions=[SCHEDULED], containerStatuses=[PREPARING],
                initContainerStatuses=[container("fetch", terminated={"finishedAt": "2026-11-24T12:10:00Z"})]),
         NOON.replace(minute=10)),
        (status("Pending", conditions=[SCHEDULED, 7], containerStatuses=[PREPARING], initContainerStatuses=[7]), NOON),
    ],
)  # fmt: skip
def test_since_when_a_pod_waits_on_its_node(fields: dict[str, Any], since: datetime | None) -> None:
    """While an init container runs it does not: that is the Pod's own work."""
    assert seen(make_pod(status=fields)).waits_since == since


def test_a_sidecar_that_runs_does_not_mean_that_a_pod_gets_on() -> None:
    running = container("mesh", running={"startedAt": "2026-11-24T12:00:09Z"})
    fields = status("Pending", conditions=[SCHEDULED], containerStatuses=[PREPARING], initContainerStatuses=[running])
    for policy, since in (("Always", NOON), (None, None)):
        spec = {"nodeName": "node-1", "initContainers": [{"name": "mesh", "restartPolicy": policy}]}
        assert seen(make_pod(status=fields, spec=spec)).waits_since == since


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        (status("Pending", conditions=[SCHEDULED]), NOON),
        (status("Pending", conditions=[SCHEDULED], initContainerStatuses=[container("fetch", running={})]), NOON),
        (status("Running", conditions=[SCHEDULED], containerStatuses=[container(running={})]), NOON),
        (status("Failed", conditions=[SCHEDULED]), NOON),
        (status("Pending", conditions=[SCHEDULED | {"status": "False"}]), None),
        (status("Pending", conditions=[SCHEDULED | {"lastTransitionTime": "?"}]), None),
        (status("Pending"), None),
    ],
)
def test_when_a_pod_got_its_node(fields: dict[str, Any], at: datetime | None) -> None:
    """Whatever has been done there since."""
    assert seen(make_pod(status=fields)).placed_at == at


# How it ended

FAILURE = {"localRank": 0, "rank": 3, "exitCode": 1, "reason": "ProgramError", "message": "ValueError", "at": 5.0}


def ended(**fields: Any) -> Termination | None:
    return seen(make_pod(status=status("Failed", containerStatuses=[container(terminated=fields)]))).termination


def test_what_measures_is_read_as_it_is_built() -> None:
    spec = {"workers": 1, "trainer": {"data": {"name": "digits"}}, "export": {"measureOn": {}}}
    made = build_measurer(see_job(make_job(spec=spec)), Settings())
    made["metadata"] |= {"uid": "m", "resourceVersion": "7", "creationTimestamp": "2026-11-24T12:00:00Z"}
    found = see_pod(made)
    assert found is not None
    assert (found.key, found.owner, found.watched, found.ca) == (("team", "digits"), JOB_UID, True, "")
    assert found.pod == Pod(name="digits-measure", uid="m", index=0, role="measure", phase="Pending", created_at=NOON)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ('{"exports": []}', '{"exports": []}'),
        ('{"round": 1, "outcome": "succeeded"}', '{"round": 1, "outcome": "succeeded"}'),
        ("x" * 5000, "x" * 4096),
        ("\ud800", "?"),
        (None, ""),
        (7, ""),
    ],
)
def test_what_measures_says_is_handed_on_as_it_is(said: Any, read: str) -> None:
    ended = {"exitCode": 0, "message": said}
    beside = container("worker", terminated={"exitCode": 9})
    pod = make_pod(
        0,
        name="digits-measure",
        status=status("Succeeded", containerStatuses=[beside, container("measure", terminated=ended)]),
    )
    assert seen(pod).termination == Termination(exit_code=0, message=read)


def test_the_launchers_last_message_is_understood() -> None:
    said = termination(round=7, outcome="failed", exit_code=1, failure=FAILURE, progress={"step": 9}).decode()
    end = ended(exitCode=1, message=said)
    assert end is not None
    assert (end.round, end.outcome, end.exit_code, end.out_of_memory) == (7, "failed", 1, False)
    assert end.failure is not None
    assert end.failure.dump() == FAILURE


def test_the_longest_message_is_understood() -> None:
    said = termination(round=7, outcome="failed", exit_code=1, failure=FAILURE | {"message": "é\x00" * 1000})
    assert len(said) <= MAX_TERMINATION
    end = ended(exitCode=1, message=said.decode())
    assert end is not None
    assert end.round == 7


@pytest.mark.parametrize(
    "message",
    ["", None, 7, "{", "[]", "null", '"x"', "[" * 100_000, '{"round":-1}', '{"round":true}', '{"round":1e400}',
     '{"round":' + "9" * 5000 + "}", '{"round":1,"failure":"x"}', '{"round":1,"failure":{"at":NaN}}', "\ud800",
     '{"round":1,"failure":{"localRank":0,"rank":0,"reason":"Unheard","at":1}}'],
)  # fmt: skip
def test_without_a_message_the_exit_code_is_all_there_is(message: Any) -> None:
    assert ended(exitCode=137, message=message, reason="Error") == Termination(exit_code=137)


RUNC = "failed to create containerd task: OCI runtime create failed: unable to start container process: "


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (RUNC + 'exec: "python3": executable file not found in $PATH: unknown', True),
        (RUNC + 'exec: "/run/l.pyz": stat /run/l.pyz: no such file or directory: unknown', True),
        (RUNC + 'exec: "/run/l.pyz": permission denied: unknown', True),
        ("crun: executable file `python3` not found in $PATH: No such file or directory", True),
        ("exec /usr/bin/python3: exec format error", True),
        (RUNC + "nvidia-container-cli: initialization error: nvml error: driver not loaded", False),
        ("failed to mount /data: no space left on device", False),
        ("context deadline exceeded", False),
        (None, False),
    ],
)
def test_an_image_that_lacks_the_program_is_not_tried_again(said: Any, told: bool) -> None:
    end = ended(exitCode=128, reason="StartError", message=said, finishedAt="2026-11-24T12:00:00Z")
    assert end is not None and (end.exit_code, end.round) == (128, 0)
    assert (end.failure is not None) is told
    if end.failure is not None:
        words = (end.failure.reason, end.failure.message, end.failure.at)
        assert words == ("StartFailed", f"StartError: {said}", NOON.timestamp())
        undated = ended(exitCode=128, reason="StartError", message=said)
        assert undated is not None and undated.failure == end.failure, "at the earliest when the Pod was made"
    program = ended(exitCode=128, reason="Error", message=said)
    assert program is not None and program.failure is None, "a program's own words are no runtime's"


def test_out_of_memory() -> None:
    assert ended(exitCode=137, reason="OOMKilled") == Termination(exit_code=137, out_of_memory=True)


@pytest.mark.parametrize(
    ("code", "read"),
    [(0, 0), (255, 255), (256, 255), (-1, 255), (3221225786, 255), ("1", None), (None, None), (True, None)],
)
def test_exit_codes(code: Any, read: int | None) -> None:
    end = ended(exitCode=code)
    assert (end.exit_code if end else None) == read


def test_a_container_beside_the_launcher_does_not_count() -> None:
    fields = status("Failed", containerStatuses=[container("sidecar", terminated={"exitCode": 3})])
    assert seen(make_pod(status=fields)).termination is None


@pytest.mark.parametrize(
    ("phase", "state", "dead"),
    [
        ("Running", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, True),
        ("Pending", {"terminated": {"exitCode": 1}}, True),
        ("Running", {"running": {}}, False),
        ("Pending", {"waiting": {}}, False),
        ("Failed", {}, True),
    ],
)
def test_a_worker_that_ended_is_dead_though_a_sidecar_runs_on(phase: str, state: dict[str, Any], dead: bool) -> None:
    others = [container("sidecar", running={}), container(**state)]
    assert seen(make_pod(status=status(phase, containerStatuses=others))).dead is dead


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (status("Failed", reason="Evicted", message="low on memory"), "Evicted: low on memory"),
        (status("Failed", reason="UnexpectedAdmissionError"), "UnexpectedAdmissionError"),
        (status("Running", reason="NodeLost"), ""),
        (status("Failed"), ""),
        (status("Failed", initContainerStatuses=[container("good", terminated={"exitCode": 0}),
                                                 container("get", terminated={"exitCode": 6, "message": "no route\n"})],
                containerStatuses=[container(waiting={"reason": "PodInitializing"})]),
         "init container get ended with 6: no route"),
        (status("Failed", initContainerStatuses=[container("get", terminated={"exitCode": 2, "reason": "Error"})]),
         "init container get ended with 2: Error"),
        (status("Failed", initContainerStatuses=[container("proxy", terminated={"exitCode": 143})],
                containerStatuses=[container(terminated={"exitCode": 1})]), ""),
        (status("Failed", reason="x" * 100, message="y" * 5000), "x" * 64 + ": " + "y" * MAX_MESSAGE),
        (status("Failed", containerStatuses=[container(terminated={"exitCode": 128, "reason": "StartError",
                                                                   "message": "no such\ndevice"})]),
         "StartError: no such device"),
        (status("Running", containerStatuses=[container(terminated={"exitCode": 127, "reason": "ContainerCannotRun"})]),
         "ContainerCannotRun"),
        (status("Failed", containerStatuses=[container(terminated={"exitCode": 1, "reason": "Error",
                                                                   "message": "mine"})]), ""),
    ],
)  # fmt: skip
def test_why_a_pod_failed_before_or_beside_its_worker(fields: dict[str, Any], why: str) -> None:
    assert seen(make_pod(status=fields)).why == why


# Jobs


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("depth", [100, 250, 9_900])
def test_a_job_that_is_nested_deeper_than_anything_that_means_something_is_read_without_that(
    depth: int,
) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(DEPTH)
    try:
        raw = json.loads(json.dumps(make_job(status={"phase": "Running", "performance": {"b": 2, "x": nested(depth)}})))
        raw["spec"]["podTemplate"] = {"spec": {"hostNetwork": True, "affinity": nested(depth)}}
        job = see_job(raw)
    finally:
        sys.setrecursionlimit(limit)
    assert job.status is not None and job.status.performance is not None
    assert (job.status.phase, job.status.performance["b"]) == ("Running", 2)
    pod = build_pod(job, 0, "image", Settings())
    assert pod["spec"]["hostNetwork"] is True
    assert "restartPolicy" in json.dumps(pod)


def test_a_job_is_read_with_what_a_server_adds() -> None:
    more = {"managedFields": [{}], "labels": {"a": 9 * "b"}, "annotations": {"c": "d"}, "somethingNew": 1}
    job = see_job(make_job(version=7, creationTimestamp="2026-11-24T12:00:00Z", status={}, **more))
    assert (job.metadata.resource_version, job.metadata.uid, job.status) == ("7", JOB_UID, None)


def test_what_a_newer_release_says_in_status_is_passed_over() -> None:
    new = {"phase": "Running", "mood": "good", "rendezvous": {"round": 3, "colour": "red", "members": [
        {"index": 0, "podUid": "a", "rank": 0}]}}  # fmt: skip
    job = see_job(make_job(status=new))
    assert job.status is not None
    assert job.status.phase == "Running"
    assert job.status.rendezvous is not None
    assert (job.status.rendezvous.round, job.status.rendezvous.members[0].pod_uid) == (3, "a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spec": {"workers": 2, "program": {"command": ["x"]}, "colour": "red"}}, "spec.colour"),
        ({"spec": {"workers": 2}}, "spec"),
        ({"spec": None}, "spec"),
        ({"status": {"phase": "Sleeping"}}, "status.phase"),
        ({"status": {"rendezvous": 7}}, "status.rendezvous"),
        ({"status": {"phase": "Running", "mood": 1, "restarts": -1}}, "status.restarts"),
        ({"name": "UPPER"}, "metadata.name"),
        ({"spec": {1, 2}}, "no plain data"),
    ],
)
def test_a_job_of_another_time_is_unreadable(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnreadableError, match=words):
        see_job(make_job(**change))


FAILED = {
    "phase": "Failed",
    "observedGeneration": 1,
    "startTime": "2026-11-24T10:00:00Z",
    "completionTime": "2026-11-24T11:00:00Z",
}


@pytest.mark.parametrize(
    "broken",
    [
        {"trainer": TRAINER | {"shards": 1}},
        {"trainer": TRAINER | {"precision": "fp16", "deterministic": True}},
        {"trainer": TRAINER | {"precision": "fp16", "device": "cpu"}},
        {"export": {"destination": ""}},
    ],
    ids=["shards", "exact", "cpu", "destination"],
)
def test_a_job_that_breaks_a_rule_of_the_trainers_is_read(broken: dict[str, Any]) -> None:
    """It is from before there was the rule, or says its GPUs as the server can't count them."""
    spec = {"workers": 2, "trainer": TRAINER, "ttlSecondsAfterFinished": 600} | broken
    with pytest.raises(ValidationError):
        TrainingJob.parse(make_job(spec=spec))
    nothing = Observed(listening_since=NOON)

    new = reconcile(see_job(make_job(spec=spec, creationTimestamp="2026-11-24T12:00:00Z")), nothing, NOON)
    assert new.status is not None and new.status.phase == "Pending"
    ended = see_job(make_job(spec=spec, status=FAILED | {"mood": "bad"}, creationTimestamp="2026-11-24T10:00:00Z"))
    plan = reconcile(ended, nothing, NOON)
    assert plan.status is not None and plan.status.phase == "Failed"
    plan = reconcile(see_job(ended.with_status(plan.status).dump()), nothing, NOON)
    assert [(one.kind, one.uid) for one in plan.delete] == [("TrainingJob", JOB_UID)]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"trainer": TRAINER}, "exactly one of workers and pools"),
        ({"workers": 2, "trainer": TRAINER, "program": {"command": ["x"]}}, "exactly one of trainer and program"),
        (
            {"workers": 1, "program": {"command": ["x"], "files": {"a": "x" * 200_000, "b": "x" * 200_000}}},
            "larger than 256 KiB",
        ),
        ({"workers": 1, "program": {"command": ["x"], "env": [{"name": "EDGECLOUD_ROUND"}]}}, "set by EdgeCloud"),
        ({"workers": 1, "trainer": TRAINER | {"shards": 4096}}, "spec.trainer.shards"),
    ],
    ids=["both", "two", "large", "env", "bound"],
)
def test_a_job_that_breaks_a_rule_that_the_operator_goes_by_is_unreadable(spec: dict[str, Any], words: str) -> None:
    for status_ in (None, FAILED):
        with pytest.raises(UnreadableError, match=words):
            see_job(make_job(spec=spec, status=status_))


# Whatever comes

TEXT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["worker", "Running", "Pending", "False", "2026-11-24T12:00:00Z", "digits-worker-1", "OOMKilled",
                     "ErrImagePull", "PodScheduled", "edgecloud.io/v1alpha1", "TrainingJob", "\ud800", "0" * 30]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["metadata", "spec", "status", "name", "namespace", "uid", "phase", "containerStatuses", "state", "terminated",
     "exitCode", "message", "conditions", "type", "reason", "ownerReferences", "labels", "waiting", "running",
     "startedAt", "creationTimestamp", "deletionTimestamp", "resourceVersion", "nodeName", "rendezvous"]
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(KEYS, TEXT), inner, max_size=5)),
)


@given(ANYTHING)
def test_nothing_raises(raw: Any) -> None:
    mark(raw), see_pod(raw), see_service(raw)
    try:
        see_job(raw)
    except UnreadableError as error:
        assert str(error)


def mangled(raw: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """The object with something else in some of its places."""
    copy: dict[str, Any] = json.loads(json.dumps(raw))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = copy
        while isinstance(place, dict) and place:
            key = data.draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or data.draw(st.booleans()):
                place[key] = data.draw(ANYTHING)
                break
            place = place[key]
    return copy


@given(st.data())
def test_a_mangled_pod_leaves_a_decision_possible(data: st.DataObject) -> None:
    """What is read of it can be decided on, and the decision can be written."""
    good = make_pod(
        1,
        spec={"nodeName": "node"},
        status=status(
            "Failed",
            startTime="2026-11-24T12:00:00Z",
            conditions=[{"type": "PodScheduled", "status": "False", "message": "no"}],
            containerStatuses=[container(terminated={"exitCode": 1, "message": '{"round":1,"outcome":"failed"}'})],
        ),
    )
    found = see_pod(mangled(good, data))
    if found is None:
        return
    job = see_job(make_job())
    for _ in range(3):
        observed = Observed(pods=(found.pod,), service=Service(name="digits", uid="s"), listening_since=NOON)
        plan = reconcile(job, observed, NOON)
        if plan.status is not None:
            job = TrainingJob.parse(job.with_status(plan.status).dump())


@given(st.data())
def test_a_mangled_job_is_read_or_refused(data: st.DataObject) -> None:
    good = make_job(status={"phase": "Running", "rendezvous": {"round": 1, "members": [{"index": 0, "podUid": "a"}]}})
    try:
        job = see_job(mangled(good, data))
    except UnreadableError:
        return
    assert TrainingJob.parse(job.dump()) == job


@given(st.data())
def test_a_mangled_service_is_read_or_passed_over(data: st.DataObject) -> None:
    see_service(mangled(make_service(), data))
