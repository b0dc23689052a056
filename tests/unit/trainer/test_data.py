"""Data sets from every kind of source, made of real files."""

from __future__ import annotations

import zipfile
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data import DataError, Dataset, load
from edgecloud_trainer.data import source as reading
from edgecloud_trainer.data.decode import decode
from edgecloud_trainer.data.named import _TORCHVISION, DIGITS, NAMES
from tests.unit.trainer.pictures import cifar, encoded, idx, idx_tree, pack, pixels, saved, tree, write, zipped

SPLIT = {"train/cat": 4, "train/dog": 3, "test/cat": 2, "test/dog": 1}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def from_source(source: Path, cache: Path, *, seed: int = 0, validation: float = 0.0) -> Dataset:
    return load(DataSpec(source=str(source), validation_fraction=validation), seed=seed, cache=cache)


def check(dataset: Dataset) -> None:
    """What holds for every data set."""
    for images in (dataset.train, dataset.validation, dataset.test):
        if images is None:
            continue
        assert images.pixels.dtype == np.uint8
        assert images.pixels.flags.c_contiguous
        assert not images.pixels.flags.writeable
        assert images.labels.dtype == np.int64
        assert not images.labels.flags.writeable
        assert len(images) == len(images.pixels) == len(images.labels) > 0
        assert images.pixels.shape[1:] == dataset.shape
        assert images.labels.min() >= 0
        assert images.labels.max() < len(dataset.classes)
    scaled = dataset.train.pixels.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, scaled.std((0, 2, 3)), rtol=1e-9)
    assert len(dataset.digest) == 64


def test_the_named_sets_are_those_that_the_api_lists() -> None:
    assert (DIGITS, *_TORCHVISION) == NAMES


def test_digits(cache: Path) -> None:
    dataset = load(DataSpec(name="digits"), seed=0, cache=cache)
    check(dataset)
    assert (dataset.name, dataset.shape, dataset.classes) == ("digits", (1, 8, 8), tuple("0123456789"))
    assert (len(dataset.train), len(dataset.test), dataset.validation) == (1438, 359, None)
    assert dataset.train.pixels.min() == 0
    assert dataset.train.pixels.max() == 255
    again, other = (load(DataSpec(name="digits"), seed=seed, cache=cache) for seed in (0, 1))
    assert again.digest == dataset.digest != other.digest


def test_digits_are_those_of_scikit_learn(cache: Path) -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    dataset = load(DataSpec(name="digits"), seed=0, cache=cache)
    ours = np.concatenate((dataset.train.pixels, dataset.test.pixels))
    expected = np.rint(theirs.images * (255 / 16)).astype(np.uint8)[:, None]
    counts = np.concatenate((dataset.train.labels, dataset.test.labels))
    assert np.bincount(counts).tolist() == np.bincount(theirs.target).tolist()
    assert sorted(map(bytes, ours)) == sorted(map(bytes, expected))


def test_digits_with_validation(cache: Path) -> None:
    dataset = load(DataSpec(name="digits", validation_fraction=0.25), seed=3, cache=cache)
    check(dataset)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1078, 360, 359)
    whole = load(DataSpec(name="digits"), seed=3, cache=cache)
    assert np.array_equal(dataset.test.pixels, whole.test.pixels)  # the test images are the same with and without
    rows = [images.pixels.reshape(len(images), -1) for images in (dataset.train, dataset.validation, dataset.test)]
    together = np.concatenate(rows)
    assert len(np.unique(together, axis=0)) == len(
        np.unique(np.concatenate((whole.train.pixels, whole.test.pixels)), axis=0)
    )


def test_a_folder_with_splits(tmp_path: Path, cache: Path) -> None:
    dataset = from_source(write(tmp_path / "pets", tree(SPLIT)), cache)
    check(dataset)
    assert (dataset.name, dataset.classes, dataset.shape) == ("pets", ("cat", "dog"), (3, 10, 12))
    assert dataset.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1]
    expected = np.stack([pixels(number) for number in range(10)])  # in the order they were made, which is by name
    assert np.array_equal(dataset.train.pixels, expected[:7])
    assert np.array_equal(dataset.test.pixels, expected[7:])


