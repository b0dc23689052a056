"""`from edgecloud import worker`: nothing outside a job, never an exception, never a wait."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgecloud import worker
from edgecloud.launcher.channel import LauncherEnd, pid_namespace
from tests.unit.launcher.harness import SOURCES


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGECLOUD_")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**inherited, "PYTHONPATH": str(SOURCES), **environment},
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
    )


def test_outside_a_job_it_does_nothing() -> None:
    worker.report(step=1, loss=float("nan"), anything=object())  # type: ignore[arg-type]
    assert worker.should_stop() is False
    seen = run("from edgecloud import worker; print(repr(worker.checkpoint_dir), repr(worker.results_dir))")
    assert seen.stdout == "PosixPath('checkpoints') PosixPath('results')\n"


def test_a_channel_that_is_not_there_is_as_none() -> None:
    script = "from edgecloud import worker; worker.report(step=1); print(worker.should_stop())"
    assert run(script, EDGECLOUD_CHANNEL="/no/such/file").stdout == "False\n"


def test_inside_a_job_the_folders_are_given() -> None:
    script = "from edgecloud import worker; print(worker.checkpoint_dir, worker.results_dir)"
    seen = run(script, EDGECLOUD_CHECKPOINT_DIR="/data/checkpoints", EDGECLOUD_RESULTS_DIR="/data/results")
    assert seen.stdout == "/data/checkpoints /data/results\n"


def test_it_imports_nothing_beyond_the_standard_library() -> None:
    script = (
        "import sys; from edgecloud import worker; print(sorted(n for n in sys.modules if n.split('.')[0] in {names}))"
    )
    names = {"torch", "pydantic", "yaml", "aiohttp", "numpy", "asyncio"}
    assert run(script.replace("{names}", repr(names))).stdout == "[]\n"


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LauncherEnd:
    end = LauncherEnd(tmp_path / "channel")
    monkeypatch.setenv("EDGECLOUD_CHANNEL", str(end.path))
    monkeypatch.setattr(worker, "_process", worker._Process())
    return end


def test_values_stand_until_newer_ones_come(channel: LauncherEnd) -> None:
    worker.report(step=1, total_steps=100, accuracy=0.5, lr=0.1)
    worker.report(step=2, loss=0.25, grad_norm=3)
    seen = channel.progress()
    assert seen is not None
    assert time.time() - seen.pop("reportedAt") < 60
    assert seen == {
        "step": 2,
        "totalSteps": 100,
        "accuracy": 0.5,
        "loss": 0.25,
        "metrics": {"lr": 0.1, "grad_norm": 3.0},
    }


def test_results_are_published(channel: LauncherEnd) -> None:
    worker.report(step=1)
    entry = {"format": "onnx", "path": "model.onnx", "gate": "passed"}
    worker.publish(evaluation={"accuracy": 0.5}, exports=[entry, entry])
    worker.publish(exports=[])
    seen = channel.progress()
    assert seen is not None
    assert (seen["evaluation"], seen["exports"]) == ({"accuracy": 0.5}, {"exports": []})
    worker.publish(exports=[entry])
    seen = channel.progress()
    assert seen is not None and seen["exports"] == {"exports": [entry]}


def test_what_the_job_cannot_show_is_named_once_and_the_rest_published(
    channel: LauncherEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    worker.report(step=1)
    deep: dict[str, Any] = {}
    for _ in range(9):
        deep = {"a": deep}
    for _ in range(2):
        worker.publish(evaluation={"accuracy": 0.5, "tree": deep, "function": print}, performance=0.5)  # type: ignore[arg-type]
    worker.publish(exports=5)  # type: ignore[arg-type]
    seen = channel.progress()
    assert seen is not None and seen["evaluation"] == {"accuracy": 0.5}
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("edgecloud.worker.publish: evaluation: left out: tree, function. ")
    assert second.startswith("edgecloud.worker.publish: performance: left out: all of it. ")


def test_odd_values_are_left_out(channel: LauncherEnd) -> None:
    worker.report(step=float("nan"))
    assert channel.progress() is None
    worker.report(step=3, loss=float("inf"), accuracy=93.0, name="x", **{"": 1.0})  # type: ignore[arg-type]
    worker.report(step="four", epoch=1)  # type: ignore[arg-type]
    seen = channel.progress()
    assert seen is not None and {**seen, "reportedAt": 0} == {"step": 3, "epoch": 1.0, "reportedAt": 0}


def test_only_who_asks_is_attached(channel: LauncherEnd) -> None:
    """A script that reports but never asks could not learn from the flag that it is to stop."""
    worker.report(step=1)
    assert not channel.attached
    assert worker.should_stop() is False
    assert channel.attached and channel.asker == os.getpid()
    channel.stop()
    assert worker.should_stop() is True


@pytest.mark.parametrize("told", ["", "its own", "pid:[1]"])
def test_who_is_counted_in_another_namespace_names_no_process(
    channel: LauncherEnd, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setenv("EDGECLOUD_PID_NAMESPACE", pid_namespace() if told == "its own" else told)
    worker.should_stop()
    assert channel.attached and channel.asker == (0 if told == "pid:[1]" else os.getpid())


def test_of_several_processes_the_one_that_goes_on_to_ask_counts(channel: LauncherEnd) -> None:
    script = """
import os
from edgecloud import worker
def asker():
    return int.from_bytes(open(os.environ["EDGECLOUD_CHANNEL"], "rb").read()[132:136], "little")
worker.should_stop()
child = os.fork()
if child == 0:
    worker.should_stop()
    os._exit(0)
os.waitpid(child, 0)
assert asker() == child, asker()
worker.should_stop()
print(os.getpid())
"""
    assert int(run(script, EDGECLOUD_CHANNEL=str(channel.path)).stdout) == channel.asker


def test_a_report_is_quick_and_asking_quicker(channel: LauncherEnd) -> None:
    started = time.perf_counter()
    for step in range(1000):
        worker.report(step=step, loss=0.5, lr=0.1)
    assert (time.perf_counter() - started) / 1000 < 0.001
    started = time.perf_counter()
    for _ in range(10000):
        worker.should_stop()
    assert (time.perf_counter() - started) / 10000 < 0.0001


def test_a_fork_does_not_inherit_a_lock(channel: LauncherEnd) -> None:
    worker.report(step=1)
    script = """
import os, threading
from edgecloud import worker
worker.report(step=1)
worker._process._lock.acquire()
child = os.fork()
if child == 0:
    worker.report(step=2)
    os._exit(0)
os.waitpid(child, 0)
"""
    run(script, EDGECLOUD_CHANNEL=str(channel.path))
    seen = channel.progress()
    assert seen is not None and seen["step"] == 2
