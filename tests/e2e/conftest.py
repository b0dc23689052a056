"""The cluster of the end-to-end tests: one for all of them, taken away at the end if it was not there before.

Tests may run side by side in several processes (pytest-xdist). Whichever comes first brings the cluster up, under a
lock, and notes what it did; the process that they all belong to takes away what was brought.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from tests.e2e.kube import (
    CACHE,
    SYSTEM,
    TOOLS,
    Cluster,
    CommandError,
    Namespace,
    bring_up,
    build_images,
    command,
    push_images,
    sources_tag,
)

IMAGES = ("operator", "trainer")
RUN = "EDGECLOUD_TEST_RUN"


@dataclass
class Brought:
    """What this run of the tests did to have a cluster."""

    kubeconfig: str
    tag: str
    was_there: bool
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds by what they went to."""


def _note() -> Path:
    return CACHE / "cluster" / f"tests-{os.environ[RUN]}.json"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[RUN] = uuid.uuid4().hex  # the processes of pytest-xdist inherit it


@contextlib.contextmanager
def timed(spent: dict[str, float], what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    spent[what] = time.monotonic() - began


def _bring() -> Brought:
    """Nodes with the images of these sources within their reach, and `helm install edgecloud charts/`."""
    tag, spent = sources_tag(), dict[str, float]()

    def build() -> None:
        with timed(spent, "images built"):
            build_images(tag, *IMAGES)

    # Side by side: the images come over the network for a good part, and the cluster waits for itself.
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build)
        with timed(spent, "cluster up"):
            kubeconfig, was_there = bring_up()
        building.result()
    with timed(spent, "images pushed"):
        push_images(tag, *IMAGES)
    with timed(spent, "helm install"):
        Cluster(kubeconfig, tag).install()
    return Brought(str(kubeconfig), tag, was_there, spent)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, with the operator of these sources."""
    if RUN not in os.environ:
        pytest.fail("with -n, name tests/e2e on the command line: else nobody would take the cluster away again")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _note().exists():
            brought = Brought(**json.loads(_note().read_text()))
        else:
            brought = _bring()
            _note().write_text(json.dumps(asdict(brought)))
    return Cluster(Path(brought.kubeconfig), brought.tag)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput") or not _note().exists():
        return
    brought = Brought(**json.loads(_note().read_text()))
    _note().unlink()
    keep = brought.was_there or bool(os.environ.get("KEEP_CLUSTER"))
    with timed(brought.spent, "helm uninstall" if keep else "cluster down"):
        if not keep:
            command(TOOLS / "cluster.sh", "down")
        else:
            with contextlib.suppress(CommandError):  # a test that failed may have left nothing to uninstall
                Cluster(Path(brought.kubeconfig), brought.tag).helm("uninstall", "edgecloud", "-n", SYSTEM, "--wait")
    session.config.stash[_SPENT] = brought.spent


_SPENT = pytest.StashKey[dict[str, float]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Where the time went that no test shows."""
    if spent := config.stash.get(_SPENT, None):
        terminalreporter.write_line(", ".join(f"{what} {seconds:.0f} s" for what, seconds in spent.items()))


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Namespace]:
    with cluster.namespace() as space:
        yield space
