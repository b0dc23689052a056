"""The operator as a process, against a real kube-apiserver; its workers are real launchers, their kubelet is ours."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import Configuration

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud_operator.controller.cluster import ConflictError
from edgecloud_operator.kube.client import Client
from edgecloud_operator.kube.cluster import KubeCluster
from edgecloud_operator.kube.events import Recorder
from edgecloud_operator.kube.sight import see_job
from edgecloud_operator.kube.store import Store
from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Api, ApiStatusError, Space, until
from tests.integration.kubelet import kubelet
from tests.integration.process import OperatorProcess, operator, operator_token

pytestmark = pytest.mark.timeout(300)


def all_pods(space: Space, job: str, count: int) -> dict[str, dict[str, Any]]:
    return until(
        lambda: pods if len(pods := space.pods(job)) == count else None,
        f"{count} Pods of {job}",
        saw=lambda: (sorted(space.pods(job)), space.status(job)),
    )


def reaches(space: Space, job: str, phase: str, *, seconds: float = 60.0) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        status = space.status(job)
        return status if status.get("phase") == phase else None

    return until(look, f"{job} is {phase}", seconds=seconds, saw=lambda: space.status(job))


def untouched(space: Space) -> None:
    """kopf has left nothing on any object."""
    for kind in (space.jobs, f"{space.core}/pods", f"{space.core}/services", f"{space.core}/configmaps"):
        for item in space.api.call("GET", kind)["items"]:
            metadata = item["metadata"]
            assert "finalizers" not in metadata, metadata
            assert "kopf" not in json.dumps(metadata.get("annotations", {})), metadata
            assert "kopf" not in json.dumps(item.get("status", {})), item["status"]


# Children


def test_a_job_gets_a_service_files_and_pods_of_its_own(space: Space, running: OperatorProcess) -> None:
    job = space.submit("digits", workers=3, program={"command": ["python", "t.py"], "files": {"t.py": "print(1)"}})
    pods = all_pods(space, "digits", 3)
    assert sorted(pods) == ["digits-worker-0", "digits-worker-1", "digits-worker-2"]
    service = space.api.call("GET", f"{space.core}/services/digits")
    files = space.api.call("GET", f"{space.core}/configmaps/digits-files")
    assert (service["spec"]["clusterIP"], files["data"]) == ("None", {"t.py": "print(1)"})
    for child in (service, files, *pods.values()):
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "TrainingJob",
            "digits",
            job["metadata"]["uid"],
            True,
        )
    status = reaches(space, "digits", "Pending")
    assert status["summary"]["reason"] == "WaitingForWorkers"
    until(lambda: space.api.call("GET", f"{space.core}/events")["items"], "an event")
    (event,) = space.api.call("GET", f"{space.core}/events")["items"]
    assert (event["reason"], event["involvedObject"]["uid"]) == ("Accepted", job["metadata"]["uid"])
    untouched(space)
    assert running.stop() == 0
    assert "Traceback" not in running.log
    running.start()


def test_a_deleted_job_gets_nothing_any_more(space: Space, running: OperatorProcess) -> None:
    space.submit("gone")
    all_pods(space, "gone", 2)
    space.api.call("DELETE", f"{space.jobs}/gone")
    for name in space.pods("gone"):  # as the garbage collector would
        space.api.call("DELETE", f"{space.core}/pods/{name}")
    space.submit("later")
    all_pods(space, "later", 2)
    assert space.pods("gone") == {}


def test_deleted_children_come_back(space: Space, running: OperatorProcess) -> None:
    space.submit("digits")
    before = space.uids("digits") if all_pods(space, "digits", 2) else {}
    service = space.api.call("GET", f"{space.core}/services/digits")
    space.api.call("DELETE", f"{space.core}/pods/digits-worker-1")
    until(lambda: space.uids("digits").get("digits-worker-1") not in (None, before["digits-worker-1"]), "a new Pod")
    assert space.uids("digits")["digits-worker-0"] == before["digits-worker-0"]
    space.api.call("DELETE", f"{space.core}/services/digits")
    again = until(lambda: space.api.find(f"{space.core}/services/digits"), "a new Service")
    assert again["metadata"]["uid"] != service["metadata"]["uid"]
    assert space.status("digits")["restarts"] == 0


@pytest.mark.parametrize("kind", ["pods", "services", "configmaps"])
def test_what_belongs_to_somebody_else_is_never_adopted(space: Space, running: OperatorProcess, kind: str) -> None:
    name = {"pods": "digits-worker-1", "services": "digits", "configmaps": "digits-files"}[kind]
    spec: dict[str, Any] = {
        "pods": {"spec": {"containers": [{"name": "x", "image": "x"}]}},
        "services": {"spec": {"ports": [{"port": 80}]}},
        "configmaps": {"data": {"a": "b"}},
    }[kind]
    foreign = space.api.call("POST", f"{space.core}/{kind}", {"metadata": {"name": name}} | spec)
    space.submit("digits", program={"command": ["python", "t.py"], "files": {"t.py": "print(1)"}})
    until(lambda: space.blocked("digits") == "NameTaken", "it is Blocked", saw=lambda: space.status("digits"))
    there = space.api.call("GET", f"{space.core}/{kind}/{name}")
    for what in ("uid", "labels", "ownerReferences", "resourceVersion"):
        assert there["metadata"].get(what) == foreign["metadata"].get(what)
    alone = ["digits-worker-1"] if kind == "pods" else []
    until(lambda: sorted(space.pods("digits")) == alone, "half a gang is given back", saw=lambda: space.pods("digits"))
    space.api.call("DELETE", f"{space.core}/{kind}/{name}")
    pods = all_pods(space, "digits", 2)
    assert all(pod["metadata"]["ownerReferences"][0]["name"] == "digits" for pod in pods.values())
    until(lambda: space.blocked("digits") == "NotBlocked", "it goes on", saw=lambda: space.status("digits"))


# Refusals


def test_a_quota_is_shown_and_holds_up_nothing_else(space: Space, running: OperatorProcess) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    space.api.call("POST", f"{space.core}/resourcequotas", quota)
    hard = {"hard": {"pods": "1"}, "used": {"pods": "0"}}  # as the quota controller would
    space.api.merge(f"{space.core}/resourcequotas/few/status", {"status": hard})
    # Admission reads quotas from a cache: until it has this one, it lets Pods pass.
    probe = {"metadata": {"generateName": "probe-"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}

    def refused() -> bool:
        try:
            space.api.call("POST", f"{space.core}/pods?dryRun=All", probe)
        except ApiStatusError as error:
            return error.code == 403
        return False

    space.api.merge(f"{space.core}/resourcequotas/few/status", {"status": {"used": {"pods": "1"}}})
    until(refused, "the quota counts")
    space.submit("digits")
    until(lambda: space.blocked("digits") == "QuotaExceeded", "it is shown", saw=lambda: space.status("digits"))
    space.api.call("DELETE", f"{space.core}/resourcequotas/few")
    all_pods(space, "digits", 2)
    until(lambda: space.blocked("digits") == "NotBlocked", "it goes on", saw=lambda: space.status("digits"))
    assert running.log.count("a child was refused") == 1


def test_a_pod_template_that_the_server_refuses_is_shown(space: Space, running: OperatorProcess) -> None:
    space.submit("digits", podTemplate={"spec": {"dnsPolicy": "Nonsense"}})
    until(lambda: space.blocked("digits") == "AdmissionDenied", "it is shown", saw=lambda: space.status("digits"))
    conditions = {one["type"]: one for one in space.status("digits")["conditions"]}
    assert "dnsPolicy" in conditions["Blocked"]["message"]


# Runs


def test_a_job_runs_to_its_end(space: Space, running: OperatorProcess, tmp_path: Path) -> None:
    with kubelet(space, tmp_path / "kubelet"):
        space.submit("digits", program={"command": ["sleep", "2"]})
        status = reaches(space, "digits", "Running")
        assert status["rendezvous"]["round"] == 1
        assert [member["podUid"] for member in status["rendezvous"]["members"]] == list(space.uids("digits").values())
        status = reaches(space, "digits", "Succeeded")
        assert (status["restarts"], status["summary"]["progress"], status["rendezvous"]["round"]) == (0, "", 1)
        until(lambda: {p["status"]["phase"] for p in space.pods("digits").values()} == {"Succeeded"}, "the Pods end")
        events = [item["reason"] for item in space.api.call("GET", f"{space.core}/events")["items"]]
    assert sorted(events) == ["Accepted", "RoundOpened", "Running", "Succeeded"]
    untouched(space)


def test_a_worker_that_is_killed_is_replaced(space: Space, running: OperatorProcess, tmp_path: Path) -> None:
    with kubelet(space, tmp_path / "kubelet") as node:
        space.submit("digits", program={"command": ["sleep", "8"]})
        reaches(space, "digits", "Running")
        before = space.uids("digits")
        node.kill("digits-worker-1")
        status = until(
            lambda: s if (s := space.status("digits")).get("rendezvous", {}).get("round") == 2 else None, "round 2"
        )
        assert status["restarts"] == 1
        assert (status["lastFailure"]["worker"], status["lastFailure"]["signal"]) == (1, "SIGKILL")
        reaches(space, "digits", "Succeeded")
        after = space.uids("digits")
        assert after["digits-worker-0"] == before["digits-worker-0"]
        assert after["digits-worker-1"] != before["digits-worker-1"]


def test_a_status_that_somebody_wiped_is_healed(space: Space, running: OperatorProcess, tmp_path: Path) -> None:
    with kubelet(space, tmp_path / "kubelet"):
        space.submit("digits", program={"command": ["sleep", "600"]})
        reaches(space, "digits", "Running")
        before = space.uids("digits")
        job = space.job("digits")
        space.api.call("PUT", f"{space.jobs}/digits/status", {key: job[key] for key in job if key != "status"})
        status = until(
            lambda: s if (s := space.status("digits")).get("phase") == "Running" else None, "it runs again", seconds=90
        )
        assert status["rendezvous"]["round"] >= 2
        assert (status["restarts"], space.uids("digits")) == (0, before)


@pytest.mark.parametrize("seed", range(3))
def test_an_operator_that_is_killed_again_and_again(cp: ControlPlane, space: Space, tmp_path: Path, seed: int) -> None:
    """No worker is made twice, no round is spent, nobody pays; and the training never stands still for it."""
    rng = random.Random(seed)
    process = OperatorProcess(cp, tmp_path, f"--namespaces={space.name}")
    made: set[tuple[str, str]] = set()
    with kubelet(space, tmp_path / "kubelet"):
        enough = tmp_path / "enough"
        script = f"while [ ! -e {enough} ]; do sleep 0.2; done"
        space.submit("digits", workers=3, program={"command": ["sh", "-c", script]})
        try:
            for _ in range(6):
                process.start(ready=rng.random() < 0.6)
                time.sleep(rng.uniform(0.0, 1.5))
                process.kill()
                made |= set(space.uids("digits").items())
            process.start()
            reaches(space, "digits", "Running", seconds=90)
            number = space.status("digits")["rendezvous"]["round"]
            for _ in range(2):
                process.kill()
                process.start()
            enough.touch()
            status = reaches(space, "digits", "Succeeded", seconds=120)
        finally:
            process.kill()
        made |= set(space.uids("digits").items())
    assert len(made) == 3, made
    assert (status["rendezvous"]["round"], status["restarts"]) == (number, 0)
    assert number == 1
    assert "Traceback" not in process.log


def test_an_outage_of_the_api_server_is_no_crash(cp: ControlPlane, space: Space, tmp_path: Path) -> None:
    with kubelet(space, tmp_path / "kubelet"), operator(cp, tmp_path, f"--namespaces={space.name}") as process:
        space.submit("digits", program={"command": ["sleep", "20"]})
        reaches(space, "digits", "Running")
        with cp.outage():
            time.sleep(3)
            assert process.running
        status = reaches(space, "digits", "Succeeded", seconds=120)
        assert (status["rendezvous"]["round"], status["restarts"]) == (1, 0)
        space.submit("later", program={"command": ["sleep", "1"]})
        reaches(space, "later", "Succeeded", seconds=90)


# How much


REPORTING = """
import time
from edgecloud import worker
for step in range(10**6):
    worker.report(step=step, total_steps=10**6)
    time.sleep(0.05)
