"""What nobody expects in a source's names, sizes and classes: used as it is, or refused in a sentence."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecloud_trainer.data import resized
from edgecloud_trainer.data.dataset import Contents, part_of
from edgecloud_trainer.data.resize import Size
from tests.unit.data.tool import data, prepared, snapshot, verified
from tests.unit.trainer.pictures import cifar, encoded, idx, pixels, tree, write

FILES = tree({"cat": 3, "dog": 3})
ONE = encoded(pixels(0))


def idx_of(labels: list[int], side: int = 2) -> dict[str, bytes]:
    images = np.zeros((len(labels), 1, side), np.uint8)
    return {"train-images-idx3-ubyte": idx(images), "train-labels-idx1-ubyte": idx(np.array(labels, np.uint8))}


def wide() -> dict[str, bytes]:
    file = io.BytesIO()
    Image.new("L", (70_000, 1)).save(file, "PNG")
    return {"cat/a.png": file.getvalue(), "dog/a.png": file.getvalue()}


def npz_with_classes(*names: str) -> bytes:
    file = io.BytesIO()
    np.savez(file, pixels=np.zeros((4, 8, 8), np.uint8), labels=np.array([0, 1, 0, 1]), classes=np.array(names))
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (idx_of([0, 0, 0]), "has 1 class(es): 2 to 100000 are needed"),
        (idx_of([0, 1], 70_000), "70000x1 pixels, more than 65536 on a side: scale"),
        (wide(), "cat/a.png has 70000x1 pixels, more than 65536 on a side: scale"),
        ({"data_batch_1.bin": cifar(9), "batches.meta.txt": b"a\n" * 10}, "has the class a twice: rename one"),
    ],
)
def test_folders_that_are_refused(files: dict[str, bytes], said: str, tmp_path: Path) -> None:
    write(tmp_path / "set", files)
    before = snapshot(tmp_path)
    done = data("prepare", tmp_path / "set", "--out", tmp_path / "a.images")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"edgecloud: {tmp_path / 'set'}") and said in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("names", [("cow", "cow"), ("caf\u00e9", "cafe\u0301")])
def test_numpy_classes_that_are_there_twice(names: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz_with_classes(*names))
    done = data("prepare", tmp_path / "a.npz", "--out", tmp_path / "a.images")
    assert done.exit_code == 2
    assert f"has the class {names[1]} twice: rename one" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://[x/y.tar", "is no URL"),
        ("http://[::1", "is no URL"),
        ("~nobody-is-called-so/set", "isn't there"),
        ("x" * 5000, "File name too long"),
        ("y/" + "x" * 5000, "File name too long"),
    ],
)
def test_sources_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    for command in (["prepare", text, "--out", tmp_path / "a.images"], ["verify", text]):
        done = data(*command)
        assert (done.exit_code, done.stdout) == (2, "")
        assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """Linux allows any bytes. The manifest, which is JSON, shows a mark in their place; the file keeps them."""
    root = Path(os.fsdecode(os.fsencode(tmp_path / "set-") + b"\xff"))
    write(root, FILES)
    for name, contents in ((b"\xfe.png", ONE), (b"\xfd.png", b"broken")):
        Path(os.fsdecode(os.fsencode(root / "cat") + b"/" + name)).write_bytes(contents)
    manifest = prepared(str(root), tmp_path / "a.images", "--skip-broken")
    assert manifest["source"]["location"] == f"{tmp_path}/set-?"
    assert [left["name"] for left in manifest["skipped"]] == ["cat/?.png"]
    assert manifest["splits"]["train"]["perClass"] == [4, 3]
    code, verdict = verified(str(root))
    assert (code, [left["name"] for left in verdict["broken"]]) == (1, ["cat/?.png"])
    code, verdict = verified(tmp_path / "a.images")
    assert code == 0
    assert data("stats", tmp_path / "a.images").exit_code == 0
    assert data("show", tmp_path / "a.images", "--out", tmp_path / "a.png").exit_code == 0


@pytest.mark.parametrize("name", ["$\\frac$", "a\nb", "[/x]", "$x", "x" * 200])
def test_names_that_mean_something_elsewhere(name: str, tmp_path: Path) -> None:
    """Not as a formula, as lines, or as markup."""
    write(tmp_path / name, FILES)
    prepared(tmp_path / name, tmp_path / "a.images")
    assert data("stats", tmp_path / "a.images").exit_code == 0
    assert data("show", tmp_path / "a.images", "--out", tmp_path / "a.png").exit_code == 0
    assert (tmp_path / "a-classes.png").exists()


def test_class_names_are_no_markup(tmp_path: Path) -> None:
    write(tmp_path / "set", tree({"[red]": 2, "[b]cow": 2}))
    prepared(tmp_path / "set", tmp_path / "a.images")
    printed = data("stats", tmp_path / "a.images").stdout
    assert "\n[b]cow " in printed and "\n[red] " in printed


def test_a_picture_does_not_take_the_place_of_what_it_shows(tmp_path: Path) -> None:
    prepared(write(tmp_path / "set", FILES), tmp_path / "a.images")
    prepared(tmp_path / "set", tmp_path / "b-classes.png")
    before = snapshot(tmp_path)
    for file, out in (("a.images", "a.images"), ("b-classes.png", "b.png")):
        done = data("show", tmp_path / file, "--out", tmp_path / out)
        assert done.exit_code == 2
        assert "would take the place of" in done.stderr
    assert snapshot(tmp_path) == before


def many_long_names(path: Path, count: int, length: int) -> None:
    """Members whose names are as long as an image may be, in an archive that is small."""
    with tarfile.open(path, "w:gz", compresslevel=1, format=tarfile.GNU_FORMAT) as archive:
        for name, contents in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
        for number in range(count):
            archive.addfile(tarfile.TarInfo(f"cat/{number:0{length}}.png"))


def test_long_names_are_not_kept(tmp_path: Path) -> None:
    many_long_names(tmp_path / "a.tar.gz", 20, 2 << 20)
    tracemalloc.start()
    try:
        manifest = prepared(tmp_path / "a.tar.gz", tmp_path / "a.images", "--skip-broken")
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert manifest["skippedCount"] == 20
    assert "has a name of 2097160 characters" in manifest["skipped"][0]["reason"]
    assert highest < 30 << 20


def test_scaling_down_takes_no_more_memory_than_a_few_images() -> None:
    """Of a set whose images come one by one: what is read at once goes by their own size."""
    large = np.zeros((600, 3, 256, 256), np.uint8)
    ids = np.random.default_rng(0).permutation(len(large))
    part = part_of(large, np.zeros(len(large), np.int64)).pick(ids)
    small = resized.resized(Contents(classes=("a", "b"), shape=(3, 256, 256), parts={"train": part}), Size(8, 8))
    tracemalloc.start()
    try:
        assert sum(len(chunk) for chunk in small.parts["train"].chunks()) == len(large)
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert highest < 48 << 20


def test_a_full_disk_is_not_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed IDX files are unpacked beside the target: if there is no room, that is what has to be said."""
    labels = list(np.arange(40) % 10)
    files = {f"{name}.gz": gzip.compress(data) for name, data in idx_of(labels, 60_000).items()}
    write(tmp_path / "set", files)
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        done = data("prepare", tmp_path / "set", "--out", tmp_path / "a.images")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.exit_code == 2
    assert f"{tmp_path / 'a.images'} can't be written (File too large)" in done.stderr


@pytest.mark.parametrize(
    "command", [["stats"], ["show", "--out", "a.png"], ["split", "--split", "test=0.5", "--out", "b"]]
)
def test_a_pipe_is_no_prepared_file(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens it waits until somebody writes."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    waits = [sys.executable, "-m", "edgecloud.cli.main", "data", command[0], "pipe", *command[1:]]
    done = subprocess.run(waits, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "edgecloud: pipe is no file: name one that edgecloud data prepare has written\n"
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
