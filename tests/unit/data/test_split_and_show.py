"""Other splits of a prepared file, and pictures of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecloud_trainer.data.imagefile import open_images
from edgecloud_trainer.data.show import MAX_CLASSES, chosen, shown_classes
from tests.unit.data.tool import data, prepared, snapshot, verified
from tests.unit.trainer.pictures import encoded, pixels, tree, write

FILES = tree({"train/cat": 20, "train/dog": 10, "test/cat": 4, "test/dog": 2})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    prepared(write(tmp_path / "pets", {**FILES, "train/cat/z.png": b""}), tmp_path / "a.images", "--skip-broken")
    return tmp_path / "a.images"


def divided(file: Path, out: Path, *options: str) -> dict[str, object]:
    done = data("split", file, "--out", out, "-o", "json", *options)
    assert done.exit_code == 0, done.stderr
    manifest: dict[str, object] = json.loads(done.stdout)
    return manifest


def names(file: Path) -> dict[str, set[str]]:
    return {split: set(several) for split, several in open_images(file).names.items()}


def test_a_split_more(file: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    manifest = divided(file, tmp_path / "b.images", "--split", "validation=0.2")
    counts = {split: one["perClass"] for split, one in manifest["splits"].items()}  # type: ignore[attr-defined]
    assert counts == {"train": [16, 8], "validation": [4, 2], "test": [4, 2]}
    old, new = names(file), names(tmp_path / "b.images")
    assert new["test"] == old["test"] and new["train"] | new["validation"] == old["train"]
    stored = open_images(tmp_path / "b.images")
    for place, name in enumerate(stored.names["validation"]):
        number = list(FILES).index(name)
        assert np.array_equal(stored.splits["validation"].pixels[place], pixels(number))
    whole = json.loads((tmp_path / "a.manifest.json").read_text())
    assert manifest["derivedFrom"] == whole["sha256"]
    assert manifest["source"] == whole["source"]
    assert (manifest["skipped"], manifest["skippedCount"]) == (whole["skipped"], 1)
    assert verified(tmp_path / "b.images")[0] == 0
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before


def test_all_together_and_split_anew(file: Path, tmp_path: Path) -> None:
    options = ("--merge", "--split", "test=0.5", "--seed")
    first, again, other = (divided(file, tmp_path / f"{n}.images", *options, seed) for n, seed in enumerate("112"))
    assert first["sha256"] == again["sha256"] != other["sha256"]
    assert first["splits"]["test"]["perClass"] == [12, 6]  # type: ignore[index]
    found = names(tmp_path / "0.images")
    assert found["train"] | found["test"] == set(FILES) and not found["train"] & found["test"]
    assert found["test"] & {name for name in FILES if name.startswith("train/")}


def test_parts_are_of_all_training_images(tmp_path: Path) -> None:
    """Validation's, too, and not of what test leaves: the two are as large where they are asked for as large."""
    files = tree({"cat": 40, "dog": 20})
    whole = prepared(write(tmp_path / "pets", files), tmp_path / "a.images", "--split", "validation=0.3,test=0.3")
    counts = {split: one["perClass"] for split, one in whole["splits"].items()}
    assert counts == {"train": [16, 8], "validation": [12, 6], "test": [12, 6]}
    again = divided(tmp_path / "a.images", tmp_path / "b.images", "--merge", "--split", "validation=0.55,test=0.4")
    counts = {split: one["perClass"] for split, one in again["splits"].items()}  # type: ignore[attr-defined]
    assert counts == {"train": [2, 1], "validation": [22, 11], "test": [16, 8]}
    assert again["options"]["split"] == {"validation": 0.55, "test": 0.4}  # type: ignore[index]


