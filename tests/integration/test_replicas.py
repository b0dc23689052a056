"""Two replicas of the operator: one acts, the other takes over, and no training notices.

The Service that workers reach is played by a forwarder that goes by the label on the replicas' Pods, as a real one
does; the link of each replica to the API server can be cut.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.api import Space, until
from tests.integration.kubelet import kubelet
from tests.integration.network import Forwarder, forwarder
from tests.integration.process import LEASE, SYSTEM, OperatorProcess
from tests.integration.test_operator import all_pods, reaches

pytestmark = pytest.mark.timeout(300)

PODS = f"/api/v1/namespaces/{SYSTEM}/pods"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{LEASE.partition('/')[2]}"
LABELS = {
    "app.kubernetes.io/name": "edgecloud",
    "app.kubernetes.io/instance": "edgecloud",
    "app.kubernetes.io/component": "operator",
}
SELECTOR = ",".join(f"{key}={value}" for key, value in LABELS.items())
AIM = 15.0
"""Seconds until another replica leads."""
STEPS = """
import os, time
from edgecloud import worker
worker.results_dir.mkdir(parents=True, exist_ok=True)
with open(worker.results_dir / "steps", "a", buffering=1) as file:
    for step in range(10**6):
        print(os.getpid(), time.time(), file=file)
        worker.report(step=step, total_steps=10**6)
        time.sleep(0.1)
"""


class Replica:
    """An operator process, the Pod that stands for it, and its link to the API server."""

    def __init__(self, stage: Stage, name: str, link: Forwarder) -> None:
        self.name, self.link = name, link
        options = [f"--namespaces={stage.space.name}", f"--lease={LEASE}", f"--pod={SYSTEM}/{name}"]
        options += [f"--pod-selector={SELECTOR}", "--progress-seconds=1"]
        options.append(f"--coordinator-address=https://127.0.0.1:{stage.service.port}")
        self.process = OperatorProcess(stage.cp, stage.folder, *options, server_port=link.port, name=name)


@dataclass
class Stage:
    """What a test plays on."""

    cp: ControlPlane
    space: Space
    folder: Path
    service: Forwarder
    links: ExitStack
    replicas: dict[str, Replica]

    def add(self, name: str, *, start: bool = True) -> Replica:
        pod = {
            "metadata": {"name": name, "labels": LABELS},
            "spec": {"serviceAccountName": "edgecloud", "containers": [{"name": "x", "image": "x"}]},
        }
        self.space.api.call("POST", PODS, pod)
        link = self.links.enter_context(forwarder(lambda: self.cp.port))
        self.replicas[name] = Replica(self, name, link)
        if start:
            self.replicas[name].process.start()
        return self.replicas[name]

    def add_two(self) -> None:
        self.add("a")
        self.add("b")

    @property
    def holder(self) -> str:
        lease = self.space.api.find(LEASES)
        return str(lease["spec"].get("holderIdentity") or "") if lease else ""

    def leader(self, *, other_than: str = "", seconds: float = 30.0) -> Replica:
        def look() -> Replica | None:
            holder = self.holder
            return self.replicas.get(holder) if holder != other_than and self.labelled() == [holder] else None

        return until(
            look, f"a leader other than {other_than!r}", seconds=seconds, saw=lambda: (self.holder, self.labelled())
        )

    def labelled(self) -> list[str]:
        items = self.space.api.call("GET", f"{PODS}?labelSelector=edgecloud.io/leader%3Dtrue")["items"]
        return [item["metadata"]["name"] for item in items]

    def progress(self) -> int:
        return int((self.space.status("digits").get("progress") or {}).get("step") or 0)

    def moves_on(self, *, seconds: float = 30.0) -> None:
        """The status shows newer steps than now: somebody hears the workers, and writes."""
        step = self.progress()
        until(
            lambda: self.progress() > step,
            "progress is written",
            seconds=seconds,
            saw=lambda: self.space.status("digits"),
        )

    def training(self, workers: int = 2) -> dict[str, str]:
        """A job that takes steps; the uids of its Pods."""
        self.space.submit("digits", workers=workers, program={"command": ["python", "-c", STEPS]})
        reaches(self.space, "digits", "Running")
        self.moves_on()
        return self.space.uids("digits")

    def undisturbed(self, uids: dict[str, str]) -> None:
        """The same Pods, the same round, the same processes, and no step that took long."""
        status = self.space.status("digits")
        assert self.space.uids("digits") == uids
        assert (status["rendezvous"]["round"], status["restarts"], status["phase"]) == (1, 0, "Running")
        for uid in uids.values():
            lines = (self.folder / "kubelet" / uid / "results/steps").read_text().splitlines()
            assert len({line.split()[0] for line in lines}) == 1
            times = [float(line.split()[1]) for line in lines[:-1]]
            assert max(after - before for before, after in pairwise(times)) < 3.0


@pytest.fixture
def stage(cp: ControlPlane, space: Space, tmp_path: Path) -> Iterator[Stage]:
    with playing(cp, space, tmp_path) as made:
        yield made


@contextmanager
def playing(cp: ControlPlane, space: Space, folder: Path) -> Iterator[Stage]:
    replicas: dict[str, Replica] = {}
    made: list[Stage] = []

    def lead() -> int | None:
        """As a Service's endpoints: any of the Pods that have the label."""
        found = [name for name in made[0].labelled() if name in replicas]
        return replicas[random.choice(found)].process.port if found else None

    with forwarder(lead) as service, ExitStack() as links, kubelet(space, folder / "kubelet"):
        made.append(Stage(cp, space, folder, service, links, replicas))
        try:
            yield made[0]
        finally:
            for replica in replicas.values():
                replica.process.kill()
                space.api.call("DELETE", f"{PODS}/{replica.name}?gracePeriodSeconds=0")
            if space.api.find(LEASES):
                space.api.call("DELETE", LEASES)
    for replica in replicas.values():
        assert "Traceback" not in replica.process.log, replica.process.log


