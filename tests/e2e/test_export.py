"""spec.export through `edgecloud run`: files that stand on their own, gates, and what a kill costs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from PIL import Image

from edgecloud.api.status import TrainingJobStatus
from edgecloud.cli.main import cli
from edgecloud.edge.card import INPUT, METADATA_KEY, OUTPUT, ExportCard
from edgecloud.edge.layout import MODELS, REFERENCE, REPORT
from edgecloud.edge.reference import load_reference
from edgecloud_operator.core import conditions
from tests.e2e.local import EDGECLOUD, ROOT, Run, run, wait_for

MODELS_PATH = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests/e2e/models"), os.environ.get("PYTHONPATH", "")])}
WITHIN = 280.0


def job(export: dict[str, Any], *, epochs: int = 3, workers: int = 1, **trainer: Any) -> dict[str, Any]:
    """A short training on the digits, then an export."""
    said: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/digits.yaml").read_text())
    said["spec"]["trainer"] |= {"epochs": epochs, "sampleLog": True, **trainer}
    said["spec"] |= {"workers": workers, "storage": {"checkpointIntervalSteps": 10}, "export": export}
    return said


def exports(status: TrainingJobStatus) -> dict[str, dict[str, Any]]:
    return {one["format"]: one for one in status.exports or ()}


def trained_in(running: Run) -> set[int]:
    """Rounds in which steps were done."""
    lines = (running.folder / "results/rank-0-samples.jsonl").read_text().splitlines()
    return {json.loads(line)["round"] for line in lines}


def exporting(running: Run) -> psutil.Process:
    """The export's process, when it is at work."""

    def look() -> psutil.Process | None:
        for process in running.below():
            try:
                if "edgecloud_trainer.export" in process.cmdline():
                    return process
            except psutil.Error:
                continue
        return None

    return wait_for("the export's process", look, within=120, seen=running.output)


def test_a_job_that_exports_and_the_command_after_it(tmp_path: Path) -> None:
    """Two workers, three formats, a destination; status, files and what they say of themselves; then by hand."""
    delivered = tmp_path / "delivered"
    export = {"formats": ["onnx", "onnx-int8", "pt2"], "maxAccuracyLoss": 2, "destination": f"file://{delivered}"}
    with run(tmp_path / "work", job(export, epochs=12, workers=2)) as running:
        assert running.end(within=WITHIN) == 0, running.output()
        status = running.status
    assert (status.phase, status.restarts) == ("Succeeded", 0)
    assert status.progress is not None and status.progress.percent == 100.0
    folder = tmp_path / "work/results/export"
    found = exports(status)
    assert set(found) == {"onnx", "onnx-int8", "pt2"}
    for one in found.values():
        data = (folder / one["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one["bytes"], one["sha256"])
        assert (delivered / one["path"]).read_bytes() == data
        assert one["gate"] == "passed" and one["latency"]["p50"] > 0 and one["parity"]["agreement"] > 0.9
    assert len(json.dumps(status.dump()["exports"])) < 2400
    report = json.loads((folder / REPORT).read_text())
    Draft202012Validator(json.loads((folder / "report.schema.json").read_text())).validate(report)
    assert (delivered / REPORT).read_text() == (folder / REPORT).read_text()
    assert not [path for path in (*folder.iterdir(), *delivered.iterdir()) if path.name.startswith(".")]
    assert found["onnx"]["bytes"] / found["onnx-int8"]["bytes"] > 3.5
    assert status.checkpoint is not None
    plain_onnxruntime(folder, status.checkpoint.weights_sha256 or "")

    again_in = tmp_path / "again"
    done = command("export", str(tmp_path / "work"), "--formats", "onnx", "--out", str(again_in), "-o", "json")
    assert done.returncode == 0, done.stderr
    (again,) = json.loads(done.stdout)["exports"]
    assert again["accuracy"] == found["onnx"]["accuracy"]
    assert {path.name for path in again_in.iterdir()} == {
        "model.onnx", REFERENCE, REPORT, "report.schema.json", "report.html",
    }  # fmt: skip


def plain_onnxruntime(folder: Path, weights_sha256: str) -> None:
    """The files need nothing of ours: uint8 in, any number of images, logits like the original's, the card inside."""
    reference = load_reference(folder / REFERENCE)
    for name, most in (("onnx", 1e-3), ("onnx-int8", 1.0)):
        session = onnxruntime.InferenceSession(str(folder / MODELS[name]))  # type: ignore[index]
        card = ExportCard.parse(json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY]))
        assert (card.format, card.run.weights_sha256, card.network.job) == (name, weights_sha256, "digits")
        for count in (1, 7):
            (logits,) = session.run([OUTPUT], {INPUT: reference.pixels[:count]})
            assert np.abs(logits - reference.logits[:count]).max() < most


def test_a_gate_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that int8 can't hold: the files stay, the other format is published too, and nothing is tried again."""
    away = tmp_path / "away"
    export = {"formats": ["onnx", "onnx-int8"], "maxAccuracyLoss": 1, "destination": str(away)}
    with run(tmp_path / "work", job(export, epochs=8, model="wide_range:build"), env=MODELS_PATH) as running:
        assert running.end(within=WITHIN) == 1
        status = running.status
    failed = conditions.get(status, "Failed")
    assert failed is not None and (status.phase, failed.reason, status.restarts) == ("Failed", "ExportFailed", 0)
    assert "onnx-int8 has lost" in failed.message and "spec.export.calibrationImages" in failed.message
    assert failed.message.endswith("nothing was copied to export.destination") and not list(away.iterdir())
    assert {name: one["gate"] for name, one in exports(status).items()} == {"onnx": "passed", "onnx-int8": "failed"}
    assert status.last_failure is not None and status.last_failure.reason == "ExportFailed"
    folder = tmp_path / "work/results/export"
    assert all((folder / name).is_file() for name in ("model.onnx", "model-int8.onnx", "report.html", REPORT))
    assert trained_in(running) == {1}
    monkeypatch.syspath_prepend(ROOT / "tests/e2e/models")
    the_command_says_the_same(tmp_path)


