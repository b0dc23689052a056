"""Tests in this folder have the real garbage collector, the real end of a namespace and the real counting of quotas."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Api, Space
from tests.integration.conftest import namespace_number
from tests.integration.kubelet import Kubelet, kubelet
from tests.integration.process import OperatorProcess, operator


@pytest.fixture
def space(controlled: ControlPlane, controlled_api: Api) -> Space:
    """A namespace of the test's own, where garbage is collected and quotas are counted."""
    return Space(controlled_api, controlled.create_namespace(f"controlled-{os.getpid()}-{namespace_number()}"))


@pytest.fixture
def running(controlled: ControlPlane, space: Space, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator for the test's namespace, which shows progress each second, never lets an exception out,
    and misses nothing of what it has written."""
    with operator(controlled, tmp_path, f"--namespaces={space.name}", "--progress-seconds=1") as process:
        yield process
        assert "Traceback" not in process.log, process.log
        assert "the API server drops" not in process.log, process.log


@pytest.fixture
def node(space: Space, tmp_path: Path, running: OperatorProcess) -> Iterator[Kubelet]:
    """Plays the kubelet in that namespace."""
    with kubelet(space, tmp_path / "kubelet") as made:
        yield made