def test_a_leader_that_is_killed(stage: Stage, record_property: Any) -> None:
    stage.add_two()
    uids = stage.training()
    first = stage.leader()
    first.process.kill()
    began = time.monotonic()
    second = stage.leader(other_than=first.name)
    took = time.monotonic() - began
    record_property("seconds", took)
    print(f"\nkilled: another leads after {took:.1f} s", end="")
    stage.moves_on()
    print(f", and has written progress after {time.monotonic() - began:.1f} s")
    assert took <= AIM
    stage.undisturbed(uids)
    # The one that comes back stands by.
    first.process.start()
    stage.moves_on()
    assert stage.leader() is second


def test_a_leader_that_stands_still(stage: Stage) -> None:
    """Stopped for longer than its Lease lasts, and then it goes on as if nothing had been."""
    stage.add_two()
    uids = stage.training()
    first = stage.leader()
    first.process.freeze()
    second = stage.leader(other_than=first.name, seconds=AIM)
    # Workers that were in the midst of a poll with the frozen one come round within twenty seconds.
    stage.moves_on(seconds=60)
    first.process.thaw()
    assert first.process.wait_end() == 0
    assert f"{second.name} leads now" in first.process.log
    assert stage.labelled() == [second.name]
    stage.moves_on()
    stage.undisturbed(uids)


@pytest.mark.long
def test_a_leader_that_is_cut_off_for_a_minute(stage: Stage) -> None:
    stage.add_two()
    uids = stage.training()
    first = stage.leader()
    first.link.cut()
    cut = time.monotonic()
    second = stage.leader(other_than=first.name, seconds=AIM)
    stage.moves_on(seconds=60)
    until(lambda: time.monotonic() - cut > 60, "a minute", seconds=70)
    assert first.process.running  # it can't see that another one leads, and waits
    first.link.mend()
    assert first.process.wait_end() == 0
    assert stage.leader() is second
    stage.moves_on()
    stage.undisturbed(uids)


def test_all_of_them_cut_off(stage: Stage) -> None:
    """Nobody leads, the training goes on, and then the same one leads again."""
    stage.add_two()
    uids = stage.training()
    first = stage.leader()
    for replica in stage.replicas.values():
        replica.link.cut()
    cut = time.monotonic()
    until(lambda: time.monotonic() - cut > 15, "fifteen seconds")
    for replica in stage.replicas.values():
        assert replica.process.running
        replica.link.mend()
    stage.leader(seconds=AIM)
    stage.moves_on()
    assert first.process.running or stage.holder != first.name
    stage.undisturbed(uids)


def test_two_at_once(stage: Stage) -> None:
    """Started in the same moment, again and again: each Pod is made once, and each round opened once."""
    for name in ("a", "b", "c"):
        stage.add(name, start=False)
    for name in range(4):
        stage.space.submit(f"job-{name}", workers=2, program={"command": ["sleep", "600"]})
    made: set[str] = set()
    for _ in range(2):
        for replica in stage.replicas.values():
            replica.process.start(ready=False)
        stage.leader()
        for name in range(4):
            reaches(stage.space, f"job-{name}", "Running")
            made |= {pod["metadata"]["uid"] for pod in all_pods(stage.space, f"job-{name}", 2).values()}
        for replica in stage.replicas.values():
            replica.process.kill()
    assert len(made) == 8
    assert [stage.space.status(f"job-{name}")["rendezvous"]["round"] for name in range(4)] == [1, 1, 1, 1]
    assert [stage.space.status(f"job-{name}")["restarts"] for name in range(4)] == [0, 0, 0, 0]


def test_a_rolling_upgrade(stage: Stage) -> None:
    """A new one comes up, an old one is asked to go: the next leads at once."""
    stage.add_two()
    uids = stage.training()
    for name in ("c", "d"):
        stage.add(name)
        first = stage.leader()
        began = time.monotonic()
        assert first.process.stop() == 0
        stage.leader(other_than=first.name)
        took = time.monotonic() - began
        print(f"\nasked to go: another leads after {took:.1f} s", end="")
        assert took < 8.0  # a Lease that was given back is not waited for
        stage.moves_on()
    stage.undisturbed(uids)


def test_a_lease_that_somebody_deletes(stage: Stage) -> None:
    stage.add_two()
    uids = stage.training()
    stage.space.api.call("DELETE", LEASES)
    stage.leader(seconds=AIM)
    stage.moves_on()
    stage.undisturbed(uids)