def the_command_says_the_same(folder: Path) -> None:
    work, out = str(folder / "work"), str(folder / "by-hand")
    done = command("export", work, "--out", out, "--formats", "onnx-int8", "-o", "json", env=MODELS_PATH)
    assert done.returncode == 1 and json.loads(done.stdout)["exports"][0]["gate"] == "failed"
    assert "onnx-int8 has lost" in done.stderr and "--calibration-images" in done.stderr
    assert (folder / "by-hand/model-int8.onnx").is_file()
    for kind in "ab":
        (folder / "other" / kind).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(np.full((8, 8), 5 * number, np.uint8)).save(folder / f"other/{kind}/{number}.png")
    for arguments, words in (
        ([str(folder / "none")], "can't be read"),
        ([str(folder)], "holds no checkpoint"),
        ([work, "--formats", "onnx,exe"], "'exe' is no format"),
        ([work, "--data", str(folder / "other"), "--out", out], "has other classes than the network: 2 instead of 10"),
        ([work, "--data", str(folder / "nowhere"), "--out", out], "isn't there"),
        ([work, "--out", str(folder / "work/job.yaml")], "is a file"),
        ([work, "--max-accuracy-loss", "-1"], "is not in the range"),
    ):
        # In this process, for each of its own would import torch.
        refused = CliRunner().invoke(cli, ["export", *arguments])
        assert (refused.exit_code, refused.stdout) == (2, "") and words in refused.stderr, refused.output


def command(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(EDGECLOUD), *arguments], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip


def test_a_format_that_can_not_be_made(tmp_path: Path) -> None:
    """The job fails with the format's name and what to do; the other format is there."""
    export = {"formats": ["onnx", "pt2"], "maxAccuracyLoss": 1}
    with run(tmp_path / "work", job(export, epochs=1, model="only_pt2:build"), env=MODELS_PATH) as running:
        assert running.end(within=WITHIN) == 1
        status = running.status
    failed = conditions.get(status, "Failed")
    assert failed is not None and failed.reason == "ExportFailed" and status.restarts == 0
    assert "onnx could not be made" in failed.message
    assert set(exports(status)) == {"pt2"}


def test_an_export_that_is_killed_is_done_again_and_the_training_is_not(tmp_path: Path) -> None:
    with run(tmp_path / "work", job({"formats": ["onnx"]}, workers=2)) as running:
        exporting(running).kill()
        assert running.end(within=WITHIN) == 0, running.output()
        status = running.status
    assert (status.phase, status.restarts) == ("Succeeded", 1)
    assert status.last_failure is not None and "SIGKILL" in status.last_failure.message
    assert set(exports(status)) == {"onnx"}
    assert trained_in(running) == {1}

    (tmp_path / "work/job.yaml").unlink()  # the status is lost: what is there is found again, and not made anew
    before = (tmp_path / "work/results/export" / REPORT).stat()
    with run(tmp_path / "work", job({"formats": ["onnx"]}, workers=2)) as running:
        assert running.end(within=WITHIN) == 0, running.output()
        assert exports(running.status) == exports(status)
    after = (tmp_path / "work/results/export" / REPORT).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_stop_while_it_exports(tmp_path: Path) -> None:
    """Ctrl-C ends the export at once, and costs nothing; the same command exports what is trained."""
    with run(tmp_path / "work", job({"formats": ["onnx"]})) as running:
        exporting(running)
        running.process.send_signal(2)
        assert running.end(within=60) == 130, running.output()
    shutil.rmtree(tmp_path / "work/results/export", ignore_errors=True)
    with run(tmp_path / "work", job({"formats": ["onnx"]})) as running:
        assert running.end(within=WITHIN) == 0, running.output()
        assert set(exports(running.status)) == {"onnx"}
        assert running.status.restarts == 0
    assert trained_in(running) == {1}


def test_a_destination_that_can_not_be_written_to_costs_no_training(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with run(tmp_path / "work", job({"formats": ["onnx"], "destination": str(blocked)})) as running:
        assert running.end(within=WITHIN) == 1
        status = running.status
    assert status.restarts == 0 and (status.progress is None or not status.progress.step)
    assert status.last_failure is not None and status.last_failure.reason == "BadConfiguration"
    assert f"export.destination: {blocked} can't be written to" in status.last_failure.message


def test_a_destination_that_is_out_of_reach_costs_restarts_and_no_second_export(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    (blocked / "model.onnx").mkdir(
        parents=True
    )  # a folder where a file should come: it may be written to, but for that
    said = job({"formats": ["onnx"], "destination": str(blocked)})
    said["spec"]["restartPolicy"] = {"maxRestarts": 1}
    with run(tmp_path / "work", said) as running:
        assert running.end(within=WITHIN) == 1
        status = running.status
    failed = conditions.get(status, "Failed")
    assert failed is not None and (failed.reason, status.restarts) == ("RestartBudgetExceeded", 1)
    assert status.last_failure is not None and str(blocked) in status.last_failure.message
    assert set(exports(status)) == {"onnx"}
    log = (tmp_path / "work/logs/worker-0.log").read_text()
    assert log.count("writing onnx") == 1 and "holds this export already" in log