def renamed(files: dict[str, bytes], **names: str) -> dict[str, bytes]:
    """With other names for the folders at the top."""
    return {f"{names[name.split('/')[0]]}/{name.partition('/')[2]}": data for name, data in files.items()}


@pytest.mark.parametrize("around", ["", "pets/"])
@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", "Val", "Test"), ("training", "VALID", "testing"), ("TRAIN", "Validation", "test")],
)
def test_splits_by_other_names(around: str, train: str, val: str, test: str, tmp_path: Path, cache: Path) -> None:
    """Downloaded sets have them in capitals, or as training and testing."""
    files = tree({**SPLIT, "val/dog": 2})
    plain = from_source(write(tmp_path / "plain", files), cache)
    other = {around + name: data for name, data in renamed(files, train=train, val=val, test=test).items()}
    for source in (write(tmp_path / "a", other), pack(tmp_path / "a.tar", other), zipped(tmp_path / "a.zip", other)):
        assert from_source(source, cache).digest == plain.digest


@pytest.mark.parametrize(
    "classes", [("Test", "cat"), ("Train", "cat"), ("Testing", "Reading", "Training"), ("valid", "invalid")]
)
def test_classes_that_are_called_like_splits(classes: tuple[str, ...], tmp_path: Path, cache: Path) -> None:
    dataset = from_source(write(tmp_path / "set", tree(dict.fromkeys(classes, 6))), cache)
    assert dataset.classes == tuple(sorted(classes))


def test_a_class_with_folders_in_it_that_is_called_like_a_split(tmp_path: Path, cache: Path) -> None:
    files = tree({"Test/anna": 4, "Test/ben": 4, "Control/carl": 8})
    assert from_source(write(tmp_path / "set", files), cache).classes == ("Control", "Test")
    files = tree({"training/d1": 4, "racing/d1": 4, "resting/d1": 4, "resting/d2": 4})
    assert from_source(write(tmp_path / "dogs", files), cache).classes == ("racing", "resting", "training")


@pytest.mark.parametrize(
    "folders",
    [
        ("images",),
        ("a", "b"),
        ("left", "right"),
        ("day1", "day2"),
        ("2019", "2020"),
        ("images/front", "images/back"),
        ("images", "masks"),
        ("part one", "part two/1"),
    ],
)
def test_classes_whose_images_lie_in_several_folders(folders: tuple[str, ...], tmp_path: Path, cache: Path) -> None:
    files = tree({f"{name}/{folder}": 4 for name in ("cat", "dog", "training") for folder in folders})
    dataset = from_source(write(tmp_path / "set", files), cache)
    assert (dataset.classes, len(dataset.train) + len(dataset.test)) == (("cat", "dog", "training"), len(files))


@pytest.mark.parametrize(
    "folders",
    [
        {"apple": ("scab", "rust", "healthy"), "peach": ("spot", "healthy"), "pepper": ("spot", "healthy")},
        {"animal": ("cat", "dog", "plant"), "plant": ("oak", "tulip")},
        {"0": ("0", "1", "2"), "1": ("0", "1", "2"), "2": ("0", "1", "2")},
        {"test tube": ("cat 1", "cat 2"), "inner tube": ("cat 1", "cat 2"), "cat 1": ("x",)},
    ],
)
def test_classes_whose_folders_are_no_classes(folders: dict[str, tuple[str, ...]], tmp_path: Path, cache: Path) -> None:
    files = tree({f"{name}/{folder}": 4 for name, inner in folders.items() for folder in inner})
    assert from_source(write(tmp_path / "set", files), cache).classes == tuple(sorted(folders))


def test_a_folder_around_that_is_called_like_a_split(tmp_path: Path, cache: Path) -> None:
    for around in ("Test", "Training", "testing"):
        files = tree({f"{around}/cat": 5, f"{around}/dog": 6})
        assert from_source(write(tmp_path / around, files), cache).classes == ("cat", "dog")


