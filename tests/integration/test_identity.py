"""Who is heard: the cluster's real tokens, and everything that looks like one."""

from __future__ import annotations

import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgecloud_operator.core.names import CA_ANNOTATION
from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Space, until
from tests.integration.coordinator import Coordinator, another_key, ask, claims, forged, pod_token, unsigned
from tests.integration.process import OperatorProcess, operator
from tests.integration.test_operator import all_pods

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("identity")]  # one operator for all of them

JOBS = ("digits", "other")


@dataclass
class Stage:
    cp: ControlPlane
    space: Space
    process: OperatorProcess
    coordinator: Coordinator
    uids: dict[str, str]
    """Of the jobs."""
    pods: dict[str, dict[str, Any]]

    def audience(self, job: str = "digits") -> str:
        return f"edgecloud.io/{self.uids[job]}"

    def token(self, pod: str = "digits-worker-0", job: str = "digits") -> str:
        return pod_token(self.space, self.pods[pod], self.audience(job))

    def ask(
        self, token: str | None, *, pod: str = "digits-worker-0", job: str = "digits", index: int = 0, **more: Any
    ) -> Any:
        """As that Pod of that job."""
        fields = {"jobUid": self.uids[job], "podUid": self.pods[pod]["metadata"]["uid"]} | more
        return self.coordinator.poll(token, job=job, index=index, **fields)

    def refused(self) -> dict[str, float]:
        """What the operator has counted, by reason."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.process.liveness}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            family = next(one for one in families if one.name == "edgecloud_refused_reports")
        return {sample.labels["reason"]: sample.value for sample in family.samples if sample.name.endswith("_total")}


@pytest.fixture(scope="module")
def stage(cp: ControlPlane, api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two jobs whose Pods nobody runs: the tests speak for them."""
    space = Space(api, cp.create_namespace(f"identity-{time.time_ns()}"))
    with operator(cp, tmp_path_factory.mktemp("operator"), f"--namespaces={space.name}") as process:
        uids = {name: space.submit(name, workers=3)["metadata"]["uid"] for name in JOBS}
        pods = {name: pod for job in JOBS for name, pod in all_pods(space, job, 3).items()}
        ca = pods["digits-worker-0"]["metadata"]["annotations"][CA_ANNOTATION]
        yield Stage(cp, space, process, Coordinator(space, process.port, ca), uids, pods)


def test_a_worker_is_heard(stage: Stage) -> None:
    assert stage.ask(stage.token()) == (200, "")
    again = forged(stage.cp, stage.token(), {})  # what the cluster's key signs is the cluster's word
    assert stage.ask(again) == (200, "")


def test_nobody_else_is(stage: Stage) -> None:
    """Each of them refused, for its own reason, and counted under it."""
    good, now = stage.token(), int(time.time())
    stranger = another_key()
    stray = stage.space.api.call("POST", f"{stage.space.core}/pods", POD | {"metadata": {"name": "stray"}})
    labels = stage.pods["digits-worker-2"]["metadata"]["labels"]
    imitation = {"name": "digits-worker-7", "labels": labels | {"edgecloud.io/worker-index": "7"}}
    imitator = stage.space.api.call("POST", f"{stage.space.core}/pods", POD | {"metadata": imitation})
    long_ago = {"iat": now - 1000, "nbf": now - 1000}
    elsewhere = claims(good)["kubernetes.io"] | {"namespace": "default"}
    matrix: list[tuple[str | None, tuple[int, str]]] = [
        (None, (401, "unauthorized")),
        ("", (401, "bad-token")),
        ("garbage", (401, "bad-token")),
        ("a.b.c", (401, "bad-token")),
        (good[:-8] + "AAAAAAAA", (401, "bad-signature")),
        (unsigned(good, "none"), (401, "bad-token")),
        (unsigned(good, "HS256", b"0" * 32), (401, "bad-token")),
        (unsigned(good, "RS256", b"0" * 256), (401, "bad-signature")),
        (forged(stage.cp, good, {}, key=stranger), (401, "bad-signature")),
        (forged(stage.cp, good, {}, key=stranger, kid="of-my-own"), (401, "unknown-key")),
        (forged(stage.cp, good, {"iss": "https://another.cluster"}), (401, "bad-token")),
        (forged(stage.cp, good, {"exp": now - 61}), (401, "expired")),
        (forged(stage.cp, good, {"nbf": now + 3600}), (401, "bad-token")),
        (forged(stage.cp, good, {"aud": [stage.audience("other")]}), (401, "wrong-audience")),
        (
            pod_token(stage.space, stage.pods["digits-worker-0"], "https://kubernetes.default.svc"),
            (401, "wrong-audience"),
        ),
        (forged(stage.cp, good, {"kubernetes.io": elsewhere}), (401, "unknown-pod")),
        (stage.token("other-worker-0", "other"), (403, "foreign")),  # another job's
        (stage.token("digits-worker-1"), (403, "foreign")),  # right job, wrong index
        (pod_token(stage.space, stray, stage.audience()), (503, "not-ready")),  # no worker; but it is a young one
        (forged(stage.cp, pod_token(stage.space, stray, stage.audience()), long_ago), (401, "unknown-pod")),
        (forged(stage.cp, pod_token(stage.space, imitator, stage.audience()), long_ago), (401, "unknown-pod")),
    ]
    before = stage.refused()
    answers = [stage.ask(token) for token, _ in matrix]
    assert answers == [expected for _, expected in matrix]
    after = stage.refused()
    for reason in {reason for _, (_, reason) in matrix}:
        assert after[reason] - before[reason] == sum(expected[1] == reason for _, expected in matrix), reason
    # The right token, and another's name or number.
    assert stage.ask(good, index=1) == (403, "foreign")
    assert stage.ask(good, podUid=stage.pods["digits-worker-1"]["metadata"]["uid"]) == (403, "foreign")
    assert stage.ask(good, jobUid=stage.uids["other"]) == (403, "foreign")
    assert stage.ask(good, job="other") == (403, "foreign")
    assert stage.ask(good, namespace="default") == (403, "foreign")
    # And after all that the worker itself is heard as before.
    assert stage.ask(good) == (200, "")
    # An imitation is never adopted, and nobody's business.
    assert "digits-worker-7" in stage.space.pods()


