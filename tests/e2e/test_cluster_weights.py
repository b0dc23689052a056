"""What dies, and where checkpoints lie, on a real cluster: nothing of it changes the weights."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud_operator.core import names
from tests.e2e import bringing
from tests.e2e.jobs import SPREAD, exact
from tests.e2e.kube import Cluster, Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


def claim(name: str, storage_class: str, mode: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": storage_class,
            "accessModes": [mode],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


@pytest.fixture(scope="session")
def weights(cluster: Cluster) -> str:
    """Of the deterministic training that nothing happens to."""

    def train() -> str:
        with cluster.namespace() as space:
            space.apply(exact("undisturbed"))
            status = space.until_done("undisturbed")
            assert status.restarts == 0
            assert status.checkpoint and status.checkpoint.weights_sha256
            return status.checkpoint.weights_sha256

    return bringing.once("weights", train)


def digest(space: Namespace, name: str) -> str | None:
    checkpoint = space.status(name).checkpoint
    return checkpoint.weights_sha256 if checkpoint else None


@pytest.mark.parametrize("mode", ["ReadWriteMany", "ReadWriteOnce"])
def test_claims(space: Namespace, weights: str, mode: str) -> None:
    """One worker on each node; checkpoints on a claim that both mount, or worker 0 alone."""
    storage_class = {"ReadWriteMany": "edgecloud-rwx", "ReadWriteOnce": "edgecloud-rwo"}[mode]
    storage = {"claimName": "training", "accessMode": mode, "checkpointIntervalSteps": 5}
    space.apply(claim("training", storage_class, mode), exact("claims", storage=storage, podTemplate={"spec": SPREAD}))
    space.until_done("claims")
    assert digest(space, "claims") == weights
    pods = space.get("pods", "-l", f"{names.JOB_LABEL}=claims")["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    mounting = [
        pod["metadata"]["labels"][names.INDEX_LABEL]
        for pod in pods
        if any("persistentVolumeClaim" in volume for volume in pod["spec"]["volumes"])
    ]
    assert sorted(mounting) == (["0", "1"] if mode == "ReadWriteMany" else ["0"])


KILL = """
import os, sys
for entry in os.listdir("/proc"):
    if entry.isdigit() and open(f"/proc/{entry}/comm").read().strip() == sys.argv[1]:
        os.kill(int(entry), 9)
"""


def kill_rank(space: Namespace, pod: str, rank: int) -> None:
    """SIGKILL to a training process, by the name it gives itself."""
    space.kubectl("exec", pod, "--", "python", "-c", KILL, f"rank-{rank}")


@pytest.mark.parametrize("fault", ["process", "worker-1", "worker-0"])
def test_what_dies_changes_nothing(space: Namespace, weights: str, fault: str) -> None:
    """A training process killed, a Pod deleted, worker 0 and its checkpoints deleted: the undisturbed weights."""
    space.apply(exact("faults"))
    space.until("faults", "a checkpoint", lambda status: status.checkpoint and (status.checkpoint.step or 0) >= 10)
    before = space.pods("faults")
    if fault == "process":
        kill_rank(space, "faults-worker-1", 1)
    else:
        space.kubectl("delete", "pod", f"faults-{fault}", "--force", "--grace-period=0")
    status = space.until_done("faults", within=400)
    assert status.rendezvous and status.rendezvous.round >= 2
    assert status.checkpoint and status.checkpoint.weights_sha256 == weights
    after = space.pods("faults")
    changed = {name for name in before if after[name] != before[name]}
    assert changed == (set() if fault == "process" else {f"faults-{fault}"})
