"""The chart and the plain manifest on a real API server: what Helm installs, updates and leaves behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster.control_plane import ControlPlane, KubectlError, control_plane
from tests.unit.chart.helm import CHART, HELM, ROOT, needs_helm

pytestmark = [needs_helm, pytest.mark.xdist_group("chart")]  # one API server for all of them

USER: Final = "--as=system:serviceaccount:ours:edgecloud"
CRD: Final = "crd/trainingjobs.edgecloud.io"


@pytest.fixture(scope="module")
def empty() -> Iterator[ControlPlane]:
    """An API server of our own: the resource comes with the chart here."""
    with control_plane() as cp:
        yield cp


@pytest.fixture
def installed(empty: ControlPlane) -> Iterator[ControlPlane]:
    """The chart with its defaults, in the namespace `ours`."""
    helm(empty, "install", "edgecloud", str(CHART), "--namespace", "ours", "--create-namespace")
    yield empty
    helm(empty, "uninstall", "edgecloud", "--namespace", "ours", "--ignore-not-found")


def helm(cp: ControlPlane, *arguments: str) -> str:
    assert HELM
    done = subprocess.run(
        [HELM, *arguments], env=cp.environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(cp: ControlPlane, *what: str) -> dict[str, Any]:
    return dict(json.loads(cp.kubectl("get", *what, "--output=json")))


def may(cp: ControlPlane, verb: str, what: str, *where: str) -> bool:
    resource, _, sub = what.partition("/")
    part = [f"--subresource={sub}"] if sub else []
    try:
        return cp.kubectl("auth", "can-i", verb, resource, *part, USER, *where).strip() == "yes"
    except KubectlError:
        return False


def test_defaults_go_into_an_empty_cluster(installed: ControlPlane) -> None:
    deployment = get(installed, "deployment", "edgecloud", "--namespace=ours")
    assert deployment["spec"]["replicas"] == 2
    assert get(installed, "service", "edgecloud-coordinator", "--namespace=ours")["spec"]["ports"][0]["port"] == 8443
    installed.wait_established("trainingjobs.edgecloud.io")
    example = ROOT / "manifests/examples/own-script.yaml"
    installed.kubectl("create", "--dry-run=server", "-f", example)


def test_the_pod_is_admitted_where_the_restricted_level_is_enforced(installed: ControlPlane) -> None:
    template = get(installed, "deployment", "edgecloud", "--namespace=ours")["spec"]["template"]
    installed.kubectl("label", "namespace", "ours", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "operator", "namespace": "ours"},
        "spec": template["spec"],
    }
    installed.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"].pop("capabilities")
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        installed.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_the_operators_rights_are_the_clusters_view_of_them(installed: ControlPlane) -> None:
    for verb, what in (
        ("list", "trainingjobs"),
        ("delete", "trainingjobs"),
        ("update", "trainingjobs/status"),
        ("create", "pods"),
        ("watch", "pods"),
        ("create", "configmaps"),
        ("patch", "events"),
    ):
        assert may(installed, verb, what, "--all-namespaces"), (verb, what)
    for verb, what in (
        ("create", "trainingjobs"),
        ("update", "trainingjobs"),
        ("get", "secrets"),
        ("list", "configmaps"),
        ("update", "pods"),
        ("create", "pods/exec"),
        ("delete", "persistentvolumeclaims"),
        ("get", "nodes"),
    ):
        assert not may(installed, verb, what, "--all-namespaces"), (verb, what)


def test_namespaces_bound_the_rights(empty: ControlPlane) -> None:
    for name in ("lab", "other"):
        empty.create_namespace(name)
    bound = ("--namespace", "ours", "--create-namespace", "--set", "namespaces={lab}")
    helm(empty, "install", "edgecloud", str(CHART), *bound)
    try:
        assert may(empty, "create", "pods", "--namespace=lab")
        assert not may(empty, "create", "pods", "--namespace=other")
        assert not may(empty, "list", "trainingjobs", "--all-namespaces")
    finally:
        helm(empty, "uninstall", "edgecloud", "--namespace", "ours")


def test_an_upgrade_updates_the_resource_and_nothing_removes_it(installed: ControlPlane, tmp_path: Path) -> None:
    newer = tmp_path / "charts"
    subprocess.run(["cp", "-r", str(CHART), str(newer)], check=True)
    resource = newer / "files" / "crd.yaml"
    resource.write_text(resource.read_text().replace("A distributed PyTorch training.", "Newer."))
    helm(installed, "upgrade", "edgecloud", str(newer), "--namespace", "ours")
    version = get(installed, CRD)["spec"]["versions"][0]
    assert version["schema"]["openAPIV3Schema"]["description"] == "Newer."
    example = ROOT / "manifests/examples/own-script.yaml"
    installed.kubectl("create", "--namespace=ours", "-f", example)
    said = helm(installed, "uninstall", "edgecloud", "--namespace", "ours")
    assert "kept due to the resource policy" in said
    assert get(installed, "trainingjobs", "--namespace=ours")["items"]
    installed.kubectl("delete", "--namespace=ours", "-f", example)
    # And the next installation takes it up again.
    helm(installed, "install", "edgecloud", str(CHART), "--namespace", "ours")


def test_the_notes(installed: ControlPlane) -> None:
    notes = helm(installed, "get", "notes", "edgecloud", "--namespace", "ours")
    assert "runs the TrainingJobs of every namespace" in notes
    assert "kubectl apply -f manifests/examples/own-script.yaml" in notes


def test_kubectl_installs_without_helm() -> None:
    with control_plane() as cp:
        cp.kubectl("apply", "-f", ROOT / "manifests")
        assert get(cp, "deployment", "edgecloud", "--namespace=edgecloud-system")
        assert get(cp, CRD)
        cp.kubectl("apply", "-f", ROOT / "manifests")
