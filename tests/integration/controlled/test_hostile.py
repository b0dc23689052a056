"""Resources that mean harm, or look like it: refused or bounded, and whoever else trains is not harmed."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Api, Space, until
from tests.integration.conftest import namespace_number
from tests.integration.kubelet import Kubelet, kubelet
from tests.integration.process import OperatorProcess, operator
from tests.integration.watching import all_pods, condition, events, reaches, refuses, write_status

pytestmark = pytest.mark.timeout(180)

SHORT = {"command": ["sleep", "0.2"]}


def resource(space: Space, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "edgecloud.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": space.name},
        "spec": {"workers": 1, "program": SHORT} | spec,
    }


def blocked(space: Space, job: str, reason: str) -> str:
    until(lambda: space.blocked(job) == reason, f"{reason} is shown", seconds=30, saw=lambda: space.status(job))
    return str(condition(space, job, "Blocked")["message"])


def others_run(space: Space) -> None:
    """A job that means no harm runs to its end."""
    space.submit("beside", workers=1, program=SHORT)
    reaches(space, "beside", "Succeeded")


BIG = "x" * 8192


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("a" * 51, {}, "at most 50"),
        ("a" * 63, {}, "at most 50"),
        ("über", {}, "metadata.name"),
        ("a.b", {}, "at most 50"),
        ("1st", {}, "at most 50"),
        ("many", {"workers": 10**6}, "spec.workers"),
        ("none", {"workers": 0}, "spec.workers"),
        ("env", {"program": SHORT | {"env": [{"name": f"A{n}", "value": BIG} for n in range(128)]}}, "128 KiB in all"),
        ("line", {"program": {"command": ["sleep", "x" * 5000]}}, "spec.program.command"),
        ("ours", {"program": SHORT | {"env": [{"name": "EDGECLOUD_JOB_UID", "value": "x"}]}}, "set by EdgeCloud"),
        ("rank", {"program": SHORT | {"env": [{"name": "MASTER_ADDR", "value": "x"}]}}, "set by EdgeCloud"),
        ("files", {"program": SHORT | {"files": {"../../etc/passwd": "x"}}}, "no plain file name"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_what_the_server_refuses_itself(space: Space, name: str, spec: dict[str, Any], words: str) -> None:
    code, said = refuses(space.api, "POST", space.jobs, resource(space, name, **spec))
    assert (code, words in said) == (422, True), said


def test_the_longest_name_there_may_be(space: Space, node: Kubelet) -> None:
    name = "a" * 50
    space.submit(name, workers=2, program=SHORT)
    reaches(space, name, "Succeeded")
    assert sorted(space.pods()) == [f"{name}-worker-0", f"{name}-worker-1"]


SAYS = """
import json, os, pathlib, sys
said = json.dumps([sys.argv[2:], os.environ["TEXT"]])
file = pathlib.Path(sys.argv[1])
file.with_suffix(".new").write_text(said)
file.with_suffix(".new").rename(file)
"""


def test_shell_text_reaches_the_process_as_it_is(space: Space, node: Kubelet, tmp_path: Path) -> None:
    texts = [
        "; touch pwned",
        "$(touch pwned)",
        "`touch pwned`",
        "&& rm -rf / #",
        "$HOME ${HOME} $(EDGECLOUD_JOB) $$(TEXT) $$ $(TEXT)",
        "'\"\\ \t\n* ? ~ | > file < file",
        "--",
        "-c",
        "",
        "\u202eüñí\U0001f4a9",
    ]
    file = tmp_path / "said"
    program = {"command": ["python", "-c", SAYS, str(file)], "args": texts}
    space.submit("digits", workers=1, program=program | {"env": [{"name": "TEXT", "value": "".join(texts)}]})
    until(file.exists, "the process has said what it got", saw=lambda: space.status("digits"))
    assert json.loads(file.read_text()) == [texts, "".join(texts)]
    assert not list(tmp_path.rglob("pwned"))


def test_labels_that_imitate_ours(space: Space, node: Kubelet) -> None:
    """A Pod belongs to the job that made it, and to that job's Service, whatever its template says."""
    space.submit("victim", workers=1, program={"command": ["sleep", "600"]})
    reaches(space, "victim", "Running")
    before = space.uids("victim")
    labels = {
        "edgecloud.io/job": "victim",
        "edgecloud.io/worker-index": "0",
        "app.kubernetes.io/managed-by": "somebody",
        "app.kubernetes.io/component": "launcher",
        "team": "a",
    }
    owner = {"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob", "name": "victim", "controller": True}
    owner |= {"uid": space.job("victim")["metadata"]["uid"]}
    metadata = {"labels": labels, "name": "victim-worker-1", "namespace": "default", "ownerReferences": [owner]}
    metadata |= {"resourceVersion": "7", "uid": "x", "deletionTimestamp": "2026-01-01T00:00:00Z", "generateName": "a"}
    space.submit("forger", workers=2, program=SHORT, podTemplate={"metadata": metadata})
    reaches(space, "forger", "Succeeded")
    made = space.pods("forger")["forger-worker-1"]["metadata"]
    assert made["labels"] == {
        "edgecloud.io/job": "forger",
        "edgecloud.io/worker-index": "1",
        "app.kubernetes.io/managed-by": "edgecloud",
        "app.kubernetes.io/component": "worker",
        "team": "a",
    }
    assert [one["name"] for one in made["ownerReferences"]] == ["forger"]
    assert (space.uids("victim"), space.phase("victim")) == (before, "Running")
    assert space.status("victim")["rendezvous"]["round"] == 1


