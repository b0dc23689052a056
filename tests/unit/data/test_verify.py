"""Damage, broken files and duplicates are found, and told."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data import DataError, Pixels, load
from edgecloud_trainer.data.duplicates import Fingerprints, repeats
from tests.unit.data.tool import data, prepared, verified
from tests.unit.trainer.pictures import encoded, idx_tree, pixels, tree, write

FILES = tree({"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2})


def image(seed: int) -> bytes:
    return encoded(pixels(1000 + seed))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    prepared(write(folder / "set", FILES), folder / "a.images")
    return (folder / "a.images").read_bytes()


def test_a_file_that_is_right(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.images").write_bytes(good)
    code, verdict = verified(tmp_path / "a.images", "--strict")
    assert (code, verdict["ok"], verdict["problems"], verdict["images"]) == (0, True, [], 12)
    assert verdict["splits"] == {"train": 8, "test": 4}
    done = data("verify", tmp_path / "a.images")
    assert done.stdout.splitlines() == ["12 images read (train 8, test 4)", "ok"]


def test_splits_in_capitals(tmp_path: Path) -> None:
    files = {name.capitalize(): contents for name, contents in FILES.items()}
    assert verified(write(tmp_path / "set", files))[1]["splits"] == {"train": 8, "test": 4}
    assert prepared(tmp_path / "set", tmp_path / "a.images")["classes"] == ["cat", "dog"]


@given(st.integers(0, 10**9), st.integers(1, 255))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_found(good: bytes, tmp_path: Path, position: int, other: int) -> None:
    damaged = bytearray(good)
    damaged[position % len(good)] ^= other
    (tmp_path / "a.images").write_bytes(damaged)
    done = data("verify", tmp_path / "a.images", "-o", "json")
    if position % len(good) < 16:  # no prepared file any more, nor any other source
        assert done.exit_code == 2
    else:
        assert done.exit_code == 1, position % len(good)
        assert json.loads(done.stdout)["problems"]


@given(st.integers(16, 10**9))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_short_is_found(good: bytes, tmp_path: Path, length: int) -> None:
    (tmp_path / "a.images").write_bytes(good[: 16 + length % (len(good) - 16)])
    assert verified(tmp_path / "a.images")[0] == 1
    with pytest.raises(DataError, match="prepare it again, or copy it again"):
        load(DataSpec(source=str(tmp_path / "a.images")), seed=0, cache=tmp_path / "cache")


def with_header(good: bytes, **changes: object) -> bytes:
    """The file with another manifest, and a checksum that goes with it; a value of None takes a field away."""
    magic, at, length, _ = struct.unpack_from("<16sQQL", good)
    header = json.loads(good[at : at + length])
    for field, value in changes.items():
        place, _, name = field.rpartition("__")
        target = header
        for part in place.split("__") if place else ():
            target = target[part]
        target[name] = value
    text = json.dumps({key: value for key, value in header.items() if value is not None}).encode()
    return struct.pack("<16sQQL", magic, at, len(text), zlib.crc32(text)) + good[36:at] + text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"manifest__mean": [0.5, 0.5, 0.5]}, "has other statistics than its manifest says"),
        ({"manifest__sha256": "0" * 64}, "holds other images or labels than it was written with"),
        ({"manifest__classes": ["dog", "cat"]}, "holds other images or labels"),
        ({"manifest__namesSha256": "0" * 64}, "holds other names"),
        ({"manifest__splits__train__perClass": [5, 3]}, "has other numbers of images per class in train"),
        ({"manifest__splits__train__perClass": [5, 4]}, "the counts of train don't add up"),
        ({"manifest__splits__train__images": 2**47}, "don't add up"),
        ({"manifest__shape": [3, 60000, 60000]}, "its arrays overlap, or lie outside of it"),
        ({"manifest__shape": [3, -1, 4]}, "a header that can't be used (manifest.shape.1"),
        ({"arrays__train__pixels": 2**40}, "its arrays overlap, or lie outside of it"),
        ({"arrays__train__pixels": 0}, "its arrays overlap"),
        ({"arrays__train__samples": 7}, "a header that contradicts its manifest"),
        ({"arrays__train__labels": "x"}, "a header that can't be used (arrays.train.labels"),
        ({"format": 3}, "a header that can't be used (format"),
        ({"manifest": None}, "a header that can't be used (manifest"),
        ({"manifest__std": [0, 0, 0]}, "a header that can't be used (manifest.std.0"),
    ],
)
def test_a_header_that_lies(changes: dict[str, object], expected: str, good: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.images").write_bytes(with_header(good, **changes))
    code, verdict = verified(tmp_path / "a.images")
    assert code == 1
    assert any(expected in problem for problem in verdict["problems"]), verdict["problems"]
    printed = data("verify", tmp_path / "a.images").stdout
    assert f"damaged: {tmp_path}/a.images" in printed and printed.endswith("not ok\n")


def test_something_else_is_no_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "a.images").write_bytes(b"text" * 1000)
    done = data("verify", tmp_path / "a.images")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is neither a folder nor a tar file" in done.stderr
    divide = ("split", "--out", tmp_path / "b", "--split", "test=0.1")
    for command in (("stats",), ("show", "--out", tmp_path / "a.png"), divide):
        done = data(command[0], tmp_path / "a.images", *command[1:])
        assert done.exit_code == 2
        assert "a.images is no prepared file: prepare it again, or copy it again" in done.stderr


REPEATED = {
    **FILES,
    "train/cat/again.png": FILES["train/cat/000.png"],
    "train/cat/once-more.png": FILES["train/cat/000.png"],
    "train/dog/is-a-cat.png": FILES["train/cat/001.png"],
    "test/dog/leak.png": FILES["train/dog/002.png"],
    "test/cat/leak.png": FILES["train/dog/002.png"],
    "val/cat/leak.png": FILES["test/cat/000.png"],
}


@pytest.mark.parametrize("as_file", [True, False])
def test_duplicates(as_file: bool, tmp_path: Path) -> None:
    source = write(tmp_path / "set", REPEATED)
    if as_file:
        prepared(source, tmp_path / "a.images")
        source = tmp_path / "a.images"
    code, verdict = verified(source)
    assert code == 1 and not verdict["ok"]
    found = verdict["duplicates"]
    assert found["within"] == {"train": 3, "validation": 0, "test": 1}
    assert found["leaked"] == {
        "train": {"validation": 0, "test": 1},
        "validation": {"train": 0, "test": 1},
        "test": {"train": 2, "validation": 1},
    }
    assert found["conflicting"] == 1 + 2
    names = [{spot["name"] for spot in group["spots"]} for group in found["groups"]]
    assert names[:2] == [
        {"train/dog/002.png", "test/dog/leak.png", "test/cat/leak.png"},
        {"val/cat/leak.png", "test/cat/000.png"},
    ] or names[1::-1] == [
        {"train/dog/002.png", "test/dog/leak.png", "test/cat/leak.png"},
        {"val/cat/leak.png", "test/cat/000.png"},
    ]
    assert {"train/cat/001.png", "train/dog/is-a-cat.png"} in names
    assert {"train/cat/000.png", "train/cat/again.png", "train/cat/once-more.png"} in names
    printed = data("verify", source).stdout
    assert "2 test images are in train, too\n" in printed
    assert "3 train images are there before in train\n" in printed
    assert "in two splits: train/dog/002.png (dog) = test/cat/leak.png (cat) = test/dog/leak.png (dog)\n" in printed
    assert "two labels: train/cat/001.png (cat) = train/dog/is-a-cat.png (dog)\n" in printed


def test_duplicates_within_a_split_are_told_and_no_more(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {**FILES, "train/cat/again.png": FILES["train/cat/000.png"]})
    prepared(root, tmp_path / "a.images")
    for source in (root, tmp_path / "a.images"):
        assert verified(source)[0] == 0
        assert verified(source, "--strict")[0] == 1
        done = data("verify", source)
        assert "twice: train/cat/000.png (cat) = train/cat/again.png (cat)\n" in done.stdout


def test_images_without_names_have_places(tmp_path: Path) -> None:
    files = idx_tree(train=12, test=3)
    images = bytearray(files["t10k-images-idx3-ubyte"])
    images[16:58] = files["train-images-idx3-ubyte"][16 + 5 * 42 : 16 + 6 * 42]
    root = write(tmp_path / "set", {**files, "t10k-images-idx3-ubyte": bytes(images)})
    code, verdict = verified(root)
    assert code == 1
    (group,) = verdict["duplicates"]["groups"]
    assert group["spots"] == [
        {"split": "train", "position": 5, "label": "5"}, {"split": "test", "position": 0, "label": "0"},
    ]  # fmt: skip
    assert "in two splits: train[5] (5) = test[0] (0)\n" in data("verify", root).stdout


def test_several_sizes_are_told(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {**FILES, "train/cat/b.png": encoded(pixels(7, size=(5, 6)))})
    code, verdict = verified(root)
    assert code == 0
    assert verdict["sizes"] == [{"width": 12, "height": 10, "images": 12}, {"width": 6, "height": 5, "images": 1}]
    assert "images of several sizes: 12x10 (12), 6x5 (1): prepare with --resize" in data("verify", root).stdout


def test_names_are_harmless_to_a_terminal(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {**FILES, "train/cat/\x1b[2J\n.png": b"", "train/cat/\x1b]0;a.png": image(1)})
    write(root, {"test/cat/\x1b]0;b.png": image(1)})
    for done in (data("verify", root), data("prepare", root, "--out", tmp_path / "a.images")):
        assert done.exit_code in (1, 2)
        assert "\x1b" not in done.stdout + done.stderr
        assert "\\x1b" in done.stdout + done.stderr


# -- duplicates, as a computation


Some = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


@given(Some, st.integers(1, 5))
def test_repeats_are_what_counting_says(images: list[tuple[int, int, int]], most: int) -> None:
    """Each image a value, a split and a label: compared with the plainest way to count."""
    fingerprints = Fingerprints()
    for value, _, _ in images:
        fingerprints.add(np.full((1, 1, 2, 2), value, np.uint8))
    splits, labels = (np.array([one[place] for one in images]) for place in (1, 2))
    found = repeats(fingerprints.equal(), splits, labels, most=most)
    count = int(splits.max()) + 1
    values = {value for value, _, _ in images}
    of = {value: [place for place, one in enumerate(images) if one[0] == value] for value in values}
    for split in range(count):
        inside = [one for one in images if one[1] == split]
        assert found.within[split] == len(inside) - len({one[0] for one in inside})
        for other in range(count):
            there = {one[0] for one in images if one[1] == other}
            expected = sum(one[0] in there for one in inside) if other != split else 0
            assert found.between[split, other] == expected
    again = {value: places for value, places in of.items() if len(places) > 1}
    conflicting = [places for places in again.values() if len({images[place][2] for place in places}) > 1]
    assert found.conflicting == sum(len(places) - 1 for places in conflicting)
    assert len(found.groups) == min(most, len(again))
    for group in found.groups:
        assert group.tolist() == again[images[group[0]][0]]
    across = [len({images[place][1] for place in group}) > 1 for group in found.groups]
    assert across == sorted(across, reverse=True)


def test_a_shape_is_part_of_an_image() -> None:
    fingerprints = Fingerprints()
    zeros: Pixels = np.zeros((1, 1, 2, 8), np.uint8)
    fingerprints.add(zeros)
    fingerprints.add(zeros.reshape(1, 1, 4, 4))
    assert list(fingerprints.equal()) == []


def test_a_class_of_which_all_is_broken(tmp_path: Path) -> None:
    """It makes the set unusable, and is no reason to hide which files are broken."""
    write(tmp_path / "set", tree({"cat": 3}) | {"dog/1.png": b"x", "dog/2.png": b"y"})
    code, verdict = verified(tmp_path / "set")
    assert (code, verdict["images"]) == (1, 3)
    assert [left["name"] for left in verdict["broken"]] == ["dog/1.png", "dog/2.png"]
    assert "the class folder dog holds no images that can be read" in verdict["problems"][0]
    done = data("verify", tmp_path / "set")
    assert done.stdout.startswith(f"{tmp_path / 'set'}: the class folder dog holds no images")
    assert done.stdout.endswith("not ok\n")