"""


@pytest.mark.long
def test_progress_is_written_seldom(cp: ControlPlane, api: Api, space: Space, tmp_path: Path) -> None:
    """Twenty reports a second become a write in ten seconds."""
    with kubelet(space, tmp_path / "kubelet"), operator(cp, tmp_path, f"--namespaces={space.name}"):
        space.submit("digits", workers=2, program={"command": ["python", "-c", REPORTING]})
        until(lambda: space.status("digits").get("progress", {}).get("step"), "progress", seconds=90)
        before, version = api.writes(), space.job("digits")["metadata"]["resourceVersion"]
        time.sleep(25)
        after, job = api.writes(), space.job("digits")
        status = after[("PUT", "trainingjobs/status")] - before[("PUT", "trainingjobs/status")]
        print(f"\n25 s of reports: {status} status writes")
        assert 1 <= status <= 4
        assert job["metadata"]["resourceVersion"] != version


def test_a_hundred_jobs(cp: ControlPlane, api: Api, space: Space, tmp_path: Path) -> None:
    jobs, workers = 100, 3
    with operator(cp, tmp_path, f"--namespaces={space.name}") as process:
        before = api.writes()
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: space.submit(f"job-{number}", workers=workers), range(jobs)))
        submitted = time.monotonic() - began
        until(lambda: len(space.pods()) == jobs * workers, "all Pods", seconds=120, saw=lambda: len(space.pods()))
        seconds = time.monotonic() - began
        until(lambda: all(space_status(space)), "all accepted")
        time.sleep(3)
        writes = Counter(api.writes())
        writes.subtract(before)
        print(f"\n{jobs} jobs of {workers} Pods: submitted in {submitted:.2f} s, all Pods after {seconds:.2f} s")
        print(f"operator: {process.memory_mib():.0f} MiB; API writes per job:")
        for (verb, resource), count in sorted(writes.items()):
            if count:
                print(f"  {verb:6} {resource:24} {count / jobs:.2f}")
        assert writes[("POST", "pods")] == jobs * workers
        assert writes[("POST", "services")] == jobs
        assert writes[("PUT", "trainingjobs/status")] <= 3 * jobs
        assert not any(verb == "PATCH" for (verb, _), count in writes.items() if count)
    untouched(space)


def space_status(space: Space) -> list[bool]:
    return [bool((item.get("status") or {}).get("startTime")) for item in space.api.call("GET", space.jobs)["items"]]


def test_a_status_that_has_changed_meanwhile_is_seen_and_left(cp: ControlPlane, space: Space) -> None:
    """With the rights that the operator has: the write is refused, and what stands there is looked at."""
    space.submit("digits")
    before = see_job(space.job("digits"))
    changed = space.api.merge(f"{space.jobs}/digits", {"metadata": {"annotations": {"a": "b"}}})
    store, seen = Store(), list[str]()

    class Sink:
        def saw_job(self, job: TrainingJob) -> None:
            seen.append(job.metadata.resource_version or "")

    async def scenario() -> None:
        configuration = Configuration(host=cp.url, ssl_ca_cert=str(cp.ca))
        configuration.api_key = {"BearerToken": f"Bearer {operator_token(cp)}"}
        client = Client(configuration)
        try:
            with pytest.raises(ConflictError):
                await KubeCluster(client, store, Recorder(client)).write_status(before, TrainingJobStatus())
        finally:
            await client.close()

    store.connect(Sink())  # type: ignore[arg-type]
    asyncio.run(scenario())
    assert seen == [changed["metadata"]["resourceVersion"]]
    assert "status" not in space.job("digits")