POD: dict[str, Any] = {"spec": {"containers": [{"name": "x", "image": "x"}]}}


def test_a_pod_that_is_gone_is_not_heard(stage: Stage) -> None:
    token, uid = stage.token("other-worker-2", "other"), stage.pods["other-worker-2"]["metadata"]["uid"]
    assert stage.ask(token, job="other", index=2, podUid=uid) == (200, "")
    stage.space.api.call("DELETE", f"{stage.space.core}/pods/other-worker-2?gracePeriodSeconds=0")
    until(
        lambda: stage.ask(token, job="other", index=2, podUid=uid) == (401, "unknown-pod"),
        "the Pod that is gone is refused",
        saw=lambda: stage.ask(token, job="other", index=2, podUid=uid),
    )
    # Its successor is another one, whose token is its own.
    again = until(
        lambda: (
            pod if (pod := stage.space.pods("other").get("other-worker-2")) and pod["metadata"]["uid"] != uid else None
        ),
        "a new Pod",
    )
    fresh = pod_token(stage.space, again, stage.audience("other"))
    fields = {"job": "other", "index": 2, "podUid": again["metadata"]["uid"]}
    until(
        lambda: stage.ask(fresh, **fields) == (200, ""), "the new one is heard", saw=lambda: stage.ask(fresh, **fields)
    )


def test_a_workers_token_is_nothing_to_the_api_server(stage: Stage) -> None:
    """401: it is not even somebody without rights there."""
    context = ssl.create_default_context(cafile=str(stage.cp.ca))
    for path in ("/api", f"{stage.space.core}/pods", "/apis/edgecloud.io/v1alpha1/trainingjobs", "/version"):
        assert ask("GET", stage.cp.port, path, context, token=stage.token())[0] == 401


def test_without_tls_there_is_no_word(stage: Stage) -> None:
    before = stage.refused()
    with socket.create_connection(("127.0.0.1", stage.process.port), timeout=20) as plain:
        plain.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + stage.token().encode() + b"\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
    until(lambda: stage.refused()["no-tls"] == before["no-tls"] + 1, "it is counted", saw=stage.refused)
    assert stage.ask(stage.token()) == (200, "")


def test_too_often_and_too_much(stage: Stage) -> None:
    token = stage.token("digits-worker-1")
    fields: dict[str, Any] = {"pod": "digits-worker-1", "index": 1}
    answers = [stage.ask(token, **fields) for _ in range(80)]
    assert set(answers) == {(200, ""), (429, "too-often")}
    assert stage.ask(stage.token()) == (200, "")  # it is its own bound, nobody else's
    until(lambda: stage.ask(token, **fields) == (200, ""), "it is heard again")
    until(lambda: stage.ask(token, **fields, node="x" * 10**6) == (413, "too-large"), "too large is refused as such")


def test_keys_that_the_cluster_changes(cp: ControlPlane, stage: Stage, tmp_path: Path) -> None:
    """A kid that was never seen makes the keys be read again, but not for each such token."""
    before = cp.audit_log.read_text().count('"/openid/v1/jwks')
    token = forged(cp, stage.token(), {}, key=another_key(), kid="made-up")
    for _ in range(30):
        assert stage.ask(token)[1] == "unknown-key"
    reads = cp.audit_log.read_text().count('"/openid/v1/jwks') - before
    assert reads <= 2