@pytest.mark.parametrize("around", ["archive/chest/", "archive/chest/x ray/", "archive/1/2/chest/", "Train/x/"])
@pytest.mark.parametrize("splits", [True, False])
def test_several_folders_around(around: str, splits: bool, tmp_path: Path, cache: Path) -> None:
    """As archives come that hold an archive."""
    files = tree(SPLIT if splits else {"cat": 10, "dog": 10})
    plain = from_source(write(tmp_path / "plain", files), cache)
    other = {"archive/read.me": b"", **{around + name: data for name, data in files.items()}}
    if around.startswith("Train/"):
        del other["archive/read.me"]
    for source in (write(tmp_path / "a", other), pack(tmp_path / "a.tar", other)):
        assert from_source(source, cache).digest == plain.digest


def test_classes_that_unicode_spells_in_two_ways(tmp_path: Path, cache: Path) -> None:
    """A Mac's archive beside one from elsewhere."""
    files = tree({"train/caf\u00e9": 2, "train/tea": 2, "test/cafe\u0301": 1, "test/tea": 1})
    dataset = from_source(write(tmp_path / "set", files), cache)
    assert (dataset.classes, dataset.test.labels.tolist()) == (("caf\u00e9", "tea"), [0, 1])


def test_validation_images_of_its_own(tmp_path: Path, cache: Path) -> None:
    dataset = from_source(write(tmp_path / "pets", tree({**SPLIT, "val/dog": 2})), cache)
    check(dataset)
    assert dataset.validation is not None
    assert dataset.validation.labels.tolist() == [1, 1]


def test_a_folder_without_splits(tmp_path: Path, cache: Path) -> None:
    dataset = from_source(write(tmp_path / "pets", tree({"cat": 20, "dog": 10})), cache, validation=0.2)
    check(dataset)
    assert dataset.validation is not None
    assert np.bincount(dataset.test.labels).tolist() == [2, 1]
    assert np.bincount(dataset.validation.labels).tolist() == [3, 2]
    assert np.bincount(dataset.train.labels).tolist() == [15, 7]
    seen = np.concatenate([i.pixels for i in (dataset.train, dataset.validation, dataset.test)])
    assert {image.tobytes() for image in seen} == {pixels(number).tobytes() for number in range(30)}


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path, cache: Path) -> None:
    clutter = {
        "README.md": b"",
        "train/notes.txt": b"",
        ".git/HEAD": b"",
        ".git/logo.png": encoded(pixels(99)),
        "train/.ipynb_checkpoints/000-checkpoint.png": encoded(pixels(99)),
        "train/cat/.old/000.png": encoded(pixels(99)),
        "train/.Trash-1000/000.png": encoded(pixels(99)),
        "train/cat/.DS_Store": b"",
        "train/cat/Thumbs.db": b"",
        "train/cat/thumbs.db": b"",
        "train/cat/Desktop.ini": b"",
        "__MACOSX/train/cat/._000.png": b"",
        "train/cat/@eaDir/000.png/SYNOPHOTO_THUMB_M.png": encoded(pixels(99)),
        "@eaDir/000.png": encoded(pixels(99)),
    }
    files = tree(SPLIT)
    plain = from_source(write(tmp_path / "a", files), cache)
    cluttered = from_source(write(tmp_path / "b", {**files, **clutter}), cache)
    (tmp_path / "b" / "lost+found").mkdir()
    assert plain.digest == cluttered.digest
    for make in (pack, zipped):
        assert plain.digest == from_source(make(tmp_path / f"c.{make.__name__}", {**files, **clutter}), cache).digest


