"""A cluster from outside: kubectl and helm as a person would use them, with EdgeCloud's own images on the nodes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from tests.e2e.local import ROOT, wait_for

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecloud"
TOOLS: Final = ROOT / "tests/cluster"
REGISTRY: Final = "registry.edgecloud.local:5000"
KIND_NODES: Final = "label=io.x-k8s.kind.cluster=edgecloud"
SYSTEM: Final = "edgecloud-system"
WITHIN: Final = 240.0
"""Seconds for a job of the tests to finish: two workers on two cores that nodes, operator and tests share."""
SOURCES: Final = ("Dockerfile", "LICENSE", "operator", "trainer")
"""What the images are made of."""
LOOKS: Final = 0.4
"""Seconds between two looks: each is a kubectl, a tenth of a second of a core that the jobs waited for need."""


class CommandError(Exception):
    """A command failed; str() is what it said."""


def command(*arguments: str | Path, given: str | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program and return what it printed to standard output.

    Raises:
        CommandError: it ended with another code than 0.
    """
    done = subprocess.run(
        [str(argument) for argument in arguments], input=given, capture_output=True, text=True, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    if done.returncode != 0:
        raise CommandError(f"{' '.join(map(str, arguments))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def sources_tag() -> str:
    """A tag for images of the sources as they are: equal sources, equal tag."""
    digest = hashlib.sha256()
    for name in SOURCES:
        top = ROOT / name
        files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return f"dev-{digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class Cluster:
    """The cluster that the tests share."""

    kubeconfig: Path
    tag: str
    """Of the images under test."""

    def kubectl(self, *arguments: str | Path, given: str | None = None) -> str:
        found = shutil.which("kubectl", path=f"{CACHE / 'bin'}:{os.environ['PATH']}")
        assert found, "no kubectl: make tools"
        return command(found, "--kubeconfig", self.kubeconfig, *arguments, given=given)

    def helm(self, *arguments: str | Path) -> str:
        found = shutil.which("helm", path=f"{CACHE / 'bin'}:{os.environ['PATH']}")
        assert found, "no helm: make tools"
        return command(found, "--kubeconfig", self.kubeconfig, *arguments)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def install(self, *settings: str) -> None:
        """`helm upgrade --install` of the chart with the images under test."""
        self.helm(
            "upgrade", "--install", "edgecloud", ROOT / "charts", "--namespace", SYSTEM, "--create-namespace",
            "--wait", "--timeout", "180s", *self.values(*settings),
        )  # fmt: skip

    def values(self, *settings: str) -> list[str]:
        """Options for helm: the images under test, and shorter times, for tests wait for what comes after them."""
        tags = [f"{place}image.tag={self.tag}" for place in ("", "trainer.", "edge.")]
        values = [f"registry={REGISTRY}", *tags, "progressSeconds=1", "giveBackSeconds=20"]
        return [text for value in (*values, *settings) for text in ("--set", value)]

    @contextmanager
    def namespace(self) -> Iterator[Namespace]:
        """A namespace of a test's own, at the restricted Pod Security level; gone at the end with all that is in it."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        created = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("apply", "-f", "-", given=yaml.safe_dump(created))
        try:
            yield Namespace(self, name)
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")


@dataclass(frozen=True)
class Namespace:
    """One test's part of the cluster."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str | Path, given: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.name, *arguments, given=given)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(objects))

    def job(self, name: str) -> TrainingJob:
        return TrainingJob.parse(self.get("trainingjob", name))

    def status(self, name: str) -> TrainingJobStatus:
        return self.job(name).status or TrainingJobStatus()

    def pods(self, name: str) -> dict[str, str]:
        """The uids of a job's Pods, by their names."""
        found = self.get("pods", "-l", f"edgecloud.io/job={name}")["items"]
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}

    def seen(self, name: str) -> Callable[[], str]:
        """What there is to see of a job, for a failure's message."""

        def look() -> str:
            parts = [self.kubectl("get", "trainingjob", name, "-o", "yaml"), self.kubectl("get", "pods", "-o", "wide")]
            parts.append(self.kubectl("get", "events", "--sort-by=.lastTimestamp")[-4000:])
            for pod in self.pods(name):
                try:
                    parts.append(self.kubectl("logs", pod, "--tail=30"))
                except CommandError as error:
                    parts.append(str(error))
            return "\n".join(parts)

        return look

    def until(self, name: str, what: str, holds: Callable[[TrainingJobStatus], object], within: float = WITHIN) -> None:
        """Wait until something holds of a job's status, which must not have failed."""

        def look() -> bool:
            status = self.status(name)
            assert status.phase != "Failed" or what == "Failed", self.seen(name)()
            return bool(holds(status))

        wait_for(what, look, within=within, seen=self.seen(name), every=LOOKS)

    def until_step(self, name: str, step: int) -> None:
        self.until(name, f"step {step}", lambda s: s.progress is not None and (s.progress.step or 0) >= step)

    def until_done(self, name: str, within: float = WITHIN) -> TrainingJobStatus:
        self.until(name, "the end", lambda status: status.phase == "Succeeded", within)
        return self.status(name)


def bring_up() -> tuple[Path, bool]:
    """The cluster's kubeconfig, and whether it was there before."""
    there = (CACHE / "cluster/kubeconfig").exists() or os.environ.get("CLUSTER") == "existing"
    printed = command(TOOLS / "cluster.sh", "up")
    return Path(printed.strip().splitlines()[-1]), there


def build_images(tag: str, *targets: str) -> None:
    """Build the images of these sources; what was built before costs seconds."""
    command(TOOLS / "images.sh", *targets, env={"TAG": tag})


def push_images(tag: str, *targets: str) -> None:
    """Give them to the nodes, but for those that the registry has."""
    for target in targets:
        if not _in_registry(f"edgecloud/{target}", tag):
            command(TOOLS / "push.sh", f"edgecloud/{target}:{tag}")


def pull_image(image: str) -> None:
    """Have every node hold an image of the registry, all of them at once."""
    nodes = command(TOOLS / "cluster.sh", "docker", "ps", "--format", "{{.Names}}", "--filter", KIND_NODES).split()
    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        pull = ("crictl", "pull", image)
        list(pool.map(lambda node: command(TOOLS / "cluster.sh", "docker", "exec", node, *pull), nodes))


def _in_registry(repository: str, tag: str) -> bool:
    registry = (CACHE / "cluster/registry").read_text().strip()
    kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    url = f"http://{registry}/v2/{repository}/manifests/{tag}"
    try:
        command(TOOLS / "cluster.sh", "network", "curl", "-sf", "-o", "/dev/null", "-H", f"Accept: {kinds}", url)
    except CommandError:
        return False
    return True
