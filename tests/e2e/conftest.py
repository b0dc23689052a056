"""The cluster of the end-to-end tests: one for all of them, taken away at the end if it was not there before."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.kube import TOOLS, Cluster, Namespace, bring_up, command, push_images, sources_tag


@pytest.fixture(scope="session")
def bare_cluster() -> Iterator[Cluster]:
    """Two nodes with the images of these sources within their reach, and nothing installed."""
    kubeconfig, was_there = bring_up()
    tag = sources_tag()
    push_images(tag, "operator", "trainer")
    yield Cluster(kubeconfig, tag)
    if not was_there and not os.environ.get("KEEP_CLUSTER"):
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
