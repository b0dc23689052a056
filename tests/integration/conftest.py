"""One control plane for all tests of a run; they keep out of each other's way by namespace.

Operators run with the rights that the chart gives them, and no others.
"""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane, control_plane
from tests.integration.api import Api, Space
from tests.integration.process import SYSTEM, OperatorProcess, operator
from tests.unit.chart.helm import CHART, HELM, KUBERNETES

_numbers = itertools.count(1)
CONTROLLERS = ("garbage-collector-controller", "namespace-controller", "resourcequota-controller")
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
    bare_control_plane.wait_established("trainingjobs.edgecloud.io")
    give_rights(bare_control_plane)
    return bare_control_plane


def give_rights(cp: ControlPlane) -> None:
    """The operator's ServiceAccount, with the roles of the chart."""
    assert HELM, "no helm: make programs"
    cp.create_namespace(SYSTEM)
    for template in ("serviceaccount", "rbac"):
        command = [HELM, "template", "edgecloud", CHART, KUBERNETES, "--namespace", SYSTEM]
        command.append(f"--show-only=templates/{template}.yaml")
        made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        cp.kubectl("apply", "--namespace", SYSTEM, "-f", "-", stdin=made)


@pytest.fixture(scope="session")
def controlled() -> Iterator[ControlPlane]:
    """One with the real garbage collector, the real end of a namespace and the real counting of quotas."""
    with control_plane() as made:
        made.kubectl("apply", "-f", CRD)
        made.wait_established("trainingjobs.edgecloud.io")
        give_rights(made)
        made.start_controllers(*CONTROLLERS)
        yield made


@pytest.fixture(scope="session")
def controlled_api(controlled: ControlPlane) -> Iterator[Api]:
    made = Api(controlled)
    yield made
    made.close()


@pytest.fixture(scope="session")
def api(cp: ControlPlane) -> Iterator[Api]:
    made = Api(cp)
    yield made
    made.close()


@pytest.fixture
def space(cp: ControlPlane, api: Api) -> Space:
    """A namespace of the test's own."""
    return Space(api, cp.create_namespace(f"test-{os.getpid()}-{next(_numbers)}"))


@pytest.fixture
def running(cp: ControlPlane, space: Space, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator for the test's namespace."""
    with operator(cp, tmp_path, f"--namespaces={space.name}") as process:
        yield process
