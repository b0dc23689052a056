"""What the operator may do, by the chart, beside what it was seen to do, by the API server's audit log."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.control_plane import ControlPlane
from tests.integration.process import SYSTEM
from tests.unit.chart.helm import CHART, HELM, KUBERNETES

USER: Final = f"system:serviceaccount:{SYSTEM}:edgecloud"
OWN: Final = "own"
"""Where: in the operator's own namespace, by the Role there."""
JOBS: Final = "jobs"
"""Where: wherever there are jobs, by the ClusterRole or the Roles that take its place."""


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a resource of an API group (empty: the core's), here or there."""

    where: str
    group: str
    resource: str
    verb: str


NEVER_ASKED: Final = {
    # Looked up by an admission rule when a child names an owner that waits for it; that is no request of its own.
    # The control plane of these tests has the rule, so that nothing could be created without this right.
    Right(JOBS, "edgecloud.io", "trainingjobs/finalizers", "update"),
}


def granted(objects: Iterable[Mapping[str, Any]]) -> set[Right]:
    """The rights in the chart's roles."""
    found = set()
    for role in objects:
        if role.get("kind") in ("Role", "ClusterRole"):
            where = OWN if str(role["metadata"]["name"]).endswith("-own") else JOBS
            for rule in role["rules"]:
                assert "*" not in str(rule), rule
                found |= {
                    Right(where, group, resource, verb)
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for verb in rule["verbs"]
                }
    return found


def used(logs: Iterable[Path]) -> tuple[set[Right], set[Right]]:
    """The rights that the operator made use of, and those that it would have needed and was refused."""
    found, refused = set(), set()
    for log in logs:
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            about = entry.get("objectRef")
            if entry.get("user", {}).get("username") != USER or not about:
                continue  # what is no object (the cluster's public keys) every ServiceAccount may read
            resource = "/".join(part for part in (about["resource"], about.get("subresource")) if part)
            where = OWN if about.get("namespace") == SYSTEM else JOBS
            right = Right(where, about.get("apiGroup", ""), resource, entry["verb"])
            if entry.get("annotations", {}).get("authorization.k8s.io/decision") == "allow":
                found.add(right)
            else:
                refused.add(right)
    return found, refused


def differences(given: set[Right], taken: set[Right], refused: set[Right]) -> list[str]:
    """What is wrong: asked for and not granted, granted and never used.

    An API server that has just come up refuses for a moment what it grants: it has not read the roles yet.
    """
    wrong = [f"asked for, and not granted: {one}" for one in sorted(refused - given)]
    return wrong + [f"granted, and never used: {one}" for one in sorted(given - taken - NEVER_ASKED)]


def chart(template: str) -> str:
    """A template of the chart, with its defaults."""
    assert HELM, "no helm: make programs"
    command = [HELM, "template", "edgecloud", CHART, KUBERNETES, "--namespace", SYSTEM]
    command.append(f"--show-only=templates/{template}.yaml")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def give(cp: ControlPlane) -> None:
    """The operator's ServiceAccount, with the roles of the chart."""
    cp.create_namespace(SYSTEM)
    for template in ("serviceaccount", "rbac"):
        cp.kubectl("apply", "--namespace", SYSTEM, "-f", "-", stdin=chart(template))