def container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker"} | fields]}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "label": ({"metadata": {"labels": {"a": "b\nc,d in (e)"}}}, "metadata.labels"),
    "no containers": ({"spec": {"containers": None}}, "spec.containers"),
    "empty containers": ({"spec": {"containers": []}}, "spec.containers"),
    "containers that are none": ({"spec": {"containers": "all"}}, "containers"),
    "no volumes": ({"spec": {"volumes": None}}, "volumeMounts"),
    "two sources": ({"spec": {"volumes": [{"name": "tmp", "emptyDir": {}, "hostPath": {"path": "/"}}]}}, "volume"),
    "a list for a mapping": ({"spec": {"securityContext": []}}, "securityContext"),
    "nonsense": (container(imagePullPolicy="Perhaps"), "imagePullPolicy"),
    "a directive to kubectl": (container(**{"$patch": "delete"}), 'unknown field "spec.containers[0].$patch"'),
}


def test_templates_that_the_server_refuses(space: Space, node: Kubelet) -> None:
    for number, (template, _) in enumerate(REFUSED.values()):
        space.submit(f"bad-{number}", podTemplate=template)
    for number, (what, (_, words)) in enumerate(REFUSED.items()):
        said = blocked(space, f"bad-{number}", "AdmissionDenied")
        assert words in said, (what, said)
    assert space.pods() == {}
    others_run(space)


def test_templates_that_take_away_what_makes_a_worker(space: Space, running: OperatorProcess) -> None:
    """The Pods are made as they were asked for; that a launcher is never heard is shown after half a minute
    (test_blocked.py). What a template has no say in is whose they are, what they are called, that they run once, and
    that they start a launcher."""
    space.submit("command", podTemplate=container(command=None, image="mine:1"))
    space.submit("env", podTemplate=container(env=None))
    space.submit("again", podTemplate={"spec": {"restartPolicy": "Always", "terminationGracePeriodSeconds": 0}})
    pods = {job: all_pods(space, job, 2)[f"{job}-worker-0"] for job in ("command", "env", "again")}
    for job, pod in pods.items():
        assert [one["name"] for one in pod["metadata"]["ownerReferences"]] == [job]
        assert pod["spec"]["restartPolicy"] == "Never"
        assert [one["name"] for one in pod["spec"]["containers"]] == ["worker"]
    (worker,) = pods["command"]["spec"]["containers"]
    assert (worker["image"], "edgecloud.launcher" in worker["command"]) == ("mine:1", True)
    assert "env" not in pods["env"]["spec"]["containers"][0]
    assert all(condition(space, job, "Accepted")["status"] == "True" for job in pods)


