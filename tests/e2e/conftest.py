"""The cluster of the end-to-end tests: one for all of them, taken away at the end if it was not there before."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.e2e.kube import TOOLS, Cluster, Namespace, bring_up, build_images, command, push_images, sources_tag

IMAGES = ("operator", "trainer")
_spent: list[str] = []


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Note how long a step took, for the end of the run."""
    began = time.monotonic()
    yield
    _spent.append(f"{what} {time.monotonic() - began:.0f} s")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the time went that no test shows."""
    if _spent:
        terminalreporter.write_line("cluster: " + ", ".join(_spent))


@pytest.fixture(scope="session")
def bare_cluster() -> Iterator[Cluster]:
    """Two nodes with the images of these sources within their reach, and nothing installed."""
    tag = sources_tag()
    # Side by side: the images come over the network for a good part, and the cluster waits for itself.
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(timed("images built")(build_images), tag, *IMAGES)
        with timed("up"):
            kubeconfig, was_there = bring_up()
        building.result()
    with timed("images pushed"):
        push_images(tag, *IMAGES)
    yield Cluster(kubeconfig, tag)
    if not was_there and not os.environ.get("KEEP_CLUSTER"):
        with timed("down"):
            command(TOOLS / "cluster.sh", "down")


@pytest.fixture(scope="session")
def cluster(bare_cluster: Cluster) -> Iterator[Cluster]:
    """The same with `helm install edgecloud charts/`."""
    bare_cluster.install()
    yield bare_cluster
    bare_cluster.helm("uninstall", "edgecloud", "--namespace", "edgecloud-system", "--wait")


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Namespace]:
    with cluster.namespace() as space:
        yield space
