"""The coordinator's certificates: where they are kept, and how an authority is replaced under a job that trains."""

from __future__ import annotations

import base64
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from edgecloud_operator.core.names import CA_ANNOTATION
from edgecloud_operator.kube.certificates import ANNOUNCED_FOR, Pair, Trust, issue, make_authority, written
from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Api, Space, until
from tests.integration.kubelet import kubelet
from tests.integration.process import SYSTEM, TLS_SECRET, OperatorProcess, operator
from tests.integration.test_operator import all_pods, reaches

pytestmark = pytest.mark.timeout(300)

SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"
SECRET = f"{SECRETS}/{TLS_SECRET.partition('/')[2]}"
SOON = timedelta(seconds=12)


@pytest.fixture
def kept(api: Api) -> Iterator[None]:
    """The Secret that was there before is there again afterwards: other tests' operators share it."""
    before = api.find(SECRET)
    yield
    put(api, {} if before is None else before["data"])


def put(api: Api, data: dict[str, str]) -> None:
    """What the Secret holds; as it is stored."""
    if api.find(SECRET):
        api.call("DELETE", SECRET)
    if data:
        api.call("POST", SECRETS, {"metadata": {"name": SECRET.rpartition("/")[2]}, "data": data})


def encoded(trust: Trust) -> dict[str, str]:
    return {key: base64.b64encode(text.encode()).decode() for key, text in written(trust).items()}


def issuer(port: int, bundle: str) -> str:
    """Who signed what the coordinator serves with, for somebody who trusts the bundle; as soon as it serves."""
    context = ssl.create_default_context(cadata=bundle)

    def look() -> bytes | None:
        try:
            raw = socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            return None  # it is ready before it leads
        with raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as secured:
            return secured.getpeercert(binary_form=True)

    served = until(look, "the coordinator serves")
    return x509.load_der_x509_certificate(served).issuer.rfc4514_string()


def subject(pair: Pair) -> str:
    return x509.load_pem_x509_certificate(pair.certificate.encode()).subject.rfc4514_string()


def announced(space: Space, job: str) -> set[str]:
    return {pod["metadata"]["annotations"][CA_ANNOTATION] for pod in space.pods(job).values()}


def test_an_authority_of_its_own(cp: ControlPlane, api: Api, space: Space, tmp_path: Path, kept: None) -> None:
    put(api, {})
    with operator(cp, tmp_path, f"--namespaces={space.name}") as process:
        made = until(lambda: api.find(SECRET), "the Secret is made")
        assert sorted(made["data"]) == ["ca.crt", "ca.key"]
        bundle = base64.b64decode(made["data"]["ca.crt"]).decode()
        space.submit("digits")
        all_pods(space, "digits", 2)
        assert announced(space, "digits") == {bundle}
        process.kill()
        process.start()
        issuer(process.port, bundle)
        assert api.call("GET", SECRET)["data"] == made["data"]
        assert "PRIVATE" not in process.log


def test_an_authority_is_replaced_under_a_job_that_trains(
    cp: ControlPlane, api: Api, space: Space, tmp_path: Path, kept: None
) -> None:
    """Announced first, to Pods that run; it signs when its day is over; nobody notices but the certificates."""
    first = make_authority(datetime.now(UTC) - timedelta(days=100))
    put(api, encoded(Trust(signing=first)))
    process = OperatorProcess(cp, tmp_path, f"--namespaces={space.name}", "--progress-seconds=1")
    with kubelet(space, tmp_path / "kubelet"):
        try:
            # Pods from before the announcement.
            process.start()
            space.submit("digits", program={"command": ["python", "-c", STEPS]})
            reaches(space, "digits", "Running")
            uids = space.uids("digits")
            assert announced(space, "digits") == {first.certificate}
            process.kill()
            # Announced: every Pod that runs is told.
            due = datetime.now(UTC) + SOON
            following = make_authority(due - ANNOUNCED_FOR)
            trust = Trust(signing=first, following=following)
            put(api, encoded(trust))
            process.start()
            until(lambda: announced(space, "digits") == {trust.bundle}, "the Pods are told", saw=lambda: process.log)
            assert issuer(process.port, trust.bundle) == subject(first)
            # Its day is over: it signs.
            until(lambda: datetime.now(UTC) > due + timedelta(seconds=1), "its day is over")
            process.kill()
            process.start()
            after = Trust(signing=following, former=first.certificate)
            assert issuer(process.port, following.certificate) == subject(following)
            assert api.call("GET", SECRET)["data"] == encoded(after)
            step = space.status("digits")["progress"]["step"]
            until(
                lambda: space.status("digits")["progress"]["step"] > step + 20,
                "the workers speak to it",
                saw=lambda: space.status("digits"),
            )
            status = space.status("digits")
            assert (space.uids("digits"), status["rendezvous"]["round"], status["restarts"]) == (uids, 1, 0)
        finally:
            process.kill()


