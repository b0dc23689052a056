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


def on_a_claim(space: Namespace, name: str, mode: str) -> None:
    """Start the deterministic training with one worker on each node and checkpoints on a claim."""
    storage_class = {"ReadWriteMany": "edgecloud-rwx", "ReadWriteOnce": "edgecloud-rwo"}[mode]
    storage = {"claimName": "training", "accessMode": mode, "checkpointIntervalSteps": 5}
    space.apply(claim("training", storage_class, mode), exact(name, storage=storage, podTemplate={"spec": SPREAD}))


def mounting(space: Namespace, name: str) -> list[str]:
    """The workers that mount a claim, by their index; all are on nodes of their own."""
    pods = space.get("pods", "-l", f"{names.JOB_LABEL}={name}")["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == len(pods) == 2
    return sorted(
        pod["metadata"]["labels"][names.INDEX_LABEL]
        for pod in pods
        if any("persistentVolumeClaim" in volume for volume in pod["spec"]["volumes"])
    )


def test_a_claim_that_all_mount(space: Namespace, weights: str) -> None:
    on_a_claim(space, "claims", "ReadWriteMany")
    space.until_done("claims")
    assert digest(space, "claims") == weights
    assert mounting(space, "claims") == ["0", "1"]


KILL = """
import os, sys
for entry in os.listdir("/proc"):
    if entry.isdigit() and open(f"/proc/{entry}/comm").read().strip() == sys.argv[1]:
        os.kill(int(entry), 9)
"""


def kill_rank(space: Namespace, pod: str, rank: int) -> None:
    """SIGKILL to a training process, by the name it gives itself."""
    space.kubectl("exec", pod, "--", "python", "-c", KILL, f"rank-{rank}")


def until_checkpoint(space: Namespace, name: str) -> None:
    space.until(name, "a checkpoint", lambda status: status.checkpoint and (status.checkpoint.step or 0) >= 10)


def test_a_process_that_dies_with_a_claim_that_worker_0_mounts_alone(space: Namespace, weights: str) -> None:
    """The rank that has no storage is killed: no Pod is made anew, and the weights are the undisturbed ones."""
    on_a_claim(space, "claims", "ReadWriteOnce")
    until_checkpoint(space, "claims")
    before = space.pods("claims")
    kill_rank(space, "claims-worker-1", 1)
    status = space.until_done("claims", within=400)
    assert status.rendezvous and status.rendezvous.round >= 2
    assert digest(space, "claims") == weights
    assert space.pods("claims") == before
    assert mounting(space, "claims") == ["0"]


@pytest.mark.parametrize("lost", ["worker-1", "worker-0"])
def test_a_pod_that_is_lost(space: Namespace, weights: str, lost: str) -> None:
    """With its copy of the checkpoints: the other's is enough for the undisturbed weights."""
    space.apply(exact("faults"))
    until_checkpoint(space, "faults")
    before = space.pods("faults")
    space.kubectl("delete", "pod", f"faults-{lost}", "--force", "--grace-period=0")
    status = space.until_done("faults", within=400)
    assert status.rendezvous and status.rendezvous.round >= 2
    assert digest(space, "faults") == weights
    after = space.pods("faults")
    assert {name for name in before if after[name] != before[name]} == {f"faults-{lost}"}
