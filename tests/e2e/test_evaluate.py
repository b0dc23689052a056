"""`edgecloud evaluate` on what a job leaves: the job's own figures again, other data, two models."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud.api.trainer import DataSpec
from edgecloud.cli.main import cli
from edgecloud_trainer.data import load
from tests.e2e.local import EDGECLOUD, ROOT, run
from tests.unit.once import once

FILES = {"evaluation.json", "confusion.png", "calibration.png", "worst.png"}


def evaluate(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(EDGECLOUD), "evaluate", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240, cwd=cwd, env={**os.environ, **environment}
    )


def asked(*arguments: object, **environment: str) -> Result:
    """The command within this process: one of its own would import torch."""
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)], env=environment)


def said(*arguments: object, **environment: str) -> dict[str, Any]:
    done = asked(*arguments, "-o", "json", "-q", **environment)
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingJobStatus]:
    """A finished job on digits with the mirror images in its evaluation, and three checkpoints."""

    def train(folder: Path) -> None:
        job = yaml.safe_load((ROOT / "manifests/examples/digits.yaml").read_text())
        job["spec"]["trainer"] |= {"epochs": 4, "data": {"name": "digits", "augment": "flip-crop"}}
        job["spec"]["storage"] = {"checkpointIntervalSteps": 5}
        with run(folder, job, "--workers", "2") as running:
            assert running.end(within=240) == 0, running.output()

    folder = once(tmp_path_factory, "trained", train)
    status = TrainingJob.parse(yaml.safe_load((folder / "job.yaml").read_text())).status
    assert status is not None
    return folder, status


def digits(folder: Path, names: dict[int, str], per_class: int = 8) -> Path:
    """Some of the digits as files in class folders."""
    images = load(DataSpec(name="digits"), seed=0, cache=folder.with_suffix(".cache")).train
    for digit, name in names.items():
        (folder / name).mkdir(parents=True)
        for number in np.flatnonzero(images.labels == digit)[:per_class]:
            Image.fromarray(images.pixels[number, 0]).save(folder / name / f"{number}.png")
    return folder


def test_the_jobs_own_figure(trained: tuple[Path, TrainingJobStatus]) -> None:
    """A checkpoint is evaluated as at the end of the training: the same accuracy and confusion, to the last image."""
    folder, status = trained
    results = json.loads((folder / "results/evaluation.json").read_text())
    found = said(folder)
    assert status.evaluation is not None
    assert found["accuracy"] == status.evaluation.accuracy == results["accuracy"]
    assert found["confusion"] == results["confusion"]
    assert found["loss"] == pytest.approx(results["loss"], rel=1e-5)
    assert found["model"]["mirror"] is True
    assert found["model"]["weightsSha256"] == status.checkpoint.weights_sha256 if status.checkpoint else None
    assert found["data"]["images"] == results["total"]
    for name, score in results["perClass"].items():
        assert found["perClass"][name].items() >= score.items()


def test_files(trained: tuple[Path, TrainingJobStatus], tmp_path: Path) -> None:
    folder, status = trained
    done = evaluate(folder, "--out", tmp_path / "new/report")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "new/report").iterdir()} == FILES
    written = json.loads((tmp_path / "new/report/evaluation.json").read_text())
    assert status.evaluation is not None
    assert written["accuracy"] == status.evaluation.accuracy
    assert written == said(folder)
    assert f"accuracy {100 * written['accuracy']:.2f} %" in done.stdout
    assert "calibration.png" in done.stderr
    for name in FILES - {"evaluation.json"}:
        with Image.open(tmp_path / "new/report" / name) as image:
            image.load()


def test_two_checkpoints(trained: tuple[Path, TrainingJobStatus], tmp_path: Path) -> None:
    folder, _ = trained
    checkpoints = sorted((folder / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    done = evaluate(folder, checkpoints[0], "--out", tmp_path, "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, second = found["models"]
    assert (first["model"]["step"], second["model"]["step"]) == tuple(int(checkpoints[at].name[5:]) for at in (-1, 0))
    compared = found["comparison"]
    counts = [compared[name] for name in ("bothRight", "onlyFirstRight", "onlySecondRight", "noneRight")]
    assert sum(counts) == first["total"] == second["total"]
    assert counts[0] + counts[1] == first["correct"]
    assert counts[0] + counts[2] == second["correct"]
    assert compared["accuracyDifference"] == pytest.approx(first["accuracy"] - second["accuracy"])
    assert len(compared["differing"]) == min(40, counts[1] + counts[2])
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= FILES | {"comparison.json", "evaluation-2.json", "confusion-2.png", "worst-2.png"}
    assert ("differences.png" in names) is bool(compared["differing"])
    same = said(folder, folder)["comparison"]
    assert (same["accuracyDifference"], same["mcnemarP"], same["differing"]) == (0.0, 1.0, [])


def test_other_data_by_the_names_of_its_classes(trained: tuple[Path, TrainingJobStatus], tmp_path: Path) -> None:
    folder, _ = trained
    data = digits(tmp_path / "set", {7: "7", 3: "3"})
    found = said(folder, "--data", data, "--split", "all", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert found["total"] == 16
    assert {name for name, score in found["perClass"].items() if score["total"]} == {"3", "7"}
    assert found["accuracy"] > 0.5
    assert list((tmp_path / "cache/edgecloud/data").glob("*.images"))
    assert found["data"]["name"] == "set"


def test_what_does_not_go_together(trained: tuple[Path, TrainingJobStatus], tmp_path: Path) -> None:
    folder, _ = trained
    unknown = digits(tmp_path / "unknown", {7: "seven", 3: "3"})
    (tmp_path / "large/a").mkdir(parents=True)
    (tmp_path / "large/b").mkdir()
    for number in range(20):
        Image.new("L", (9, 8)).save(tmp_path / f"large/{'ab'[number % 2]}/{number}.png")
    (tmp_path / "file").write_text("x")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((folder, "--data", unknown), "unknown has classes that the model doesn't know: seven; it knows 0, 1, 2"),
        ((folder, "--data", tmp_path / "large"), "large has images of 9x8 pixels (grey), and the model takes 8x8"),
        ((folder, "--data", "no-such-set"), "no data set is named no-such-set"),
        ((folder, "--data", tmp_path / "nowhere/at/all"), "isn't there"),
        ((folder, "--split", "validation"), "digits has no validation images, only train, test"),
        ((tmp_path / "unknown",), "holds no checkpoint"),
        ((tmp_path / "file",), "is no ONNX model"),
        ((tmp_path / "missing",), "No such file"),
        ((folder, tmp_path / "missing"), "No such file"),
        ((folder, "--format", "onnx"), "a folder without model.onnx"),
        ((folder, "--out", tmp_path / "file/in"), "the folder can't be made"),
    ]
    for arguments, words in cases:
        done = asked(*arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert (done.exit_code, done.stdout) == (2, ""), (arguments, done.exception)
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_damaged_checkpoint_is_passed_over(trained: tuple[Path, TrainingJobStatus], tmp_path: Path) -> None:
    folder, _ = trained
    checkpoints = sorted((folder / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    for checkpoint in checkpoints:
        copy = tmp_path / "work/checkpoints" / checkpoint.name
        copy.mkdir(parents=True)
        for file in checkpoint.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    newest = tmp_path / "work/checkpoints" / checkpoints[-1].name
    largest = max(newest.iterdir(), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    done = evaluate(tmp_path / "work", "-o", "json", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["step"] == int(checkpoints[-2].name[5:])
    assert f"note: {newest} is not used" in done.stderr


def test_data_that_have_changed(trained: tuple[Path, TrainingJobStatus], tmp_path: Path) -> None:
    """The images of the training are others by now: that is said, for the test images may be among those seen."""
    data = digits(tmp_path / "set", {digit: str(digit) for digit in range(4)}, per_class=30)
    job = yaml.safe_load((ROOT / "manifests/examples/digits.yaml").read_text())
    job["spec"]["trainer"] |= {"epochs": 1, "batchSize": 32, "shards": 2, "data": {"source": str(data)}}
    with run(tmp_path / "work", job, "--workers", "1") as running:
        assert running.end(within=240) == 0, running.output()
    said(tmp_path / "work")  # and nothing else
    next((data / "0").iterdir()).unlink()
    done = evaluate(tmp_path / "work", "-q")
    assert done.returncode == 0
    assert "was trained with other images than set holds now" in done.stderr
