"""What may be named as a model, and what comes of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgecloud.api.trainer import DataSpec
from edgecloud.cli.main import cli
from edgecloud.edge.card import ModelCard
from edgecloud.edge.runtime import ModelFileError
from edgecloud_trainer import models
from edgecloud_trainer.appraisal.predictors import PredictorError, open_any
from edgecloud_trainer.checkpoints import CheckpointStore
from edgecloud_trainer.restoring import RestoreError, restore
from tests.unit.data.server import Site, serving
from tests.unit.edge.made import expected, export_card, images, linear, network_card, weights, write

ROOT = Path(__file__).parents[3]
SHAPE = (3, 16, 16)


def saved(
    workdir: Path,
    *,
    step: int = 5,
    fingerprint: dict[str, str] | None = None,
    mirror: bool = False,
    model: str = "article-cnn",
    **card: Any,
) -> ModelCard:
    """A checkpoint of an untrained network in a workdir."""
    scale = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    made = network_card(model=model, shape=SHAPE, mirror=mirror, **scale, **card)
    torch.manual_seed(step)
    network = models.build("article-cnn", classes=3, channels=3, height=16, width=16)
    tensors = {f"model.{name}": value for name, value in network.state_dict().items()}
    state = {"card": made.dump(), "fingerprint": fingerprint or {"device": "cpu", "precision": "torch.float32"}}
    store = CheckpointStore(workdir / "checkpoints", round=1, keep=3, digest="0" * 64)
    store.save(step, tensors, state, weights=list(tensors))
    return made


def plain(workdir: Path, pixels: np.ndarray, step: int = 5) -> np.ndarray:
    """What the network says, without any of ours."""
    torch.manual_seed(step)
    network = models.build("article-cnn", classes=3, channels=3, height=16, width=16).eval()
    scaled = (pixels / 255 - np.array([0.4, 0.5, 0.6])[:, None, None]) / np.array([0.2, 0.3, 0.25])[:, None, None]
    with torch.no_grad():
        found: np.ndarray = network(torch.from_numpy(scaled.astype(np.float32))).numpy()
    return found


def test_a_workdir_and_a_checkpoint(tmp_path: Path) -> None:
    card = saved(tmp_path / "run", step=3)
    saved(tmp_path / "run", step=5)
    pixels = images(4, SHAPE)
    for place, step in (
        ("run", 5),
        ("run/checkpoints", 5),
        ("run/checkpoints/step-5", 5),
        ("run/checkpoints/step-3", 3),
    ):
        found = open_any(tmp_path / place)
        assert (found.kind, found.run.step, found.card) == ("checkpoint", step, card)
        assert found.workdir == tmp_path / "run"
        assert found.computes == "cpu, float32"
        np.testing.assert_allclose(found.predictor.logits(pixels), plain(tmp_path, pixels, step), atol=1e-4)


def test_a_model_of_ones_own_is_found_in_the_folder_that_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `edgecloud run` finds it, with what it imports in its turn; afterwards nothing else is found there."""
    (tmp_path / "cwd_own.py").write_text(
        "import cwd_part\nfrom edgecloud_trainer.models.article import ArticleCNN as build\n"
    )
    (tmp_path / "cwd_part.py").write_text("")
    saved(tmp_path / "run", model="cwd_own:build")
    before = list(sys.path)
    with pytest.raises(models.ModelError, match=r"cwd_own can't be imported .* start it from its folder"):
        open_any(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    pixels = images(2, SHAPE)
    found = open_any(Path("run"))
    np.testing.assert_allclose(found.predictor.logits(pixels), plain(tmp_path, pixels), atol=1e-4)
    assert sys.path == before


def test_a_checkpoint_opens_in_any_torch_code_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n([^`]*safetensors[^`]*)```", (ROOT / "README.md").read_text())
    saved(tmp_path / "runs/pets", step=1200)
    monkeypatch.chdir(tmp_path)
    pixels = images(2, SHAPE)
    network = models.build("article-cnn", classes=3, channels=3, height=16, width=16)
    known = {"network": network, "pixels": torch.from_numpy(pixels)}
    exec(code, known)
    found = known["logits"].detach().numpy()
    np.testing.assert_allclose(found, open_any(tmp_path / "runs/pets").predictor.logits(pixels), atol=1e-5)


def test_nothing_else_is_imported_from_that_folder(tmp_path: Path) -> None:
    """It may be one of images from anywhere, and torchvision looks for modules that need not be there."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here/torchvision.py").write_text("raise SystemExit('read from the folder')\n")
    saved(tmp_path / "run", model="resnet18")
    (tmp_path / "command.py").write_text(
        "from pathlib import Path\n"
        "from edgecloud_trainer.appraisal.predictors import open_any\n"
        "open_any(Path('../run'))\n"
    )
    done = subprocess.run(
        [sys.executable, "../command.py"],
        cwd=tmp_path / "here",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "its weights don't fit resnet18" in done.stderr, done.stderr


def test_mirror_images_are_looked_at_where_the_card_says_so(tmp_path: Path) -> None:
    saved(tmp_path, mirror=True)
    pixels = images(4, SHAPE)
    both = (plain(tmp_path, pixels) + plain(tmp_path, pixels[..., ::-1])) / 2
    found = open_any(tmp_path)
    assert found.mirror
    np.testing.assert_allclose(found.predictor.logits(pixels), both, atol=1e-4)


@pytest.mark.parametrize(
    ("fingerprint", "computes"),
    [
        ({"device": "cpu", "precision": "torch.bfloat16"}, "cpu, bfloat16"),
        ({"device": "NVIDIA H100", "precision": "torch.bfloat16"}, "cpu, float32"),
        ({}, "cpu, float32"),
    ],
)
def test_the_precision_of_the_training(tmp_path: Path, fingerprint: dict[str, str], computes: str) -> None:
    saved(tmp_path, fingerprint=fingerprint)
    found = open_any(tmp_path, device="cpu")
    assert found.computes == computes
    difference = np.abs(found.predictor.logits(images(4, SHAPE)) - plain(tmp_path, images(4, SHAPE))).max()
    assert bool(difference > 1e-4) is (computes == "cpu, bfloat16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(PredictorError, match="--device cuda: there is no GPU"):
        open_any(tmp_path, device="cuda")


def test_an_exports_folder(tmp_path: Path) -> None:
    saved(tmp_path)
    export = tmp_path / "results/export"
    export.mkdir(parents=True)
    matrix, bias = weights()
    write(export / "model.onnx")
    write(export / "model-int8.onnx", linear(2 * matrix, bias), export_card("onnx-int8"))
    pixels = images(300)
    for found in (open_any(export), open_any(export / "model.onnx"), open_any(tmp_path, format="onnx")):
        assert (found.kind, found.path) == ("onnx", export / "model.onnx")
        assert found.workdir == tmp_path
        np.testing.assert_allclose(found.predictor.logits(pixels), expected(pixels, matrix, bias), atol=1e-3)
    assert open_any(export, format="onnx-int8").kind == "onnx-int8"
    with pytest.raises(ModelFileError, match="is of the format onnx, and --format says onnx-int8: name the other file"):
        open_any(export / "model.onnx", format="onnx-int8")
    assert open_any(tmp_path).kind == "checkpoint"


def test_a_run_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "run")
    export, other = tmp_path / "run/results/export", tmp_path / "other"
    for folder in (export, other):
        folder.mkdir(parents=True)
        write(folder / "model.onnx")
    (other / "link.onnx").symlink_to(export / "model.onnx")
    for here, name, found in (
        (export, "model.onnx", tmp_path / "run"),
        (other, "../run/checkpoints", tmp_path / "run"),
        (other, "link.onnx", tmp_path / "run"),
        (tmp_path / "run", "../other/model.onnx", None),
    ):
        monkeypatch.chdir(here)
        assert open_any(Path(name)).workdir == found, name


def test_a_project_of_the_users_own_is_no_run(tmp_path: Path) -> None:
    """Decoded images would be put among the user's own data."""
    for name in ("checkpoints/step-5", "data", "export"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "checkpoints/step-7").write_bytes(b"weights")
    (tmp_path / "job.yaml").write_text("a job file of the user's own")
    assert open_any(write(tmp_path / "export/model.onnx")).workdir is None


def test_images_that_somebodys_model_names(tmp_path: Path) -> None:
    """An address that would be asked, or a path whose images would be read: not of a file that may be anybody's."""

    def refused(data: DataSpec, *more: str) -> str:
        path = write(tmp_path / "model.onnx", linear(*weights()), export_card(data=data))
        done = CliRunner().invoke(cli, ["evaluate", str(path), *more], env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
        assert (done.exit_code, done.stdout) == (2, "")
        return done.stderr

    folder = tmp_path / "set"
    folder.mkdir()
    there = DataSpec(source=str(folder))
    assert f"lies in no run's folder, and says that its images are in {folder}: name them with --data" in refused(there)
    assert "no data set is named neither" in refused(there, "--data", "neither")
    assert "no data set is named no-such-set" in refused(DataSpec(name="no-such-set")), "those are a few that are known"
    saved(tmp_path)
    assert f"{folder} holds no images" in refused(there), "in a run's folder they are the run's"


@pytest.mark.parametrize(("source", "said"), [("/no/such/set", "/no/such/set"), ("set", "set (looked for in {})")])
@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_images_of_a_run_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, source: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "work", data=DataSpec(source=source))
    done = CliRunner().invoke(cli, [command, "work"])
    assert (done.exit_code, done.stdout) == (2, "")
    remedy = "isn't there, where the model's training had its images: name them with --data"
    assert done.stderr.splitlines()[-1] == f"edgecloud: {said.format(tmp_path)} {remedy}"


def test_images_whose_server_refuses_them(tmp_path: Path) -> None:
    """Only a converted model's own URL may lack something: a checkpoint's is whole, and --data is the user's."""
    with serving(Site({}, status=403)) as site:
        url = f"{site.url}/d.images"
        saved(tmp_path, data=DataSpec(source=url))
        whole = write(tmp_path / "whole.onnx", linear(*weights()), export_card(data=DataSpec(source=f"{url}?sig=old")))
        path = write(tmp_path / "model.onnx", linear(*weights()), export_card(data=DataSpec(source=url)))
        for model, more, remedy in (
            (path, (), "check its rights; a converted model keeps no user, password or signature of its images' URL:"),
            (path, ("--data", url), "check its rights\n"),
            (tmp_path, (), "check its rights\n"),
            (tmp_path, ("--data", url), "check its rights\n"),
            (whole, (), "check its rights\n"),
        ):
            environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
            done = CliRunner().invoke(cli, ["evaluate", str(model), *more], env=environment)
            assert (done.exit_code, done.stdout) == (2, "")
            assert f"/d.images can't be read (its server answers 403 Forbidden): {remedy}" in done.stderr


def test_pt2(tmp_path: Path) -> None:
    class Sum(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.float().sum(dim=(2, 3))

    from edgecloud_trainer.export.pt2 import save_pt2

    batch = torch.export.Dim("n", min=1)
    example = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    program = torch.export.export(Sum(), (example,), dynamic_shapes=({0: batch},))
    save_pt2(program, tmp_path / "model.pt2", export_card("pt2"))
    found = open_any(tmp_path / "model.pt2")
    assert (found.kind, found.computes) == ("pt2", "cpu, float32")
    pixels = images(600)
    np.testing.assert_allclose(found.predictor.logits(pixels), pixels.astype(np.float32).sum(axis=(2, 3)))
    with pytest.raises(ModelFileError, match="is of the format pt2, and --format says onnx"):
        open_any(tmp_path / "model.pt2", format="onnx")
    (tmp_path / "broken.pt2").write_bytes((tmp_path / "model.pt2").read_bytes()[:500])
    with pytest.raises(ModelFileError, match=r"broken\.pt2 can't be opened"):
        open_any(tmp_path / "broken.pt2")


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="holds no checkpoint: name a workdir"):
        open_any(tmp_path)
    with pytest.raises(ModelFileError, match="No such file"):
        open_any(tmp_path / "missing")
    (tmp_path / "model.txt").write_text("x")
    with pytest.raises(ModelFileError, match="is no ONNX model"):
        open_any(tmp_path / "model.txt")
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ModelFileError, match="is no ONNX model but an archive"):
        open_any(tmp_path / "weights.pt")
    with pytest.raises(ModelFileError, match=r"a folder without model-int8\.onnx"):
        open_any(tmp_path, format="onnx-int8")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/model.pt2", "x" * 300 + "/checkpoints/step-5"])
def test_what_may_not_be_looked_at(tmp_path: Path, name: str) -> None:
    """As a path that is too long, or in somebody else's folder: the sentence is of the reading that failed."""
    with pytest.raises(ModelFileError, match=r"can't be read \(File name too long\): check it and its rights"):
        open_any(tmp_path / name)
    with pytest.raises(RestoreError, match=r"can't be read \(File name too long\): check it and its rights"):
        restore(tmp_path / name)
