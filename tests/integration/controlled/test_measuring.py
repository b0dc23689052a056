"""Converted models that are measured on a node of their own, on a real API server.

The workers are real launchers, whose program ends well after a moment. What a kubelet would write of the measuring Pod
is written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecloud_operator.core.health import MEASURING_REMEDIES, REMEDIES
from tests.cluster.control_plane import ControlPlane
from tests.integration.api import ApiStatusError, Space, until
from tests.integration.controlled.test_blocked import unscheduled, waiting
from tests.integration.kubelet import Kubelet
from tests.integration.process import OperatorProcess, operator
from tests.integration.watching import PROBE, condition, events, pod_status, reaches, write_status
from tests.unit.core.build import make_export, make_message

pytestmark = pytest.mark.timeout(120)

POD = "digits-measure"
NODE = "pc-1"
PUBLISHED = [make_export("onnx", accuracy=0.9), make_export("onnx-int8", accuracy=0.9), make_export("pt2")]


@pytest.fixture
def running(controlled: ControlPlane, space: Space, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One whose edge image has a name of its own."""
    with operator(controlled, tmp_path, f"--namespaces={space.name}", "--edge-image=example.com/edge:7") as process:
        yield process
        assert "Traceback" not in process.log, process.log


def submit(space: Space, name: str = "digits", **spec: Any) -> dict[str, Any]:
    """A job of the built-in trainer, in whose place a program runs that is soon done."""
    command = ["python", "-I", "-m", "edgecloud.launcher", "--", "sleep", "0.5"]
    worker = {"name": "worker", "command": command, "env": [{"name": "EDGECLOUD_STANDBY", "value": "0"}]}
    fields: dict[str, Any] = {
        "workers": 1,
        "program": None,
        "trainer": {"data": {"name": "digits"}},
        "podTemplate": {"spec": {"containers": [worker]}},
        "storage": {"claimName": "models"},
        "export": {
            "formats": ["onnx", "onnx-int8", "pt2"],
            "measureOn": {"nodeSelector": {"edgecloud.io/edge": "true"}, "resources": {"limits": {"cpu": "1"}}},
        },
    } | spec
    return space.submit(name, **fields)


def measurer(space: Space, *, other_than: str = "") -> dict[str, Any]:
    """The Pod that measures, once there is one, or another one."""

    def look() -> dict[str, Any] | None:
        pod: dict[str, Any] | None = space.api.find(f"{space.core}/pods/{POD}")
        return pod if pod and pod["metadata"]["uid"] != other_than else None

    return until(look, "a Pod that measures", saw=lambda: space.status("digits")) or {}


