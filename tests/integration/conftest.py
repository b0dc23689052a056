"""One control plane for all tests of a run; they keep out of each other's way by namespace.

Operators run with the rights that the chart gives them, and no others. When all of these tests have passed, what they
were seen to do is held against those rights: none may be left over.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane, control_plane
from tests.integration import rights
from tests.integration.api import Api, Space
from tests.integration.process import OperatorProcess, operator

_numbers = itertools.count(1)
CONTROLLERS = ("garbage-collector-controller", "namespace-controller", "resourcequota-controller")
_AUDIT = "EDGECLOUD_TEST_AUDIT"
"""Folder where the audit logs of all processes of a run are gathered."""
CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"


def namespace_number() -> int:
    """A number that no namespace of this process has had."""
    return next(_numbers)


@pytest.fixture(scope="session")
def bare_control_plane() -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, nothing in them."""
    with control_plane() as cp:
        yield cp
        keep_audit(cp)


@pytest.fixture(scope="session")
def cp(bare_control_plane: ControlPlane) -> ControlPlane:
    """The same with the CRD, ready to take a TrainingJob."""
    bare_control_plane.kubectl("apply", "-f", CRD)
    bare_control_plane.wait_established("trainingjobs.edgecloud.io")
    rights.give(bare_control_plane)
    return bare_control_plane


def keep_audit(cp: ControlPlane) -> None:
    """Keep the log until the end of the run."""
    if cp.audit_log.exists():
        with tempfile.NamedTemporaryFile(dir=os.environ[_AUDIT], suffix=".log", delete=False) as copy:
            copy.write(cp.audit_log.read_bytes())


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[_AUDIT] = tempfile.mkdtemp(prefix="edgecloud-audit-")  # the processes of pytest-xdist inherit it


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The rights are looked at when nothing was left out: a part of the tests uses a part of them."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    folder = Path(os.environ[_AUDIT])
    try:
        whole = [Path(argument).resolve() for argument in config.args] == [Path(__file__).parent]
        if whole and session.exitstatus == 0 and not (config.option.keyword or config.option.markexpr):
            given = rights.granted(yaml.safe_load_all(rights.chart("rbac")))
            wrong = rights.differences(given, *rights.used(folder.glob("*.log")))
            config.stash[_RIGHTS] = wrong or [f"{len(given)} rights, all of them used"]
            session.exitstatus = 1 if wrong else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_RIGHTS = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_RIGHTS, []):
        terminalreporter.write_line(f"operator: {line}")


@pytest.fixture(scope="session")
def controlled() -> Iterator[ControlPlane]:
    """One with the real garbage collector, the real end of a namespace and the real counting of quotas."""
    with control_plane() as made:
        made.kubectl("apply", "-f", CRD)
        made.wait_established("trainingjobs.edgecloud.io")
        rights.give(made)
        made.start_controllers(*CONTROLLERS)
        yield made
        keep_audit(made)


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
    return Space(api, cp.create_namespace(f"test-{os.getpid()}-{namespace_number()}"))


@pytest.fixture
def running(cp: ControlPlane, space: Space, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator for the test's namespace."""
    with operator(cp, tmp_path, f"--namespaces={space.name}") as process:
        yield process
