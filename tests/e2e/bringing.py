"""The cluster of the end-to-end tests: brought once for a run of them, and taken away by whoever had it brought.

    python -m tests.e2e.bringing up      while other tests run; the end-to-end tests of the same run find it
    python -m tests.e2e.bringing down    unless it was there before, or KEEP_CLUSTER is set

A run is known by EDGECLOUD_TEST_RUN, which all of its processes have in their environment. Whichever comes first brings
the cluster, under a lock, and notes what it did.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.e2e.kube import (
    CACHE,
    REGISTRY,
    SYSTEM,
    TOOLS,
    Cluster,
    CommandError,
    bring_up,
    build_images,
    command,
    pull_image,
    push_images,
    sources_tag,
)

RUN: Final = "EDGECLOUD_TEST_RUN"
IMAGES: Final = ("operator", "trainer", "edge")


@dataclass
class Brought:
    """What this run of the tests did to have a cluster."""

    kubeconfig: str
    tag: str
    was_there: bool
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds by what they went to."""
    ready: bool = False
    """Whether the operator is there too; a cluster without it is noted, so that it is taken away all the same."""

    @property
    def cluster(self) -> Cluster:
        return Cluster(Path(self.kubeconfig), self.tag)


def bring() -> Brought:
    """The cluster of this run, with the operator of these sources."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = brought()
        return found if found is not None and found.ready else _bring(found)


def brought() -> Brought | None:
    """What this run has brought so far."""
    note = _note()
    return Brought(**json.loads(note.read_text())) if note.exists() else None


def once(what: str, make: Callable[[], str]) -> str:
    """What `make` comes to, made by the first process of this run that asks; the others wait for it."""
    with (CACHE / f".tests-{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        note = _note(f"-{what}")
        if not note.exists():
            note.write_text(make())
        return note.read_text()


def take_away() -> Brought | None:
    """Take away what this run has brought; what it was, or None if there is nothing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = brought()
        if found is None:
            return None
        for note in _note().parent.glob(f"{_note().stem}*"):
            note.unlink()
    keep = found.was_there or bool(os.environ.get("KEEP_CLUSTER"))
    with timed(found.spent, "helm uninstall" if keep else "cluster down"):
        if not keep:
            command(TOOLS / "cluster.sh", "down")
        else:
            with contextlib.suppress(CommandError):  # a test that failed may have left nothing to uninstall
                found.cluster.helm("uninstall", "edgecloud", "-n", SYSTEM, "--wait")
    return found


@contextlib.contextmanager
def timed(spent: dict[str, float], what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    spent[what] = time.monotonic() - began


def told(spent: dict[str, float]) -> str:
    return ", ".join(f"{what} {seconds:.0f} s" for what, seconds in spent.items())


def _note(what: str = "") -> Path:
    return CACHE / "cluster" / f"tests-{os.environ[RUN]}{what}.json"


def _bring(begun: Brought | None) -> Brought:
    """Nodes with the images of these sources, and `helm install edgecloud charts/`."""
    tag, spent = sources_tag(), dict[str, float]()

    def build() -> None:
        with timed(spent, "images built"):
            build_images(tag, *IMAGES)

    # Side by side: the images come over the network for a good part, and the cluster waits for itself.
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build)
        with timed(spent, "cluster up"):
            kubeconfig, was_there = bring_up()
        made = Brought(str(kubeconfig), tag, begun.was_there if begun is not None else was_there, spent)
        _write(made)
        building.result()
    with timed(spent, "images pushed"):
        push_images(tag, *IMAGES)
    with timed(spent, "images on the nodes"):
        for name in ("trainer", "edge"):
            pull_image(f"{REGISTRY}/edgecloud/{name}:{tag}")
    with timed(spent, "helm install"):
        made.cluster.install()
    made.ready = True
    _write(made)
    return made


def _write(made: Brought) -> None:
    _note().write_text(json.dumps(asdict(made)))


def main(arguments: list[str]) -> int:
    if arguments not in (["up"], ["down"]) or RUN not in os.environ:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = bring() if arguments == ["up"] else take_away()
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    if found is not None:
        print(told(found.spent))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
