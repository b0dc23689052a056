"""`edgecloud predict` from outside: models and images good and bad, and what it prints where."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgecloud.cli.main import cli
from edgecloud.edge.finding import model_file
from edgecloud.edge.runtime import ModelFileError, softmax
from tests.unit.cli.command import job_file, run_edgecloud
from tests.unit.edge.made import CLASSES, expected, export_card, images, linear, weights, write


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model.onnx")


def picture(path: Path, seed: int = 1) -> np.ndarray:
    """A picture of the model's size; uint8 [C, H, W]."""
    pixels = images(1, seed=seed)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(path, "PNG")
    return pixels


def probabilities(pixels: np.ndarray) -> dict[str, float]:
    row = softmax(expected(pixels[None], *weights()).astype(np.float32))[0]
    return dict(zip(CLASSES, row.tolist(), strict=True))


Predict = Callable[..., Result]


@pytest.fixture
def predict(capfd: pytest.CaptureFixture[str]) -> Iterator[Predict]:
    """The command within this process: for tests that ask it several times, each of which would import onnxruntime.

    What libraries print past Python is printed by none.
    """
    yield lambda *arguments: CliRunner().invoke(cli, ["predict", *map(str, arguments)])
    assert capfd.readouterr() == ("", "")


def test_a_line_for_each_image(tmp_path: Path, model: Path) -> None:
    right = {path: probabilities(picture(tmp_path / path, seed)) for seed, path in enumerate(("a.png", "b.png"))}
    done = run_edgecloud("predict", model, "a.png", "b.png", "--top", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for line, (path, found) in zip(done.stdout.splitlines(), right.items(), strict=True):
        (first, part), (second, other) = sorted(found.items(), key=lambda one: -one[1])[:2]
        assert line.split() == [path, first, f"{100 * part:.1f}", "%", second, f"{100 * other:.1f}", "%"]


ELSEWHERE = """
import os, sys
sys.modules |= dict.fromkeys(("fcntl", "grp", "pwd", "resource", "termios"))
for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "sched_getaffinity"):
    delattr(os, name)
from edgecloud.cli.main import main
main()
"""


def test_on_a_system_without_unix(tmp_path: Path, model: Path) -> None:
    """A converted model is asked anywhere; what trains says where it can."""
    picture(tmp_path / "a.png")
    for arguments, code, said in (
        (("predict", model, tmp_path / "a.png"), 0, f"{tmp_path}/a.png "),
        (("validate", job_file(tmp_path / "a.yaml")), 0, f"{tmp_path}/a.yaml: ok"),
        (("run", tmp_path / "a.yaml"), 2, "edgecloud: this system is not supported (it has no fcntl): use Linux,"),
    ):
        command = [sys.executable, "-c", ELSEWHERE, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        assert (done.stdout + done.stderr).startswith(said)


def test_json_has_all(tmp_path: Path, model: Path) -> None:
    found = probabilities(picture(tmp_path / "a.png"))
    (tmp_path / "b.png").write_text("no picture")
    done = run_edgecloud("predict", model, tmp_path / "b.png", tmp_path / "a.png", "-o", "json", "--top", "99")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    (answer,) = said["predictions"]
    assert answer["image"] == str(tmp_path / "a.png")
    assert answer["class"] == max(found, key=lambda name: found[name])
    assert {one["class"]: one["probability"] for one in answer["top"]} == pytest.approx(found, abs=1e-5)
    assert [one["probability"] for one in answer["top"]] == sorted(
        (one["probability"] for one in answer["top"]), reverse=True
    )
    (error,) = said["errors"]
    assert error["image"] == str(tmp_path / "b.png")
    assert "isn't an image" in error["message"]
    assert (said["model"]["format"], said["model"]["step"]) == ("onnx", 7)


def test_broken_images_do_not_stop_the_others(tmp_path: Path, model: Path) -> None:
    for number in range(70):
        picture(tmp_path / f"images/{number:02}.png", number)
    for number in (0, 31, 32, 69):
        (tmp_path / f"images/{number:02}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "images/15.png").write_bytes(b"")
    os.mkfifo(tmp_path / "images/pipe.png")
    done = run_edgecloud("predict", model, tmp_path / "images", tmp_path / "missing.png", "/dev/zero")
    assert done.returncode == 1
    names = [Path(line.split()[0]).name for line in done.stdout.splitlines()]
    assert names == [f"{number:02}.png" for number in range(70) if number not in (0, 15, 31, 32, 69)]
    errors = done.stderr.splitlines()
    assert len(errors) == 8
    assert all(str(tmp_path) in line or "/dev/zero" in line for line in errors)
    assert sum("no file that holds an image" in line for line in errors) == 2


def test_pillow_says_nothing_itself(tmp_path: Path, model: Path) -> None:
    """Of an image that is somewhat too large, and of notes of a camera that are cut off, it would."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 10_000, 9_500, 1, 0, 0, 0, 0)
    chunks = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (header, b"IDAT"))
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    Image.new("RGB", (5, 4)).save(tmp_path / "cut.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    done = run_edgecloud("predict", model, tmp_path / "large.png", tmp_path / "cut.jpg")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
    assert done.stderr == (
        f"{tmp_path / 'large.png'} would be larger than 89478485 pixels: scale it down, or take it out\n"
    )


def test_folders_and_patterns(tmp_path: Path, model: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("set/b/2.png", "set/a/1.PNG", "set/.hidden/3.png", "set/.4.png", "odd[1].png", "more/5.png"):
        picture(tmp_path / name)
    (tmp_path / "set/notes.txt").write_text("none")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    done = run_edgecloud("predict", model, "set", "odd[1].png", "mor*", "**/2.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [line.split()[0] for line in done.stdout.splitlines()]
    assert found == ["set/a/1.PNG", "set/b/2.png", "odd[1].png", "more/5.png", "set/b/2.png"]
    done = run_edgecloud("predict", model, f"{tmp_path}/s*/a/*", cwd="/")
    assert done.stdout.split()[0] == str(tmp_path / "set/a/1.PNG")
    monkeypatch.chdir(tmp_path)
    for nothing in ("nothing*.png", "set/**bad", "set/[", "nowhere/*.png", "x" * 300):
        refused = predict(model, nothing)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert f"{nothing} can't be read" in refused.stderr


def test_names_that_would_move_the_cursor(tmp_path: Path) -> None:
    matrix, bias = weights()
    model = write(tmp_path / "model.onnx", linear(matrix, bias), export_card(classes=("\x1b[2Jcat", "dog\n", "eel")))
    picture(tmp_path / "\x1b]0;title\x07\n.png")
    bad = os.fsencode(tmp_path) + b"/\xff\x1b.png"
    Path(os.fsdecode(bad)).write_text("no")
    done = run_edgecloud("predict", model, tmp_path / "\x1b]0;title\x07\n.png", os.fsdecode(bad))
    assert done.returncode == 1
    for text in (done.stdout, done.stderr):
        assert len(text.splitlines()) == 1
        assert text.rstrip("\n").isprintable()


def test_an_exports_folder(tmp_path: Path, predict: Predict) -> None:
    matrix, bias = weights()
    export = tmp_path / "run/results/export"
    export.mkdir(parents=True)
    write(export / "model.onnx")
    write(export / "model-int8.onnx", linear(-matrix, -bias), export_card("onnx-int8"))
    found = probabilities(picture(tmp_path / "a.png"))
    best, least = max(found, key=lambda name: found[name]), min(found, key=lambda name: found[name])
    for place, options, name in (
        (export, (), best), (export, ("--format", "onnx-int8"), least), (tmp_path / "run", (), best),
    ):  # fmt: skip
        done = predict(place, tmp_path / "a.png", *options)
        assert (done.exit_code, done.stdout.split()[1]) == (0, name)
    (export / "model.onnx").unlink()
    for place in (export, tmp_path / "run"):
        with pytest.raises(ModelFileError, match=f"{export} has no model.onnx, only model-int8.onnx: name one of them"):
            model_file(place)


def test_a_file_of_another_format(tmp_path: Path, model: Path) -> None:
    """Figures of the one model must not pass for the other's."""
    picture(tmp_path / "a.png")
    done = run_edgecloud("predict", model, tmp_path / "a.png", "--format", "onnx-int8")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{model} is of the format onnx, and --format says onnx-int8: name the other file" in done.stderr


@pytest.mark.parametrize("way", ["crop", "stretch"])
def test_other_sizes(tmp_path: Path, model: Path, way: str) -> None:
    """The same picture, larger and with something beside it that only the crop leaves out."""
    pixels = picture(tmp_path / "a.png")
    large = np.kron(pixels, np.ones((1, 20, 20), np.uint8))
    beside = np.concatenate([np.zeros_like(large), large, np.zeros_like(large)], axis=2)
    Image.fromarray(beside.transpose(1, 2, 0)).save(tmp_path / "b.png")
    done = run_edgecloud("predict", model, tmp_path / "b.png", "--fit", way, "-o", "json")
    top = {one["class"]: one["probability"] for one in json.loads(done.stdout)["predictions"][0]["top"]}
    assert (top == pytest.approx(probabilities(pixels), abs=0.05)) is (way == "crop")


def test_models_that_cannot_be_used(tmp_path: Path, predict: Predict) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "model.pt2").write_text("x")
    (tmp_path / "text.onnx").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04 and so on")
    write(tmp_path / "plain.onnx", linear(*weights()), None)
    for name, said in {
        "model.pt2": "needs torch", "weights.pt": "is no ONNX model but an archive",
        "text.onnx": "is no ONNX model", "folder": "a folder without model.onnx",
        "plain.onnx": "export it with edgecloud export", "missing.onnx": "No such file", "x" * 300: "name too long",
    }.items():  # fmt: skip
        done = predict(tmp_path / name, tmp_path / "a.png")
        assert (done.exit_code, done.stdout) == (2, "") and isinstance(done.exception, SystemExit)
        assert done.stderr.startswith("edgecloud: ")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "edgecloud.cli.main", "predict", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert sorted(imported & {"numpy", "PIL", "onnxruntime", "torch", "aiohttp", "pydantic"}) == []


def test_a_folder_without_images(tmp_path: Path, model: Path) -> None:
    """Nothing that was asked is no success."""
    (tmp_path / "empty").mkdir()
    done = run_edgecloud("predict", model, "empty", "-o", "json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "edgecloud: empty holds no image: name image files, or a folder of them\n"