def test_splits_that_cannot_be_made(file: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    for arguments, expected in (
        ((file, "--out", tmp_path / "b.images", "--split", "test=0.1"), "has test images of its own: leave the part"),
        ((file, "--out", file, "--split", "validation=0.1"), "a.images is there already: pass --force"),
        ((tmp_path / "no", "--out", tmp_path / "b.images", "--split", "test=0.1"), "no can't be read (No such file"),
        ((file, "--out", tmp_path / "b.images"), "Missing option '--split'"),
        (
            (file, "--out", tmp_path / "b.images", "--merge", "--split", "test=0.6,validation=0.4"),
            "validation=0.4 and test=0.6 leave no images to train on: write parts whose sum is below 1",
        ),
    ):
        done = data("split", *arguments)
        assert done.exit_code == 2
        assert expected in done.stderr, done.stderr
    assert snapshot(tmp_path) == before


def test_a_file_can_be_split_onto_itself(file: Path) -> None:
    assert divided(file, file, "--split", "validation=0.5", "--force")["splits"]["train"]["images"] == 15  # type: ignore[index]
    assert verified(file)[0] == 0


# -- pictures


def test_pictures(file: Path, tmp_path: Path) -> None:
    done = data("show", file, "--out", tmp_path / "a.png", "-n", "5")
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    with Image.open(tmp_path / "a.png") as sheet, Image.open(tmp_path / "a-classes.png") as histogram:
        assert sheet.size[0] > 5 * 96 and sheet.size[1] > 2 * 96
        assert np.asarray(sheet).std() > 10
        assert histogram.size[0] > 300 and np.asarray(histogram).std() > 10
    first = (tmp_path / "a.png").read_bytes()
    data("show", file, "--out", tmp_path / "b.png", "-n", "5")
    assert (tmp_path / "b.png").read_bytes() == first
    data("show", file, "--out", tmp_path / "c.png", "-n", "5", "--seed", "1")
    data("show", file, "--out", tmp_path / "d.png", "-n", "5", "--split", "test")
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in "acd"}) == 3


def test_a_sheet_shows_the_images_of_the_class_in_its_row(tmp_path: Path) -> None:
    """Each class one colour: every image in a row has it."""
    files = {
        f"{name}/{number}.png": encoded(np.full((3, 8, 8), 0, np.uint8) + np.array(colour, np.uint8).reshape(3, 1, 1))
        for name, colour in {"a": (200, 0, 0), "b": (0, 200, 0), "c": (0, 0, 200)}.items()
        for number in range(3 if name != "c" else 1)
    }
    prepared(write(tmp_path / "set", files), tmp_path / "a.images")
    assert data("show", tmp_path / "a.images", "--out", tmp_path / "a.png", "-n", "3").exit_code == 0
    with Image.open(tmp_path / "a.png") as sheet:
        seen = np.asarray(sheet)
    for channel, images in ((0, 3), (1, 3), (2, 1)):
        pure = (seen[..., channel] == 200) & (seen.sum(-1) == 200)
        rows = np.flatnonzero(pure.any(1))
        assert len(rows) == 96 == rows[-1] - rows[0] + 1
        assert pure.sum() == images * 96 * 96


def test_what_cannot_be_shown(file: Path, tmp_path: Path) -> None:
    done = data("show", file, "--out", tmp_path / "a.png", "--split", "validation")
    assert done.exit_code == 2 and "has no validation images: it has train, test" in done.stderr
    done = data("show", file, "--out", tmp_path / "no" / "a.png")
    assert done.exit_code == 2 and "a.png can't be written (No such file" in done.stderr
    done = data("show", file, "--out", tmp_path / ("x" * 300))
    assert done.exit_code == 2 and "can't be written (File name too long): name another place" in done.stderr


def test_many_classes_and_strange_names(tmp_path: Path) -> None:
    names = [f"{number:03} $x_{number}^2$ {'long ' * 10}" for number in range(70)]
    one = encoded(pixels(0, size=(4, 4)))
    prepared(write(tmp_path / "set", {f"{name}/a.png": one for name in names}), tmp_path / "a.images")
    assert data("show", tmp_path / "a.images", "--out", tmp_path / "a.png", "-n", "1").exit_code == 0
    few = write(tmp_path / "few", {f"{name}/a.png": one for name in names[:5]})
    prepared(few, tmp_path / "b.images")
    assert data("show", tmp_path / "b.images", "--out", tmp_path / "b.png", "-n", "2").exit_code == 0


def test_choices() -> None:
    labels = np.array([0, 1] * 50)
    ids = chosen(labels, 1, 10, seed=3)
    assert len(set(ids.tolist())) == 10 and (labels[ids] == 1).all() and ids.tolist() == sorted(ids.tolist())
    assert chosen(labels, 1, 10, seed=4).tolist() != ids.tolist()
    assert len(chosen(labels, 1, 90, seed=3)) == 50
    assert shown_classes(5) == [0, 1, 2, 3, 4]
    many = shown_classes(1000)
    assert len(set(many)) == MAX_CLASSES and many[0] == 0 and many[-1] < 1000
