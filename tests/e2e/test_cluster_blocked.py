"""What holds a job up, in the words of a real scheduler and kubelet, and that it goes when it is put right."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from edgecloud_operator.core import conditions
from tests.e2e.jobs import example, program
from tests.e2e.kube import Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

WITHIN = 30.0
LITTLE = {"requests": {"cpu": "50m", "memory": "300Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


def held_up(name: str, **spec: Any) -> dict[str, Any]:
    job = example("digits")
    job["metadata"]["name"] = name
    job["spec"] |= {"workers": 1, "resources": LITTLE} | spec
    job["spec"]["trainer"]["epochs"] = 1
    return job


def blocked(space: Namespace, name: str) -> tuple[str, str]:
    """Reason and message, while it is blocked."""
    condition = conditions.get(space.status(name), "Blocked")
    return (condition.reason, condition.message) if condition and condition.status == "True" else ("", "")


def test_every_reason_comes_and_goes(space: Namespace) -> None:
    claim: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "checkpoints"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    variable = {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "key"}}}
    template = {"spec": {"containers": [{"name": "worker", "env": [variable]}]}}
    jobs = {
        "unschedulable": (held_up("unschedulable", nodeSelector={"test/there": "no"}), "Unschedulable", "node"),
        "no-image": (
            held_up("no-image", image="registry.edgecloud.local:5000/no/such:image"),
            "ErrImagePull",
            "no/such",
        ),
        "no-claim": (held_up("no-claim", storage={"claimName": "checkpoints"}), "VolumeNotBound", "checkpoints"),
        "no-config": (held_up("no-config", podTemplate=template), "CreateContainerConfigError", "settings"),
    }
    space.apply(*(job for job, _, _ in jobs.values()))
    began = time.monotonic()
    for name, (_, reason, word) in jobs.items():
        space.until(name, reason, lambda _, name=name, reason=reason: blocked(space, name)[0] == reason, within=60)
        took, (_, message) = time.monotonic() - began, blocked(space, name)
        print(f"{name}: {reason} after {took:.0f} s: {message}")
        assert took < WITHIN
        assert word in message
        assert "\n" not in message
        assert reason in space.kubectl("get", "tj", name, "-o", "wide")
    # What can be put right is; the job goes on by itself and runs to its end.
    space.apply(
        claim, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "x"}}
    )
    node = space.cluster.get("nodes")["items"][-1]["metadata"]["name"]
    space.cluster.kubectl("label", "node", node, "test/there=no")
    try:
        for name in ("no-claim", "no-config", "unschedulable"):
            status = space.until_done(name)
            assert blocked(space, name) == ("", "")
            assert status.restarts == 0
    finally:
        space.cluster.kubectl("label", "node", node, "test/there-")
    events = [
        event["reason"] for event in space.get("events")["items"] if event["involvedObject"]["name"] == "no-image"
    ]
    assert events.count("ErrImagePull") == 1, "once, however often the kubelet tries"


SEAT = "test.edgecloud.io/seat"
"""A resource of which each of two nodes has one."""


def seats(space: Namespace, node: str, number: str | None) -> None:
    patch = {"status": {"capacity": {SEAT: number}, "allocatable": {SEAT: number}}}
    space.cluster.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(patch))


def test_of_two_jobs_that_each_hold_half_of_what_both_need_one_gives_way(space: Namespace) -> None:
    """Each has one of the two nodes, and waits for the other's. Both come to their end."""
    nodes = [node["metadata"]["name"] for node in space.cluster.get("nodes")["items"]][-2:]
    jobs = ("one", "other")
    try:
        for node, name in zip(nodes, jobs, strict=True):
            seats(space, node, "1")
            space.cluster.kubectl("label", "node", node, f"test/{name}=yes")
            spec: dict[str, Any] = {"resources": {"limits": {SEAT: "1"}}, "nodeSelector": {f"test/{name}": "yes"}}
            space.apply(program(name, "print('there')", workers=2, **spec))
        for name in jobs:
            space.until(name, "Unschedulable", lambda _, name=name: blocked(space, name)[0] == "Unschedulable")
        held = {name: space.pods(name) for name in jobs}
        for node, name in zip(nodes, reversed(jobs), strict=True):
            space.cluster.kubectl("label", "node", node, f"test/{name}=yes")  # now either could run on both
        for name in jobs:
            status = space.until_done(name)
            assert (status.restarts, status.last_failure, blocked(space, name)) == (0, None, ("", ""))
        stayed = [name for name in jobs if space.pods(name) == held[name]]
        assert len(stayed) < 2, "somebody has taken a Pod away, and it was neither of these"
        print(f"kept what it had: {' '.join(stayed) or 'neither'}")
    finally:
        for node in nodes:
            seats(space, node, None)
            space.cluster.kubectl("label", "node", node, *(f"test/{name}-" for name in jobs))