@pytest.mark.parametrize(
    ("mode", "name"), [("w", "pets.tar"), ("w:gz", "pets.tgz"), ("w:bz2", "pets.tar.bz2"), ("w:xz", "pets.tar.xz")]
)
def test_a_tar_file_is_the_same_as_its_folder(mode: str, name: str, tmp_path: Path, cache: Path) -> None:
    files = tree({**SPLIT, "val/cat": 1})
    folder = from_source(write(tmp_path / "pets", files), cache)
    backwards = dict(reversed(files.items()))
    tar = from_source(pack(tmp_path / name, backwards, mode), cache)
    check(tar)
    assert tar.name == "pets"
    assert tar.digest == folder.digest


@pytest.mark.parametrize("prefix", ["./", "pets/", "./pets/"])
def test_a_tar_file_with_a_folder_around(prefix: str, tmp_path: Path, cache: Path) -> None:
    files = tree({"cat": 12, "dog": 12})
    plain = from_source(pack(tmp_path / "a.tar", files), cache)
    around = {prefix + name: data for name, data in files.items()}
    wrapped = from_source(pack(tmp_path / "b.tar", {"README.txt": b"", **around, f"{prefix}labels.csv": b""}), cache)
    assert plain.digest == wrapped.digest


def test_a_long_name_and_a_deep_folder(tmp_path: Path, cache: Path) -> None:
    files = {f"{'a' * 90}/{'b' * 90}/{name}": data for name, data in tree({"x": 10}).items()} | tree({"cat": 10})
    dataset = from_source(pack(tmp_path / "a.tar", files), cache)
    assert dataset.classes == ("a" * 90, "cat")


def test_grey_images_stay_grey(tmp_path: Path, cache: Path) -> None:
    dataset = from_source(write(tmp_path / "grey", tree(SPLIT, channels=1)), cache)
    check(dataset)
    assert dataset.shape == (1, 10, 12)
    assert np.array_equal(dataset.train.pixels[0], pixels(0, channels=1))


@pytest.mark.parametrize("name", ["test/dog/zzz.png", "train/cat/!.png"])
def test_one_coloured_image_makes_the_set_coloured(name: str, tmp_path: Path, cache: Path) -> None:
    files = {**tree(SPLIT, channels=1), name: encoded(pixels(99))}
    dataset = from_source(write(tmp_path / "mixed", files), cache)
    check(dataset)
    assert dataset.shape == (3, 10, 12)
    images = [*dataset.train.pixels, *dataset.test.pixels]
    assert sum(np.array_equal(image, np.repeat(image[:1], 3, 0)) for image in images) == len(images) - 1
    assert any(np.array_equal(image, pixels(99)) for image in images)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)],
)
def test_modes_of_images(mode: str, channels: int) -> None:
    picture = Image.fromarray(pixels(0)[0]).convert(mode)
    assert decode("a.png", saved(picture)).shape == (channels, 10, 12)


def test_inks_become_colours() -> None:
    assert decode("a.jpg", saved(Image.new("CMYK", (4, 5), (255, 0, 0, 0)), "JPEG"))[:, 2, 2].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jpg", "JPEG"), (".jfif", "JPEG"), (".bmp", "BMP"), (".webp", "WEBP"), (".ppm", "PPM")]
)
def test_kinds_of_files(suffix: str, kind: str, tmp_path: Path, cache: Path) -> None:
    dataset = from_source(write(tmp_path / "a", tree(SPLIT, suffix=suffix.upper(), kind=kind)), cache)
    check(dataset)
    assert np.abs(dataset.train.pixels[0].astype(int) - pixels(0)).mean() < (60 if kind in ("JPEG", "WEBP") else 1e-9)


@pytest.mark.parametrize("packed", [False, True])
def test_idx(packed: bool, tmp_path: Path, cache: Path) -> None:
    files = idx_tree(packed=packed)
    dataset = from_source(write(tmp_path / "mnist", files), cache)
    check(dataset)
    assert (dataset.shape, len(dataset.train), len(dataset.test)) == ((1, 6, 7), 20, 5)
    assert dataset.classes == tuple("0123456789")
    assert dataset.digest == from_source(write(tmp_path / "other", idx_tree(packed=not packed)), cache).digest


