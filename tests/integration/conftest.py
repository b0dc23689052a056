"""One control plane for all tests of a run; they keep out of each other's way by namespace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane, control_plane

CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"


@pytest.fixture(scope="session")
def bare_control_plane() -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, nothing in them."""
    with control_plane() as cp:
        yield cp


@pytest.fixture(scope="session")
def cp(bare_control_plane: ControlPlane) -> ControlPlane:
    """The same with the CRD, ready to take a TrainingJob."""
    bare_control_plane.kubectl("apply", "-f", CRD)
    bare_control_plane.kubectl("wait", "--for=condition=Established", "crd/trainingjobs.edgecloud.io", "--timeout=30s")
    return bare_control_plane
