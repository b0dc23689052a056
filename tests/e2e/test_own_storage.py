"""Workers with storage of their own, as emptyDir gives: each keeps a copy of every checkpoint, and one is enough."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.local import wait_for
from tests.ports import free_port

TRAINER = {"model": "article-cnn", "data": {"name": "digits"}, "epochs": 3, "batchSize": 96, "deterministic": True}
STORAGE = {"checkpointIntervalSteps": 5}


@contextmanager
def ranks(folder: Path, *, round: int, count: int = 2) -> Iterator[list[subprocess.Popen[str]]]:
    """The training processes of a round, each with folders of its own."""
    port = free_port()
    said = json.dumps({"trainer": TRAINER, "storage": STORAGE, "ownStorage": True})
    running = []
    for rank in range(count):
        own = folder / f"worker-{rank}"
        own.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "EDGECLOUD_ROUND": str(round),
            "EDGECLOUD_TRAINER": said, "OMP_NUM_THREADS": "1",
            "EDGECLOUD_CHECKPOINT_DIR": str(own / "checkpoints"), "EDGECLOUD_RESULTS_DIR": str(own / "results"),
        }  # fmt: skip
        with (own / "log").open("a") as log:
            command = [sys.executable, "-m", "edgecloud_trainer.train"]
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True))
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def logs(folder: Path) -> str:
    return "\n".join(file.read_text()[-2000:] for file in sorted(folder.glob("worker-*/log")))


def digests(folder: Path) -> dict[str, str]:
    """Of each worker's newest checkpoint: its step and the weights' sha256."""
    found = {}
    for own in sorted(folder.glob("worker-*")):
        newest = max((own / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
        manifest = json.loads((newest / "manifest.json").read_text())
        found[own.name] = f"{newest.name} {manifest['weights_sha256']}"
    return found


def ended(folder: Path, running: list[subprocess.Popen[str]]) -> list[int]:
    for process in running:
        wait_for("the end", lambda process=process: process.poll() is not None, within=240, seen=lambda: logs(folder))
    return [process.returncode for process in running]


@pytest.mark.timeout(600)
def test_one_copy_is_enough(tmp_path: Path) -> None:
    undisturbed, work = tmp_path / "undisturbed", tmp_path / "work"
    with ranks(undisturbed, round=1, count=1) as running:
        assert ended(undisturbed, running) == [0], logs(undisturbed)
    [expected] = digests(undisturbed).values()

    with ranks(work, round=1) as running:
        wait_for(
            "a checkpoint", lambda: list((work / "worker-0/checkpoints").glob("step-*")), within=120,
            seen=lambda: logs(work),
        )  # fmt: skip
        running[1].send_signal(signal.SIGTERM)
        assert ended(work, running) == [143, 143], logs(work)
    stopped = digests(work)
    assert len(set(stopped.values())) == 1
    shutil.rmtree(work / "worker-0")  # worker 0's Pod is lost, and its storage with it

    with ranks(work, round=2) as running:
        assert ended(work, running) == [0, 0], logs(work)
    step = stopped["worker-1"].split()[0].removeprefix("step-")
    assert f"going on after step {step}" in (work / "worker-0/log").read_text()
    assert digests(work) == {"worker-0": expected, "worker-1": expected}

    shutil.rmtree(work / "worker-0")
    with ranks(work, round=3) as running:
        assert ended(work, running) == [0, 0], logs(work)
    assert "has finished this training" in (work / "worker-0/log").read_text()
