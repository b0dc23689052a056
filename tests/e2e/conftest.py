"""The cluster of the end-to-end tests: one for all of them.

They may run side by side in several processes (pytest-xdist); the one that they all belong to takes the cluster away at
the end, unless it was there before or somebody else had it brought for this run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator

import pytest

from tests.e2e import bringing
from tests.e2e.bringing import RUN
from tests.e2e.kube import CACHE, Cluster, Namespace

_OURS = pytest.StashKey[bool]()
_SPENT = pytest.StashKey[dict[str, float]]()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_OURS] = RUN not in os.environ
        os.environ.setdefault(RUN, uuid.uuid4().hex)  # the processes of pytest-xdist inherit it


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, with the operator of these sources."""
    if RUN not in os.environ:
        pytest.fail("with -n, name tests/e2e on the command line: else nobody would take the cluster away again")
    return bringing.bring().cluster


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        found = bringing.take_away() if session.config.stash[_OURS] else bringing.brought()
        session.config.stash[_SPENT] = found.spent if found is not None else {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Where the time went that no test shows."""
    if spent := config.stash.get(_SPENT, None):
        terminalreporter.write_line(bringing.told(spent))


@contextlib.contextmanager
def _turn(how: int) -> Iterator[None]:
    """While the operator is there for all (LOCK_SH), or for one test alone (LOCK_EX)."""
    with (CACHE / ".tests-operator.lock").open("w") as lock:
        fcntl.flock(lock, how)
        yield


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Namespace]:
    with _turn(fcntl.LOCK_SH), cluster.namespace() as space:
        yield space


@pytest.fixture
def alone(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with no other test on it: for one that takes the operator away."""
    with _turn(fcntl.LOCK_EX):
        yield cluster