PRIVILEGED = {
    "spec": {
        "containers": [{"name": "worker", "securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}],
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        "hostNetwork": True,
        "hostPID": True,
    }
}


def test_privileges_are_left_to_the_clusters_pod_security(space: Space, node: Kubelet) -> None:
    """Whoever may make a TrainingJob may make such Pods, unless the namespace's Pod Security level forbids them. A job
    that asks for nothing special fits the strictest level."""
    space.submit("open", workers=1, podTemplate=PRIVILEGED)
    assert all_pods(space, "open", 1)["open-worker-0"]["spec"]["hostPID"] is True
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    space.api.merge(f"/api/v1/namespaces/{space.name}", {"metadata": {"labels": label}})
    space.submit("closed", workers=1, podTemplate=PRIVILEGED)
    said = blocked(space, "closed", "AdmissionDenied")
    assert 'violates PodSecurity "restricted' in said and "hostPath" in said and "privileged" in said
    others_run(space)


def warnings(space: Space) -> list[str]:
    """Of the jobs deep and meta."""
    return [one["message"] for job in ("deep", "meta") for one in events(space, job) if one["type"] == "Warning"]


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def post(api: Api, cp: ControlPlane, path: str, body: str) -> int:
    """A body that Python's own json would not write."""
    connection = api._connection()
    headers = {"Authorization": f"Bearer {cp.token}", "Content-Type": "application/json"}
    connection.request("POST", path, body=body.encode(), headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


@pytest.mark.long
def test_a_template_that_is_nested_as_deep_as_the_server_takes(
    controlled: ControlPlane, controlled_api: Api, space: Space, node: Kubelet, running: OperatorProcess
) -> None:
    """It stands in the list beside everybody else's jobs, and must not make that unreadable."""
    body = json.dumps(resource(space, "deep", podTemplate={"spec": {"nodeSelector": "HERE"}}))
    deep = body.replace('"nodeSelector": "HERE"', f'"affinity": {nested(9_900)}')
    assert post(controlled_api, controlled, space.jobs, deep) == 201
    other = body.replace('"deep"', '"meta"').replace(
        '{"spec": {"nodeSelector": "HERE"}}', f'{{"metadata": {nested(9_900)}}}'
    )
    assert post(controlled_api, controlled, space.jobs, other) == 201
    # Neither is read here, but its events alone: this test's own json would not.
    said = until(
        lambda: warnings(space) if len(warnings(space)) == 2 else [], "both are refused", saw=lambda: running.log
    )
    for field, words in zip(("spec.affinity.a", "metadata.a"), said, strict=True):
        assert f'unknown field "{field}"' in words
    others_run(space)
    running.kill()
    running.start()  # it lists them now
    space.submit("later", workers=1, program=SHORT)
    reaches(space, "later", "Succeeded")


def test_a_status_of_a_megabyte(space: Space, node: Kubelet) -> None:
    space.submit("digits", workers=1, program={"command": ["sleep", "6"]})
    reaches(space, "digits", "Running")
    mega = "x" * 1_000_000
    write_status(space, "digits", performance={"a": mega}, exports=[{"a": mega[:100_000]}])
    until(
        lambda: len(json.dumps(space.job("digits"))) < 20_000,
        "it is small again",
        saw=lambda: len(space.status("digits")),
    )
    write_status(
        space, "digits", evaluation={"details": {"a": json.loads(nested(300))}}, progress={"metrics": {mega: 1}}
    )
    until(lambda: len(json.dumps(space.job("digits"))) < 20_000, "and again")
    status = reaches(space, "digits", "Succeeded")
    assert (status["rendezvous"]["round"], status["restarts"]) == (1, 0)


def test_a_pod_that_is_larger_than_the_server_stores(space: Space, node: Kubelet) -> None:
    """Each $ of an argument is two in a Pod, so that a job of 0.9 MB is a Pod of 1.7 MB."""
    program = {"command": ["$" * 4096] * 64, "args": ["$" * 4096] * 128}
    space.submit("large", program=program, podTemplate=container(env=[{"name": "A", "value": "x" * 100_000}]))
    assert "larger than the API server stores" in blocked(space, "large", "AdmissionDenied")
    # The server takes a template that the operator does not.
    space.submit("long", podTemplate=container(env=[{"name": "A", "value": "x" * 700_000}]))
    assert "spec.podTemplate has more than 128 KiB" in blocked(space, "long", "AdmissionDenied")
    others_run(space)


def good_jobs(space: Space, count: int) -> float:
    """Seconds from the submission of so many good jobs to the end of the last."""
    began = time.monotonic()
    names = [f"good-{number}" for number in range(count)]
    for name in names:
        space.submit(name, workers=1, program=SHORT)

    def done() -> bool:
        items = space.api.call("GET", space.jobs)["items"]
        return sum((item.get("status") or {}).get("phase") == "Succeeded" for item in items) == count

    until(done, f"{count} jobs succeed", seconds=120, saw=lambda: [space.phase(name) for name in names])
    return time.monotonic() - began


BROKEN: tuple[dict[str, Any], ...] = (
    {"podTemplate": {"spec": {"dnsPolicy": "Nonsense"}}},
    {"podTemplate": {"spec": {"containers": []}}},
    {"podTemplate": {"metadata": {"labels": {"a": "not a label!"}}}, "workers": 50},
    {"podTemplate": {"spec": {"nodeSelector": {"no": "such node"}}}, "startDeadlineSeconds": 1},
)


@pytest.mark.long
def test_five_hundred_broken_jobs_beside_ten_good_ones(
    controlled: ControlPlane, controlled_api: Api, tmp_path: Path
) -> None:
    spaces = [
        Space(controlled_api, controlled.create_namespace(f"many-{os.getpid()}-{namespace_number()}")) for _ in range(3)
    ]
    alone, beside, broken = spaces
    scope = f"--namespaces={','.join(space.name for space in spaces)}"
    (tmp_path / "operator").mkdir()
    with operator(controlled, tmp_path / "operator", scope) as process:
        with kubelet(alone, tmp_path / "alone"):
            before = good_jobs(alone, 10)
        with ThreadPoolExecutor(2) as pool, kubelet(beside, tmp_path / "beside"):
            made = pool.map(lambda n: broken.submit(f"bad-{n}", **BROKEN[n % len(BROKEN)]), range(500))
            until(lambda: broken.api.find(f"{broken.jobs}/bad-100"), "they come in")
            after = good_jobs(beside, 10)
            assert len(list(made)) == 500

        def told() -> int:
            items = broken.api.call("GET", broken.jobs)["items"]
            reasons = [(item.get("status") or {}).get("summary", {}).get("reason") for item in items]
            return sum(reason in ("AdmissionDenied", "StartDeadlineExceeded") for reason in reasons)

        until(lambda: told() == 500, "each is told why it does not run", seconds=60, saw=told, every=1.0)
        memory = process.memory_mib()
        print(f"\n10 good jobs: {before:.1f} s alone, {after:.1f} s beside 500 broken ones; operator {memory:.0f} MiB")
        assert "Traceback" not in process.log
