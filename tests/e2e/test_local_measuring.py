"""A local run whose converted models are measured by a process of their own, killed and stopped while it does."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgecloud.api.status import TrainingJobStatus
from tests.e2e.local import Run, run, wait_for

pytestmark = pytest.mark.timeout(600)

WITHIN = 240.0


def job() -> dict[str, Any]:
    trainer = {"model": "edgenet", "data": {"name": "digits"}, "epochs": 2, "batchSize": 96}
    export = {"formats": ["onnx"], "maxAccuracyLoss": 5, "measureOn": {"nodeSelector": {"edge": "true"}}}
    return {
        "apiVersion": "edgecloud.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "digits"},
        "spec": {"workers": 1, "trainer": trainer, "export": export},
    }


def measures(running: Run) -> psutil.Process:
    """The process that measures."""

    def look() -> psutil.Process | None:
        for process in running.below():
            try:
                if "edgecloud.edge.measure" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    return process
            except psutil.Error:
                continue
        return None

    return wait_for("that it is measured", look, within=WITHIN, seen=running.output)


def until(running: Run, what: str, failures: int) -> TrainingJobStatus:
    def look() -> TrainingJobStatus | None:
        status = running.status
        return status if status.measuring and status.measuring.failures >= failures else None

    return wait_for(what, look, within=WITHIN, seen=running.output)


def test_killed_stopped_and_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with run(folder, job()) as first:
        measures(first).kill()
        trained = until(first, "the loss of it", 1)
        assert trained.rendezvous and trained.checkpoint and trained.exports
        assert "node" not in trained.exports[0], "what was not measured there is not said to have been"
        measures(first)  # another one, after a pause
        first.process.send_signal(signal.SIGTERM)
        assert first.end() == 128 + signal.SIGTERM
        assert "this machine; nodeSelector" in first.stderr()
    with run(folder, job()) as second:
        assert second.end(WITHIN) == 0, second.output()
        status = second.status
    assert status.phase == "Succeeded"
    assert status.rendezvous and status.rendezvous.round == trained.rendezvous.round, "nothing was trained again"
    assert status.checkpoint == trained.checkpoint
    (export,) = status.exports or ()
    assert export["node"] and export["sha256"] == trained.exports[0]["sha256"]
    assert export["latency"]["p50"] > 0
    assert "onnx" in (folder / "logs" / "measure.log").read_text()
    assert (folder / "results" / "export" / "report-edge.json").exists()
