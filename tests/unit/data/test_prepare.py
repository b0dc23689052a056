"""What is prepared from each kind of source, and the manifest that says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data import load
from edgecloud_trainer.data.imagefile import open_images
from edgecloud_trainer.data.resize import Size, fit, fit_pixels
from tests.unit.data.tool import data, prepared, verified
from tests.unit.trainer.pictures import cifar, encoded, idx_tree, pack, pixels, tree, write

FILES = tree({"train/cat": 6, "train/dog": 5, "test/cat": 2, "test/dog": 1})


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return path


def test_every_way_to_pack_a_folder_gives_the_same(tmp_path: Path) -> None:
    folder = prepared(write(tmp_path / "pets", FILES), tmp_path / "a.images")
    assert folder["name"] == "pets"
    for source in (
        pack(tmp_path / "pets.tar", FILES),
        pack(tmp_path / "pets.tgz", FILES, "w:gz"),
        pack(tmp_path / "pets.tar.bz2", dict(reversed(FILES.items())), "w:bz2"),
        pack(tmp_path / "pets.tar.xz", {f"./all/{name}": contents for name, contents in FILES.items()}, "w:xz"),
        zipped(tmp_path / "pets.zip", FILES),
    ):
        other = prepared(source, tmp_path / "b.images", "--force")
        assert (other["sha256"], other["name"]) == (folder["sha256"], "pets"), source


def test_the_manifest(tmp_path: Path) -> None:
    source = pack(tmp_path / "pets.tar", FILES)
    printed = prepared(source, tmp_path / "a.images", "--skip-broken", "--seed", "3")
    beside = json.loads((tmp_path / "a.manifest.json").read_text())
    assert {key: value for key, value in printed.items() if key not in ("file", "bytes")} == beside
    images = np.stack([pixels(number) for number in range(11)]) / 255
    assert beside["mean"] == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert beside["std"] == pytest.approx(images.std((0, 2, 3)).tolist())
    assert beside["source"]["bytes"] == source.stat().st_size
    for field, value in {
        "schemaVersion": 1,
        "edgecloud": metadata.version("edgecloud"),
        "name": "pets",
        "classes": ["cat", "dog"],
        "shape": [3, 10, 12],
        "splits": {"train": {"images": 11, "perClass": [6, 5]}, "test": {"images": 3, "perClass": [2, 1]}},
        "options": {"skipBroken": True, "followLinks": False, "split": {}, "seed": 3},
    }.items():
        assert beside[field] == value
    assert printed["bytes"] == (tmp_path / "a.images").stat().st_size
    stored = open_images(tmp_path / "a.images")
    assert list(stored.names["test"]) == ["test/cat/000.png", "test/cat/001.png", "test/dog/000.png"]
    assert np.array_equal(stored.splits["test"].pixels[2], pixels(13))


def test_the_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    root = write(tmp_path / "pets", FILES)
    prepared(root, tmp_path / "a.images")
    prepared(root, tmp_path / "b.images")
    assert (tmp_path / "a.images").read_bytes() == (tmp_path / "b.images").read_bytes()


def test_arrays(tmp_path: Path) -> None:
    images = np.stack([pixels(number, size=(4, 5)) for number in range(6)])
    labels = np.array([0, 1, 1, 0, 2, 2])
    first = prepared(npz(tmp_path / "a.npz", pixels=images, labels=labels, logits=np.zeros(3)), tmp_path / "a.images")
    assert (first["shape"], first["classes"]) == ([3, 4, 5], ["0", "1", "2"])
    last = npz(tmp_path / "b.npz", images=images.transpose(0, 2, 3, 1), y=labels[:, None].astype(np.uint8))
    assert prepared(last, tmp_path / "b.images")["sha256"] == first["sha256"]
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "pixels.npy", images)
    np.save(folder / "labels.npy", labels)
    assert prepared(folder, tmp_path / "c.images")["sha256"] == first["sha256"]


def test_arrays_with_splits_and_names(tmp_path: Path) -> None:
    grey = np.stack([pixels(number, channels=1)[0] for number in range(5)])
    arrays = {"x_train": grey[:3], "y_train": np.array([0, 1, 0]), "x_test": grey[3:], "y_test": np.array([1, 1])}
    arrays |= {"x_valid": grey[:1], "y_valid": np.array([1])}
    source = npz(tmp_path / "a.npz", **arrays, classes=np.array(["left", "right"]))
    manifest = prepared(source, tmp_path / "a.images")
    assert (manifest["shape"], manifest["classes"]) == ([1, 10, 12], ["left", "right"])
    counts = {split: one["perClass"] for split, one in manifest["splits"].items()}
    assert counts == {"train": [2, 1], "validation": [0, 1], "test": [0, 2]}


def test_idx_cifar_and_a_name(tmp_path: Path) -> None:
    for source, kind, count in (
        (write(tmp_path / "mnist", idx_tree(packed=True)), "idx", 20),
        (write(tmp_path / "cifar", {"data_batch_1.bin": cifar(13), "data_batch_2.bin": cifar(4, seed=1)}), "cifar", 17),
        ("digits", "named", 1797),
    ):
        manifest = prepared(source, tmp_path / f"{kind}.images")
        assert (manifest["source"]["kind"], manifest["splits"]["train"]["images"]) == (kind, count)


def test_a_prepared_file_is_a_source(tmp_path: Path) -> None:
    first = prepared(write(tmp_path / "pets", FILES), tmp_path / "a.images")
    again = prepared(tmp_path / "a.images", tmp_path / "b.images")
    assert again["sha256"] == first["sha256"]
    assert again["source"]["kind"] == "prepared"
    assert open_images(tmp_path / "b.images").names["test"][0] == "test/cat/000.png"


def test_unequal_sizes_are_scaled_and_cut(tmp_path: Path) -> None:
    files = {
        "cat/wide.png": encoded(np.repeat(np.arange(40, dtype=np.uint8), 3 * 20).reshape(1, 40, 3 * 20)[:, :20]),
        "cat/high.jpg": encoded(pixels(1, size=(50, 20)), "JPEG"),
        "dog/small.png": encoded(pixels(2, size=(3, 2))),
        "dog/right.png": encoded(pixels(3, size=(8, 6))),
    }
    manifest = prepared(write(tmp_path / "set", files), tmp_path / "a.images", "--resize", "6x8")
    assert (manifest["shape"], manifest["options"]["resize"]) == ([3, 8, 6], "6x8")
    stored = open_images(tmp_path / "a.images")
    assert np.array_equal(stored.splits["train"].pixels[2], pixels(3, size=(8, 6)))
    assert prepared(tmp_path / "set", tmp_path / "b.images", "--resize", "7")["shape"] == [3, 7, 7]
    assert prepared("digits", tmp_path / "c.images", "--resize", "16")["shape"] == [1, 16, 16]


@pytest.mark.parametrize("text", ["0", "-1", "a", "1x", "x1", "99999", "1x2x3", "", "1.5"])
def test_sizes_that_are_none(text: str, tmp_path: Path) -> None:
    done = data("prepare", "digits", "--out", tmp_path / "a.images", "--resize", text)
    assert done.exit_code == 2
    assert "is no size: write one side such as 224, or 320x240" in done.stderr


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([1, 3]),
    st.integers(0, 255),
)
def test_any_size_becomes_any_other(source: tuple[int, int], target: tuple[int, int], channels: int, grey: int) -> None:
    """An even image stays as even, whatever it is scaled to; the files' way is the arrays' way."""
    size = Size(*target)
    even = np.full((channels, *source), grey, np.uint8)
    scaled = fit_pixels(even, size)
    assert scaled.shape == (channels, size.height, size.width)
    assert (scaled == grey).all()
    some = pixels(grey, channels=3, size=source)
    image = Image.fromarray(np.ascontiguousarray(some.transpose(1, 2, 0)))
    assert np.array_equal(np.asarray(fit(image, size)).transpose(2, 0, 1), fit_pixels(some, size))


def test_the_middle_is_kept() -> None:
    stripes = np.zeros((1, 4, 12), np.uint8)
    stripes[:, :, 4:8] = 200
    assert (fit_pixels(stripes, Size(4, 4)) == 200).all()
    assert (fit_pixels(stripes.transpose(0, 2, 1), Size(4, 4)) == 200).all()


def test_splits_by_class_and_seed(tmp_path: Path) -> None:
    root = write(tmp_path / "set", tree({"cat": 40, "dog": 20}))
    split = ("--split", "validation=0.1,test=0.2", "--seed")
    first, again, other = (prepared(root, tmp_path / f"{n}.images", *split, s) for n, s in enumerate(("1", "1", "2")))
    assert {name: one["perClass"] for name, one in first["splits"].items()} == {
        "train": [28, 14], "validation": [4, 2], "test": [8, 4],
    }  # fmt: skip
    assert first["sha256"] == again["sha256"] != other["sha256"]
    assert verified(tmp_path / "0.images")[0] == 0
    done = data("prepare", write(tmp_path / "b", FILES), "--out", tmp_path / "b.images", "--split", "test=0.1")
    assert done.exit_code == 2 and "b has test images of its own: leave the part for test out" in done.stderr


@pytest.mark.parametrize("text", ["test", "test=0", "test=1", "train=0.1", "test=0.1,test=0.1", "test=1e-3"])
def test_parts_that_are_none(text: str, tmp_path: Path) -> None:
    assert data("prepare", "digits", "--out", tmp_path / "a.images", "--split", text).exit_code == 2


def test_force_replaces_a_file(tmp_path: Path) -> None:
    prepared("digits", tmp_path / "a.images")
    mapped = open_images(tmp_path / "a.images").splits["train"].pixels
    before = mapped.copy()
    assert prepared(write(tmp_path / "pets", FILES), tmp_path / "a.images", "--force")["name"] == "pets"
    assert json.loads((tmp_path / "a.manifest.json").read_text())["name"] == "pets"
    assert np.array_equal(mapped, before)  # who has the old one open keeps it


def test_a_job_takes_a_prepared_file_where_it_is(tmp_path: Path) -> None:
    manifest = prepared(write(tmp_path / "pets", FILES), tmp_path / "a.images")
    dataset = load(DataSpec(source=str(tmp_path / "a.images")), seed=0, cache=tmp_path / "cache")
    assert (dataset.digest, dataset.name, dataset.classes) == (manifest["sha256"], "pets", ("cat", "dog"))
    assert not (tmp_path / "cache").exists()
    assert load(DataSpec(source=str(tmp_path / "pets")), seed=0, cache=tmp_path / "cache").digest == dataset.digest
    halved = load(
        DataSpec(source=str(tmp_path / "a.images"), validation_fraction=0.5), seed=0, cache=tmp_path / "cache"
    )
    assert halved.validation is not None and len(halved.validation) == 6


def test_it_starts_quickly(tmp_path: Path) -> None:
    """Neither torch nor torchvision, matplotlib or fsspec for what doesn't need them."""
    write(tmp_path / "pets", FILES)
    code = (
        "import sys; from edgecloud.cli.main import cli\n"
        "try: cli(['data', *sys.argv[1:]])\n"
        "finally: print([name for name in ('torch', 'torchvision', 'matplotlib', 'fsspec') if name in sys.modules])"
    )
    for arguments in (["prepare", "pets", "--out", "a.images"], ["verify", "a.images"], ["stats", "a.images"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, env=os.environ,
            check=True,
        )  # fmt: skip
        assert done.stdout.endswith("[]\n")


def test_the_table(tmp_path: Path) -> None:
    done = data("prepare", write(tmp_path / "pets", FILES), "--out", tmp_path / "a.images")
    assert done.stderr == ""
    assert "images     train 11, test 3: 12 x 10, in colour\n" in done.stdout
    assert "classes    2: cat, dog\n" in done.stdout
    stats = data("stats", tmp_path / "a.images")
    assert stats.stdout.startswith(done.stdout)
    assert [line.split() for line in stats.stdout.splitlines()[-3:]] == [
        ["CLASS", "TRAIN", "TEST"], ["cat", "6", "2"], ["dog", "5", "1"],
    ]  # fmt: skip


def test_a_set_larger_than_memory_would_do(tmp_path: Path) -> None:
    """A file of many images passes through a process that may have far less."""
    side, count = 512, 800
    images = np.lib.format.open_memmap(
        tmp_path / "pixels.npy", "w+", np.uint8, (count, 3, side, side)
    )  # a file with holes: 630 MB that take no room
    images[::200] = 7
    images.flush()
    np.save(tmp_path / "labels.npy", np.arange(count) % 2)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from edgecloud_trainer.data.prepare import prepare, Wish\n"
        "from edgecloud_trainer.data.observer import Observer\n"
        "from edgecloud_trainer.data.resize import Size\n"
        "prepare(sys.argv[1], Path(sys.argv[2]), Wish(size=Size(32, 32)), Observer())\n"
        "print(int(next(l for l in open('/proc/self/status') if l.startswith('RssAnon')).split()[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, tmp_path.parent / "big.images"], capture_output=True, text=True,
        env=os.environ, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 250_000  # KiB, of 614,400 in the file


def test_help_of_each_part() -> None:
    for name in ("prepare", "verify", "stats", "split", "show"):
        done = data(name, "--help")
        assert done.exit_code == 0
        assert f"edgecloud data {name} " in done.stdout.replace("\n", " ")
        assert max(map(len, done.stdout.splitlines())) <= 100