def test_idx_without_test_images(tmp_path: Path, cache: Path) -> None:
    dataset = from_source(write(tmp_path / "mnist", idx_tree(train=40, test=0)), cache)
    assert (len(dataset.train), len(dataset.test)) == (36, 4)


def arrays(path: Path, **named: np.ndarray) -> Path:
    images = np.stack([pixels(number, channels=1)[0] for number in range(8)])
    with path.open("wb") as file:
        np.savez(file, **{"x_train": images, "y_train": np.arange(8) % 4, **named})
    return path


@pytest.mark.parametrize("split", ["dev", "eval"])
def test_arrays_of_other_names(split: str, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = np.array(["ant", "bee", "cat", "dog"])
    more = {f"x_{split}": np.zeros((2, 10, 12), np.uint8), f"y_{split}": np.arange(2), "train_ids": np.arange(8)}
    with caplog.at_level("INFO"):
        dataset = from_source(arrays(tmp_path / "a.npz", class_names=names, **more), cache)
    check(dataset)
    assert dataset.validation is not None
    assert (dataset.classes, len(dataset.validation)) == (tuple(names), 2)
    assert f"{tmp_path}/a.npz has arrays that are passed over: train_ids" in caplog.text


def test_labels_that_begin_at_1(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert len(from_source(arrays(tmp_path / "a.npz", y_train=1 + np.arange(8) % 4), cache).classes) == 5
    assert "no training images of 1 of the 5 classes, those with the labels 0: do its labels begin at 1?" in caplog.text


def test_cifar(tmp_path: Path, cache: Path) -> None:
    first, second, test = cifar(7, seed=1), cifar(6, seed=2), cifar(4, seed=3)
    files = {"data_batch_2.bin": second, "data_batch_1.bin": first, "test_batch.bin": test, "readme.html": b""}
    dataset = from_source(write(tmp_path / "cifar", files), cache)
    check(dataset)
    assert (len(dataset.train), len(dataset.test), dataset.shape) == (13, 4, (3, 32, 32))
    assert dataset.classes[:2] == ("airplane", "automobile")
    assert dataset.train.pixels.reshape(13, -1)[6].tobytes() == first[6 * 3073 + 1 : 7 * 3073]
    assert dataset.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5]


def test_cifar_names_its_classes(tmp_path: Path, cache: Path) -> None:
    files = {"data_batch_1.bin": cifar(40, classes=2), "batches.meta.txt": b"left\nright\n\n"}
    dataset = from_source(write(tmp_path / "cifar", files), cache)
    assert (dataset.classes, len(dataset.train), len(dataset.test)) == (("left", "right"), 36, 4)


def test_cifar_names_of_several_words(tmp_path: Path, cache: Path) -> None:
    """Taken for two classes, they would shift the names of all behind them."""
    for number, (text, classes) in enumerate(
        ((b"polar bear\r\ncat\n", ("polar bear", "cat")), (b"bear cat\n", ("bear", "cat")))
    ):
        files = {"data_batch_1.bin": cifar(40, classes=2), "batches.meta.txt": text}
        assert from_source(write(tmp_path / str(number), files), cache).classes == classes


def test_a_zip_file_whose_names_are_utf8_without_saying_so(tmp_path: Path, cache: Path) -> None:
    """macOS writes such, others names in the alphabet of MS-DOS."""
    for ascii, encoding in (("Haeuser", "utf-8"), ("H_user", "cp437")):
        archive = zipped(tmp_path / f"{encoding}.zip", tree({ascii: 6, "cat": 6}))
        archive.write_bytes(archive.read_bytes().replace(ascii.encode(), "Häuser".encode(encoding)))
        assert from_source(archive, cache).classes == ("Häuser", "cat")


def test_a_zip_file_from_an_older_windows(tmp_path: Path, cache: Path) -> None:
    """With \\ for /, in the names of folders, too."""
    files = tree({"train/cat": 6, "train/dog": 6})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, contents in {"train/": b"", "train/cat/": b"", **files}.items():
            member = zipfile.ZipInfo(name.replace("/", "\\"))
            member.create_system = 0
            archive.writestr(member, contents)
    assert from_source(tmp_path / "a.zip", cache).digest == from_source(pack(tmp_path / "a.tar", files), cache).digest


def test_torchvision_reads_what_lies_in_its_folder(cache: Path) -> None:
    """The real class on real files: MNIST's are taken as they are, whatever they hold."""
    write(cache / "torchvision" / "MNIST" / "raw", idx_tree())
    dataset = load(DataSpec(name="MNIST"), seed=0, cache=cache)
    check(dataset)
    assert (dataset.name, dataset.shape, len(dataset.train), len(dataset.test)) == ("mnist", (1, 6, 7), 20, 5)
    assert dataset.classes[3] == "3 - three"


def test_what_torchvision_was_killed_over_is_unpacked_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a file that is there for whole. What was put there without its archive stays."""
    from torchvision.datasets import MNIST

    packed, raw = idx_tree(packed=True), cache / "torchvision" / "MNIST" / "raw"
    monkeypatch.setattr(MNIST, "resources", [(name, md5(data).hexdigest()) for name, data in packed.items()])
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    write(raw, idx_tree())
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(torn := images.read_bytes()[:100])
    with pytest.raises(DataError, match=r"mnist isn't in .* Put .*train-images-idx3-ubyte\.gz and .* there"):
        load(DataSpec(name="mnist"), seed=0, cache=cache)
    assert images.read_bytes() == torn
    write(raw, packed)
    dataset = load(DataSpec(name="mnist"), seed=0, cache=cache)
    check(dataset)
    assert (len(dataset.train), len(dataset.test)) == (20, 5)


def test_a_constant_channel_has_deviation_1(tmp_path: Path, cache: Path) -> None:
    files = {
        "train-images-idx3-ubyte": idx(np.full((4, 2, 2), 51)),
        "train-labels-idx1-ubyte": idx(np.array([0, 1, 0, 1])),
    }
    dataset = from_source(write(tmp_path / "black", files), cache)
    assert dataset.mean == (0.2,)
    assert dataset.std == (1.0,)


def test_a_changed_folder_is_another_set(tmp_path: Path, cache: Path) -> None:
    root = write(tmp_path / "pets", tree(SPLIT))
    before = from_source(root, cache)
    (root / "train" / "cat" / "new.png").write_bytes(encoded(pixels(99)))
    after = from_source(root, cache)
    assert len(after.train) == len(before.train) + 1
    assert after.digest != before.digest


@pytest.mark.parametrize("where", ["{}", "{}.tar", "file://{}", "file://{}.tar"])
def test_what_was_read_otherwise_is_read_anew(
    where: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an earlier release: its Train/ and Test/ were two classes, and a cache lasts longer than a release."""
    pack(tmp_path / "pets.tar", tree(SPLIT))
    source = where.format(write(tmp_path / "pets", tree(SPLIT)))
    with monkeypatch.context() as then:
        then.setattr(reading, "READING", reading.READING - 1)
        before = load(DataSpec(source=source), seed=0, cache=cache)
    wrong = from_source(write(tmp_path / "other", tree({"train/a": 1, "train/b": 1, "test/a": 1})), tmp_path / "wrong")
    (earlier,), (other,) = cache.glob("*.images"), (tmp_path / "wrong").glob("*.images")
    earlier.write_bytes(other.read_bytes())
    after = load(DataSpec(source=source), seed=0, cache=cache)
    assert after.digest == before.digest != wrong.digest


def test_progress_is_told(tmp_path: Path, cache: Path) -> None:
    root, seen = write(tmp_path / "pets", tree({"cat": 300, "dog": 10})), []
    spec = DataSpec(source=str(root))
    load(spec, seed=0, cache=cache, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (310, 310)
    assert len(seen) > 2
    assert seen == sorted(seen)
    load(spec, seed=0, cache=cache, on_progress=lambda done, total: pytest.fail("it was read again"))