STEPS = """
import time
from edgecloud import worker
for step in range(10**6):
    worker.report(step=step, total_steps=10**6)
    time.sleep(0.05)
"""


def test_a_secret_that_is_lost_is_put_back(
    cp: ControlPlane, api: Api, space: Space, tmp_path: Path, kept: None
) -> None:
    """With the authority that the workers trust."""
    put(api, {})
    with operator(cp, tmp_path, f"--namespaces={space.name}") as process:
        before = until(lambda: api.find(SECRET), "the Secret is made")["data"]
        api.call("DELETE", SECRET)
        until(lambda: api.find(SECRET), "it is there again", seconds=90)
        assert api.call("GET", SECRET)["data"] == before
        issuer(process.port, base64.b64decode(before["ca.crt"]).decode())


@pytest.mark.parametrize(
    "data", [{"ca.crt": "eA==", "ca.key": "eA=="}, {"something": "else"}], ids=["broken", "another's"]
)
def test_a_secret_that_is_none_of_ours_is_left_alone(
    cp: ControlPlane, api: Api, space: Space, tmp_path: Path, kept: None, data: dict[str, Any]
) -> None:
    put(api, {key: base64.b64encode(value.encode()).decode() for key, value in data.items()})
    before = api.call("GET", SECRET)
    process = OperatorProcess(cp, tmp_path, f"--namespaces={space.name}")
    try:
        process.start()
        until(lambda: "holds no certificate authority of ours" in process.log, "it says so", saw=lambda: process.log)
        assert "delete it, and a new one is made" in process.log
        assert api.call("GET", SECRET) == before
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", process.port), timeout=5)
        # As it was told.
        api.call("DELETE", SECRET)
        space.submit("digits")
        all_pods(space, "digits", 2)
    finally:
        process.kill()


def test_certificates_of_somebody_elses(cp: ControlPlane, api: Api, space: Space, tmp_path: Path) -> None:
    """A folder, as cert-manager and a Secret's volume fill it; renewed without a restart."""
    folder = tmp_path / "tls"
    folder.mkdir()
    authority = make_authority(datetime.now(UTC))
    later = make_authority(datetime.now(UTC))

    def fill(signer: Pair, bundle: str) -> None:
        leaf = issue(signer, "127.0.0.1", datetime.now(UTC))
        for name, text in (("tls.crt", leaf.certificate), ("tls.key", leaf.key), ("ca.crt", bundle)):
            (folder / name).write_text(text)

    fill(authority, authority.certificate)
    process = OperatorProcess(cp, tmp_path, f"--namespaces={space.name}", tls=f"--tls-folder={folder}")
    with kubelet(space, tmp_path / "kubelet"):
        try:
            process.start()
            space.submit("digits", program={"command": ["python", "-c", STEPS]})
            reaches(space, "digits", "Running")
            assert issuer(process.port, authority.certificate) == subject(authority)
            both = authority.certificate + later.certificate
            fill(later, both)
            began = time.monotonic()
            until(lambda: issuer(process.port, both) == subject(later), "the new one is served", seconds=90)
            until(lambda: announced(space, "digits") == {both}, "the Pods are told", seconds=30)
            print(f"\nrenewed after {time.monotonic() - began:.0f} s")
            assert space.status("digits")["rendezvous"]["round"] == 1
        finally:
            process.kill()
