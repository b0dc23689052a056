"""A model that is trained on one node of a cluster and measured on another, labelled as an edge."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from edgecloud_operator.core import names
from tests.e2e.jobs import example
from tests.e2e.kube import Namespace
from tests.e2e.test_cluster_weights import claim

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

EDGE = "edgecloud.io/edge"


def nodes(space: Namespace) -> tuple[str, str]:
    """A node where training belongs, and the one at the edge."""
    found = {node["metadata"]["name"]: node["metadata"]["labels"] for node in space.get("nodes")["items"]}
    (edge,) = (name for name, labels in found.items() if labels.get(EDGE) == "true")
    return next(name for name in sorted(found) if name != edge), edge


def exported(cloud: str) -> dict[str, Any]:
    job = example("digits")
    job["spec"]["trainer"]["epochs"] = 10
    job["spec"] |= {
        "workers": 2,
        "nodeSelector": {"kubernetes.io/hostname": cloud},
        "storage": {"claimName": "models", "accessMode": "ReadWriteMany"},
        "export": {
            "formats": ["onnx", "onnx-int8"],
            "measureOn": {
                "nodeSelector": {EDGE: "true"},
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            },
        },
    }
    return job


def test_trained_on_one_node_and_measured_on_another(space: Namespace) -> None:
    cloud, edge = nodes(space)
    space.apply(claim("models", "edgecloud-rwx", "ReadWriteMany"), exported(cloud))
    space.until("digits", "that it is measured", lambda status: status.measuring is not None)
    status = space.until_done("digits")
    assert status.restarts == 0 and status.measuring and status.measuring.failures == 0
    pods = {pod["metadata"]["name"]: pod for pod in space.get("pods", "-l", f"{names.JOB_LABEL}=digits")["items"]}
    where = {name: pod["spec"]["nodeName"] for name, pod in pods.items()}
    assert where == {"digits-worker-0": cloud, "digits-worker-1": cloud, "digits-measure": edge}
    done = "--for=jsonpath={.status.phase}=Succeeded"  # a kubelet says so a moment after the last container has ended
    space.kubectl("wait", "pods", "-l", f"{names.JOB_LABEL}=digits", done, "--timeout=60s")
    exports = {one["format"]: one for one in status.exports or ()}
    assert set(exports) == {"onnx", "onnx-int8"}
    for one in exports.values():
        assert (one["node"], one["gate"]) == (edge, "passed")
        assert one["accuracy"] >= 0.9 and one["parity"]["agreement"] >= 0.95
        assert 0 < one["latency"]["p50"] <= one["latency"]["p90"] <= one["latency"]["p99"]
    assert exports["onnx-int8"]["bytes"] < exports["onnx"]["bytes"]
    shown = space.kubectl("get", "trainingjob", "digits", "-o", "yaml")
    print("\n" + yaml.safe_dump({"exports": yaml.safe_load(shown)["status"]["exports"]}, sort_keys=False))
    assert f"node: {edge}" in shown
    reasons = {event["reason"] for event in space.get("events")["items"] if event["involvedObject"]["name"] == "digits"}
    assert {"Measuring", "Measured", "Succeeded"} <= reasons, reasons
