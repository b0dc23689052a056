"""A cluster that has to trust what runs in it: what a worker can reach, who leads, and releases that come and go."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.e2e.jobs import example, program, reporting
from tests.e2e.kube import LOOKS, SYSTEM, Cluster, Namespace
from tests.e2e.local import ROOT, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

CURIOUS = """
import json, os, pathlib, ssl, urllib.error, urllib.request

found = {f"${name}": value for name, value in os.environ.items() if value.count(".") == 2 and len(value) > 100}
for top in ("/edgecloud", "/var/run/secrets", "/run/secrets", "/tmp", "/etc"):
    for path in pathlib.Path(top).rglob("*"):
        try:
            text = path.read_text().strip() if path.is_file() and path.stat().st_size < 10_000 else ""
        except (OSError, ValueError):
            continue
        if text.count(".") == 2 and len(text) > 100 and " " not in text:
            found[str(path)] = text
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
answers = {}
for name, token in {"nothing": "", **found}.items():
    for path in ("/api/v1/namespaces", "/apis/edgecloud.io/v1alpha1/trainingjobs", "/api/v1/secrets"):
        request = urllib.request.Request("https://kubernetes.default.svc" + path)
        if token:
            request.add_header("Authorization", "Bearer " + token)
        try:
            answers[f"{name} {path}"] = urllib.request.urlopen(request, timeout=20, context=context).status
        except urllib.error.HTTPError as error:
            answers[f"{name} {path}"] = error.code
print("ANSWERS", json.dumps(answers))
"""


ENDLESS: dict[str, Any] = {"model": "article-cnn", "epochs": 5000, "optimizer": {"learningRate": 0.001}}
"""A training that outlasts its test, at a rate that it can keep up."""


def test_a_workers_code_cannot_reach_the_api_server(space: Namespace) -> None:
    """With nothing that it finds in its Pod: its one token is refused there as nobody's."""
    space.apply(program("curious", CURIOUS))
    space.until_done("curious")
    line = next(line for line in space.kubectl("logs", "curious-worker-0").splitlines() if "ANSWERS" in line)
    answers = json.loads(line.partition("ANSWERS")[2])
    print(answers)
    assert any("token" in name for name in answers), "it does find the token of the coordinator"
    assert all(code == 401 if "token" in name else code in (401, 403) for name, code in answers.items()), answers


def leader(cluster: Cluster) -> str:
    """Whoever holds the Lease and has the label, alone."""
    lease = cluster.get("lease", "edgecloud", "--namespace", SYSTEM)["spec"]["holderIdentity"]
    pods = cluster.get("pods", "--namespace", SYSTEM, "-l", "edgecloud.io/leader=true")["items"]
    return str(lease) if [pod["metadata"]["name"] for pod in pods] == [lease] else ""


def test_a_leader_that_is_killed_is_followed_at_once(cluster: Cluster, space: Namespace) -> None:
    space.apply(reporting("digits", workers=2))
    space.until_step("digits", 5)
    uids, rendezvous = space.pods("digits"), space.status("digits").rendezvous
    wait_for("a leader", lambda: leader(cluster), within=60, seen=lambda: leader(cluster), every=LOOKS)
    first = leader(cluster)
    began = time.monotonic()
    cluster.kubectl("-n", SYSTEM, "delete", "pod", first, "--force", "--grace-period=0")
    another = lambda: leader(cluster) not in ("", first)  # noqa: E731
    wait_for("another leader", another, within=30, seen=lambda: leader(cluster), every=LOOKS)
    took = time.monotonic() - began
    progress = space.status("digits").progress
    step = (progress.step if progress else 0) or 0
    space.until_step("digits", step + 1)
    print(f"another leads after {took:.1f} s, and has written progress after {time.monotonic() - began:.1f} s")
    assert took <= 15
    status = space.status("digits")
    assert (space.pods("digits"), status.rendezvous, status.restarts) == (uids, rendezvous, 0)


@pytest.mark.long
def test_releases_come_and_go_under_running_jobs(alone: Cluster) -> None:
    """Uninstalled: the jobs train on. Two releases side by side, each for its own namespace, in restricted ones."""
    cluster = alone
    with cluster.namespace() as one, cluster.namespace() as two, cluster.namespace() as home:
        job = example("digits")
        job["spec"] |= {"workers": 1}
        job["spec"]["trainer"] |= ENDLESS
        one.apply(job)
        one.until_step("digits", 5)
        uids, rendezvous = one.pods("digits"), one.status("digits").rendezvous
        try:
            said = cluster.helm("uninstall", "edgecloud", "--namespace", SYSTEM, "--wait")
            assert "kept due to the resource policy" in said
            # Nobody is there to hear it, and it trains on: the rank's own log says so.
            before = steps(one)
            now = lambda: (before, steps(one))  # noqa: E731
            wait_for("more steps", lambda: steps(one) > before, within=60, seen=now, every=LOOKS)
            once = ("crds.install=false", "rbac.aggregate=false")  # of these a cluster has one
            # The same release again, for that namespace alone; and another one for the other.
            releases = {
                "edgecloud": (SYSTEM, cluster.values(f"namespaces={{{one.name}}}", "replicas=1")),
                "green": (home.name, cluster.values(f"namespaces={{{two.name}}}", "replicas=1", *once)),
            }

            def install(name: str) -> None:
                namespace, theirs = releases[name]
                cluster.helm(
                    "install", name, ROOT / "charts", "--namespace", namespace, "--wait", "--timeout", "180s", *theirs
                )

            with ThreadPoolExecutor() as pool:
                list(pool.map(install, releases))
            short = example("digits")
            short["spec"]["trainer"]["epochs"] = 2
            two.apply(short)
            two.until_done("digits")
            progress = one.status("digits").progress
            one.until_step("digits", ((progress.step if progress else 0) or 0) + 1)
            status = one.status("digits")
            assert (one.pods("digits"), status.rendezvous, status.restarts) == (uids, rendezvous, 0)
            user = f"--as=system:serviceaccount:{home.name}:green-edgecloud"
            answer = cluster.kubectl("get", "pods", "--namespace", two.name, user, "--output=name")
            assert "digits-worker-0" in answer
            with pytest.raises(Exception, match="forbidden"):
                cluster.kubectl("get", "pods", "--namespace", one.name, user)
            log = cluster.kubectl("logs", "--namespace", home.name, "deployment/green-edgecloud")
            assert one.name not in log
        finally:
            for name, namespace in (("green", home.name), ("edgecloud", SYSTEM)):
                cluster.helm("uninstall", name, "--namespace", namespace, "--ignore-not-found", "--wait")
            cluster.install()
        assert yaml.safe_load(cluster.kubectl("get", "crd", "trainingjobs.edgecloud.io", "-o", "yaml"))


def steps(space: Namespace) -> int:
    """Lines that worker 0 has printed: one for each epoch."""
    return len(space.kubectl("logs", "digits-worker-0").splitlines())
