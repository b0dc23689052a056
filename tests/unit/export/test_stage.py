"""The export's process as a job's last stage: what its end comes to, and what of its folder is believed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from edgecloud.api.spec import ExportSpec
from edgecloud.api.trainer import DataSpec
from edgecloud_trainer import settings
from edgecloud_trainer.checkpoints import CheckpointStore
from edgecloud_trainer.data import load
from edgecloud_trainer.export import stage
from edgecloud_trainer.export.__main__ import _work
from edgecloud_trainer.export.errors import DONE, GATE_FAILED
from edgecloud_trainer.export.stage import ExportFailedError, run_stage
from edgecloud_trainer.restoring import RestoreError, restore
from tests.unit.appraisal.test_predictors import saved
from tests.unit.edge import export as exports
from tests.unit.edge.made import CLASSES
from tests.unit.trainer.pictures import tree, write


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def read(folder: Path) -> settings.Settings:
    said = {"trainer": {"data": {"name": "digits"}}, "export": {"formats": ["onnx"]}}
    names = {name: str(folder / f"{name.lower()}s") for name in ("CHECKPOINT", "RESULTS")}
    return settings.read(
        {"EDGECLOUD_TRAINER": json.dumps(said)} | {f"EDGECLOUD_{name}_DIR": path for name, path in names.items()}
    )


def checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    store = CheckpointStore(folder / "checkpoints", round=1, keep=1, digest="d" * 64)
    return store.save(5, {"model.weight": torch.zeros(2)}, {"step": 5} | state, weights={"model.weight"}).path


def test_a_checkpoint_that_can_not_be_exported(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found.export is not None
    unlike = checkpoint(tmp_path, {"card": {"model": "edgenet", "classes": ["one"], "shape": [1, 2]}})
    with pytest.raises(ExportFailedError) as caught:
        run_stage(found, found.export, unlike, 5)
    message = str(caught.value)
    with pytest.raises(RestoreError) as why:
        restore(unlike)
    assert len(str(why.value).splitlines()) > 1
    assert message == " ".join(str(why.value).split()), "all of it, however many lines a library made of it"
    assert "its card can't be read: " in message and "step-5" in message


def test_a_checkpoint_of_an_earlier_release_says_so(tmp_path: Path) -> None:
    said = r"step-5 doesn't say what network it is of, for an earlier release wrote it: train it again with this one$"
    with pytest.raises(RestoreError, match=said):
        restore(checkpoint(tmp_path, {}))


def test_a_gate_that_fails_leaves_the_destination_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There may be an older export that is good."""
    away, out = tmp_path / "away", tmp_path / "results/export"
    (away / "model.onnx").parent.mkdir()
    (away / "model.onnx").write_bytes(b"good")
    spec = ExportSpec(formats=("onnx",), destination=str(away), max_accuracy_loss=1)
    source = DataSpec(
        source=str(write(tmp_path / "set", tree({f"train/{one}": 2 for one in CLASSES} | {f"test/{CLASSES[0]}": 1})))
    )
    digest = load(source, seed=0, cache=tmp_path / "cache").digest
    saved(tmp_path, data=source, data_sha256=digest)
    exports.folder(out, ("onnx",))
    for name in ("report.html", "report.schema.json"):
        (out / name).write_text("")
    said = argparse.Namespace(
        checkpoint=tmp_path, out=out, cache=tmp_path / "cache", spec=json.dumps(spec.dump()), threads=1, node=""
    )
    for lost, code, kept in ((5.0, GATE_FAILED, b"good"), (0.5, DONE, (out / "model.onnx").read_bytes())):
        report = json.loads((out / "report.json").read_text())
        report["run"] = restore(tmp_path).run.dump()
        report["exports"][0]["gate"] |= {"passed": lost <= 1, "maxAccuracyLoss": 1.0, "accuracyLoss": lost}
        (out / "report.json").write_text(json.dumps(report))
        assert _work(said) == code, capsys.readouterr()
        assert (away / "model.onnx").read_bytes() == kept
    found = stage.Ended(code=GATE_FAILED, lines=("export: onnx has lost too much",))
    with pytest.raises(ExportFailedError, match=rf"are in {out}, and nothing was copied to export\.destination$"):
        stage._judge(found, None, out, spec)


def test_an_export_that_ended_is_not_waited_for_because_of_what_it_has_left() -> None:
    """A helper that outlives it holds the pipe that its lines come by."""
    asked = stage._Stop()
    command = ["sh", "-c", "sleep 3141 & echo export: killed; exit 3"]
    ended = stage._watched(command, dict(os.environ), asked, lambda percent: None)
    assert (ended.code, ended.lines) == (3, ("export: killed",))
    until = time.monotonic() + 30
    while _sleeping():
        assert time.monotonic() < until, "it outlives its group"
        time.sleep(0.02)


def _sleeping() -> bool:
    return any(one.info["cmdline"] == ["sleep", "3141"] for one in psutil.process_iter(["cmdline"]))