def starts(space: Space) -> str:
    """Its kubelet starts it; its uid."""
    uid = str(measurer(space)["metadata"]["uid"])
    binding = {"metadata": {"name": POD}, "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}}
    space.api.call("POST", f"{space.core}/pods/{POD}/binding", binding)
    pod_status(space, POD, phase="Running", containerStatuses=[container({"running": {}})])
    return uid


def ends(space: Space, code: int, message: str = "", **more: Any) -> None:
    ended = {"exitCode": code, "message": message, "reason": "Completed" if code == 0 else "Error"} | more
    phase = "Succeeded" if code == 0 else "Failed"
    pod_status(space, POD, phase=phase, containerStatuses=[container({"terminated": ended})])


def container(state: dict[str, Any]) -> dict[str, Any]:
    return {"name": "measure", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}


def measuring(space: Space) -> dict[str, Any]:
    """The stage in status, once the training is complete."""
    return until(
        lambda: space.status("digits").get("measuring") or {},
        "the training is complete",
        saw=lambda: space.status("digits"),
    )


def test_trained_measured_and_done(space: Space, node: Kubelet) -> None:
    submit(space)
    measuring(space)
    write_status(space, "digits", exports=PUBLISHED)
    status = space.status("digits")
    running = condition(space, "digits", "Running")
    assert (status["phase"], running["reason"]) == ("Running", "Measuring")
    assert "on a node with edgecloud.io/edge=true" in running["message"]
    spec = measurer(space)["spec"]
    assert (spec["nodeSelector"], spec["restartPolicy"]) == ({"edgecloud.io/edge": "true"}, "Never")
    assert spec["automountServiceAccountToken"] is False
    (made,) = spec["containers"]
    assert (made["image"], made["command"]) == ("example.com/edge:7", ["python", "-P", "-m", "edgecloud.edge.measure"])
    assert made["resources"]["limits"] == {"cpu": "1"}
    until(
        lambda: space.pods("digits")["digits-worker-0"]["status"]["phase"] == "Succeeded",
        "the worker has given its place back",
        saw=lambda: space.pods("digits"),
    )
    uid = starts(space)
    until(lambda: space.status("digits")["measuring"].get("podUid") == uid, "it is known")
    scale = space.api.call("GET", f"{space.jobs}/digits/scale")["status"]
    selector = scale["selector"].replace(",", "%2C").replace("=", "%3D")
    chosen = space.api.call("GET", f"{space.core}/pods?labelSelector={selector}")["items"]
    assert [pod["metadata"]["name"] for pod in chosen] == ["digits-worker-0"], "it is no worker"
    ends(space, 0, make_message())
    status = reaches(space, "digits", "Succeeded")
    assert [(one["format"], one["accuracy"], one.get("node")) for one in status["exports"]] == [
        ("onnx", 0.975, NODE),
        ("onnx-int8", 0.975, NODE),
        ("pt2", 0.975, None),
    ]
    said = until(
        lambda: (
            {one["reason"]: one["message"] for one in events(space, "digits")}
            if len(events(space, "digits")) >= 6
            else {}
        ),
        "the events are written",
        saw=lambda: events(space, "digits"),
    )
    assert "edgecloud.io/edge=true" in said["Measuring"] and f"onnx-int8 on {NODE}: 1.5 ms" in said["Measured"]
    assert measurer(space)["metadata"]["uid"] == uid, "it stays, for its log"
    space.api.call("DELETE", f"{space.jobs}/digits")
    until(lambda: space.api.find(f"{space.core}/pods/{POD}") is None, "it goes with its job")


def test_operators_that_die_at_every_turn_change_nothing(space: Space, node: Kubelet, running: OperatorProcess) -> None:
    """Killed when the training ends, when the Pod is made, when it has failed, and when it has measured."""

    def again() -> None:
        running.kill()
        running.start()

    submit(space)
    measuring(space)
    again()
    first = starts(space)
    again()
    until(lambda: space.status("digits")["measuring"].get("podUid") == first, "it is known")
    running.kill()
    ends(space, 137, reason="OOMKilled")
    running.start()
    until(lambda: space.status("digits")["measuring"]["failures"] == 1, "it is counted")
    again()
    second = str(measurer(space, other_than=first)["metadata"]["uid"])
    assert second != first
    running.kill()
    starts(space)
    ends(space, 0, make_message())
    running.start()
    status = reaches(space, "digits", "Succeeded")
    assert (status["measuring"]["failures"], status["restarts"], status["rendezvous"]["round"]) == (1, 0, 1)
    assert [one["node"] for one in status["exports"]] == [NODE, NODE]


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        (
            3,
            make_message(make_export(), make_export("onnx-int8", gate="failed")),
            "onnx-int8 (accuracy 97.50%), measured",
        ),
        (2, '{"error": "there is no model.onnx"}', "there is no model.onnx"),
    ],
    ids=["gate", "unusable"],
)
def test_ends_that_fail_the_job(space: Space, node: Kubelet, code: int, message: str, words: str) -> None:
    submit(space)
    measuring(space)
    starts(space)
    ends(space, code, message)
    status = reaches(space, "digits", "Failed")
    failed = condition(space, "digits", "Failed")
    assert failed["reason"] == "ExportFailed" and words in failed["message"]
    assert [one["gate"] for one in status.get("exports", ())] == (["passed", "failed"] if code == 3 else [])


def test_a_forged_message_is_refused_and_a_deleted_pod_made_anew(space: Space, node: Kubelet) -> None:
    submit(space)
    measuring(space)
    write_status(space, "digits", exports=PUBLISHED)
    first = starts(space)
    ends(space, 0, make_message(make_export("onnx", sha256=64 * "0"), make_export("onnx-int8")))
    until(lambda: space.status("digits")["measuring"]["failures"] == 1, "it is refused")
    assert "it speaks of another onnx than worker 0 wrote" in condition(space, "digits", "Running")["message"]
    second = str(measurer(space, other_than=first)["metadata"]["uid"])
    until(lambda: space.status("digits")["measuring"]["podUid"] == second, "it is known")
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
    space.api.call("DELETE", f"{space.core}/pods/{POD}", options)
    until(lambda: space.status("digits")["measuring"]["failures"] == 2, "it is missed")
    measurer(space, other_than=second)
    starts(space)
    ends(space, 0, make_message())
    assert reaches(space, "digits", "Succeeded")["exports"][0]["node"] == NODE


