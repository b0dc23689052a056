"""The export's process as a job's last stage: what its end comes to, and what of its folder is believed."""

from __future__ import annotations

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

from edgecloud_trainer import settings
from edgecloud_trainer.checkpoints import CheckpointStore
from edgecloud_trainer.export import stage
from edgecloud_trainer.export.stage import ExportFailedError, run_stage
from edgecloud_trainer.restoring import RestoreError, restore


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