def test_suspended_and_resumed_while_it_is_measured(space: Space, node: Kubelet) -> None:
    submit(space)
    measuring(space)
    first = starts(space)
    space.api.merge(f"{space.jobs}/digits", {"spec": {"suspend": True}})
    reaches(space, "digits", "Suspended")
    until(lambda: not space.pods(), "no Pod is left", saw=lambda: sorted(space.pods()))
    space.api.merge(f"{space.jobs}/digits", {"spec": {"suspend": False}})
    measurer(space, other_than=first)
    starts(space)
    ends(space, 0, make_message())
    status = reaches(space, "digits", "Succeeded")
    assert (status["rendezvous"]["round"], status["measuring"]["failures"]) == (1, 0)
    assert sorted(space.pods()) == [POD], "nothing was trained again"


def test_a_deadline_passes_and_time_is_up_while_it_is_measured(space: Space, node: Kubelet) -> None:
    submit(space, activeDeadlineSeconds=8, ttlSecondsAfterFinished=2)
    measuring(space)
    starts(space)
    reaches(space, "digits", "Failed")
    assert condition(space, "digits", "Failed")["reason"] == "ActiveDeadlineExceeded"
    until(lambda: space.api.find(f"{space.core}/pods/{POD}") is None, "what measured is taken away")
    until(lambda: space.api.find(f"{space.jobs}/digits") is None, "and the job with the rest")


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("Unschedulable", unscheduled("0/2 nodes are available: 2 node(s) didn't match node selector")),
        ("ErrImagePull", waiting("ErrImagePull", "edge:7: not found")),
    ],
    ids=["Unschedulable", "ErrImagePull"],
)
def test_what_keeps_it_from_measuring_is_shown(
    space: Space, node: Kubelet, reason: str, status: dict[str, Any]
) -> None:
    submit(space)
    measuring(space)
    measurer(space)
    pod_status(space, POD, **status)
    until(lambda: space.blocked("digits") == reason, f"{reason} is shown", saw=lambda: space.status("digits"))
    message = condition(space, "digits", "Blocked")["message"]
    assert message.startswith(f"{POD}: ") and message.endswith(MEASURING_REMEDIES[reason])  # type: ignore[index]
    starts(space)
    until(lambda: space.blocked("digits") == "NotBlocked", "it is taken back", saw=lambda: space.status("digits"))


def test_a_stranger_of_that_name(space: Space, node: Kubelet) -> None:
    space.api.call("POST", f"{space.core}/pods", {"metadata": {"name": POD}, "spec": PROBE["spec"]})
    pod_status(space, POD, phase="Running")
    submit(space)
    until(lambda: space.blocked("digits") == "NameTaken", "it is shown", saw=lambda: space.status("digits"))
    assert f"kubectl delete pod {POD}" in condition(space, "digits", "Blocked")["message"]
    stranger = measurer(space)["metadata"]["uid"]
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
    space.api.call("DELETE", f"{space.core}/pods/{POD}", options)
    measurer(space, other_than=stranger)
    until(lambda: space.blocked("digits") == "NotBlocked", "it is taken back", saw=lambda: space.status("digits"))


def test_models_that_the_pod_could_not_reach(space: Space, running: OperatorProcess) -> None:
    """No worker is started for them; a job beside it that leaves them at a URL is."""
    submit(space, storage={"claimName": "models", "accessMode": "ReadWriteOnce"})
    fetched = {"measureOn": {}, "destination": "https://models.example.com/digits"}
    submit(space, "beside", storage=None, export=fetched)
    until(lambda: space.blocked("digits") == "ModelUnreachable", "it is shown", saw=lambda: space.status("digits"))
    message = condition(space, "digits", "Blocked")["message"]
    assert "which is ReadWriteOnce" in message and message.endswith(REMEDIES["ModelUnreachable"])
    until(lambda: space.pods("beside"), "the other one's worker")
    assert space.blocked("beside") == "NotBlocked"
    assert (space.pods("digits"), space.api.find(f"{space.core}/services/digits")) == ({}, None)


def test_a_rule_that_the_server_knows_too(space: Space) -> None:
    for export, words in (
        ({"formats": ["pt2"], "measureOn": {}}, "measureOn measures onnx and onnx-int8"),
        ({"formats": ["onnx", "onnx"]}, "a format is named twice"),
    ):
        with pytest.raises(ApiStatusError, match=words):
            submit(space, export=export)
