"""Data that can't be used, each with the sentence that names the file and the remedy."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import resource
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecloud.api.trainer import DataSpec
from edgecloud.edge.images import MAX_FILE_BYTES
from edgecloud_trainer.data import DataError, load
from edgecloud_trainer.data.decode import decode
from tests.unit.trainer.pictures import cifar, encoded, idx, idx_tree, pack, pixels, saved, tree, write, zipped

GOOD = tree({"cat": 2, "dog": 2})


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG file that says it is so large."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(1000))))
    bodies = [(len(data), kind + data) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", size) + body + struct.pack(">I", zlib.crc32(body)) for size, body in bodies
    )


def with_files(**files: bytes) -> Callable[[Path], Path]:
    """A folder of good images and these; __ stands for / and _dot_ for a point."""
    named = {name.replace("__", "/").replace("_dot_", "."): data for name, data in files.items()}
    return lambda root: write(root / "data", {**GOOD, **named})


def only(files: dict[str, bytes]) -> Callable[[Path], Path]:
    return lambda root: write(root / "data", files)


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> Callable[[Path], Path]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return lambda root: pack(root / "data.tar", GOOD, extra=[member])


def cut_short(suffix: str, mode: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        path = pack(root / f"data.tar{suffix}", tree({"cat": 30, "dog": 30}), mode)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    return make


BITMAPS = tree({"cat": 2, "dog": 2}, suffix=".bmp", kind="BMP")


def one_byte_else(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Another byte among the pixels of an image that is packed as it is: it can be decoded nevertheless."""

    def damaged(root: Path) -> Path:
        path = make(root)
        packed = bytearray(path.read_bytes())
        packed[packed.index(BITMAPS["cat/001.bmp"][-64:])] ^= 1
        path.write_bytes(packed)
        return path

    return damaged


def gzipped_as_it_is(root: Path) -> Path:
    path = root / "data.tar.gz"
    path.write_bytes(gzip.compress(pack(root / "plain.tar", BITMAPS).read_bytes(), compresslevel=0))
    return path


def behind(suffix: str, mode: str, more: bytes | None = None) -> Callable[[Path], Path]:
    """Another archive behind the end of a good one, or other bytes."""

    def make(root: Path) -> Path:
        path = pack(root / f"data.tar{suffix}", GOOD, mode)
        other = pack(root / "other", tree({"cat": 2, "cow": 2}), mode).read_bytes() if more is None else more
        path.write_bytes(path.read_bytes() + other)
        return path

    return make


def header_bomb(root: Path) -> Path:
    """A tar file whose extended header says that it has a gigabyte, packed to a few kilobytes."""
    header = tarfile.TarInfo("bomb")
    header.type, header.size = tarfile.XHDTYPE, 2**30
    path = root / "data.tar.xz"
    with lzma.open(path, "wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(2**20))
    return path


def huge_file(root: Path) -> Path:
    path = write(root / "data", GOOD)
    with (path / "cat" / "huge.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    return path


def loop(root: Path) -> Path:
    path = write(root / "data", GOOD)
    (path / "cat" / "again").symlink_to(path)
    return path


def broken_link(root: Path) -> Path:
    path = write(root / "data", GOOD)
    (path / "cat" / "gone.png").symlink_to(root / "nowhere")
    return path


def pipe(root: Path) -> Path:
    path = write(root / "data", GOOD)
    os.mkfifo(path / "cat" / "pipe.png")
    return path


def only_a_pipe(root: Path) -> Path:
    os.mkfifo(root / "data.tar")
    return root / "data.tar"


def empty_class(root: Path) -> Path:
    path = write(root / "data", tree({"Train/cat": 1, "Train/dog": 1, "Test/cat": 1}))
    (path / "Train" / "cow").mkdir()
    return path


def not_utf8(root: Path) -> Path:
    path = write(root / "data", GOOD)
    os.mkdir(os.fsencode(path) + b"/\xff")  # noqa: PTH102
    (path / os.fsdecode(b"\xff") / "a.png").write_bytes(encoded(pixels(9)))
    return path


def replaced(files: dict[str, bytes], **others: bytes | None) -> Callable[[Path], Path]:
    """Files with some replaced, or left out; _ stands for -."""
    new = {**files, **{name.replace("_", "-"): data for name, data in others.items()}}
    return only({name: data for name, data in new.items() if data is not None})


IDX = idx_tree()
CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda root: root / "data", "): write the path as the worker sees it"),
    "empty folder": (only({"README": b""}), "holds no images: a folder of images for each class is needed"),
    "one class": (only(tree({"cat": 3})), "has 1 class folder(s) with images (cat): 2 to"),
    "image outside": (with_files(a_dot_png=b""), "a.png isn't in a class folder: move it into one, as CLASS/a.png"),
    "image outside in train": (
        only({**tree({"train/cat": 1, "train/dog": 1}), "train/a.png": b""}),
        "train/a.png isn't in a class folder",
    ),
    "no image": (with_files(cat__a_dot_txt=b""), "cat/a.txt isn't an image that can be read (.bmp, "),
    "a suffix and no name": (with_files(cat__png=b""), "cat/png isn't an image that can be read (.bmp, "),
    "other sizes": (
        with_files(dog__z_dot_png=encoded(pixels(0, size=(5, 6)))),
        "cat/000.png has 12x10 pixels and ROOT/data/dog/z.png has 6x5: all images need one size",
    ),
    "garbage": (with_files(cat__a_dot_jpg=b"garbage"), "cat/a.jpg isn't an image of a kind that is read (BMP, GIF"),
    "no bytes": (with_files(cat__a_dot_jpg=b""), "cat/a.jpg isn't an image of a kind that is read"),
    "cut short": (with_files(cat__a_dot_png=GOOD["cat/000.png"][:150]), "cat/a.png can't be decoded"),
    "jpeg cut short": (
        with_files(cat__a_dot_jpg=encoded(pixels(0), "JPEG")[:-150]),
        "cat/a.jpg can't be decoded (Truncated File Read",
    ),
    "16 bits": (
        with_files(cat__a_dot_png=saved(Image.fromarray(np.zeros((10, 12), np.uint16)))),
        "cat/a.png has more than 8 bits in a pixel's channel (I;16): convert it to 8 bits",
    ),
    "fractions": (
        with_files(cat__a_dot_tif=saved(Image.fromarray(np.zeros((10, 12), np.float32)), "TIFF")),
        "cat/a.tif has more than 8 bits in a pixel's channel (F)",
    ),
    "bomb": (with_files(cat__a_dot_png=png_header(100_000, 100_000)), "cat/a.png would be larger than"),
    "smaller bomb": (with_files(cat__a_dot_png=png_header(10_000, 10_000)), "cat/a.png would be larger than"),
    "PostScript": (
        with_files(cat__a_dot_png=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 10\n%%EOF\n"),
        "cat/a.png isn't an image of a kind that is read",
    ),
    "unknown class": (
        only(tree({"train/cat": 1, "train/dog": 1, "test/cow": 1})),
        "test has a class cow that train hasn't: the splits need the same classes",
    ),
    "stranger": (
        only(tree({"train/cat": 1, "train/dog": 1, "more/cat": 1})),
        "more/ stands beside train/, which may have test/ and val/ beside it: move it away",
    ),
    "test without train": (only(tree({"test/cat": 1, "test/dog": 1})), "has test/ and no train/: put the training"),
    "validation without train": (only(tree({"val/cat": 1, "test/dog": 1})), "/ and no train/: put the training"),
    "test without train, in capitals": (
        only(tree({"Test/cat": 1, "Valid/cat": 1})),
        "has Test/ and no train/: put the training images into train/CLASS/",
    ),
    "the same split twice": (
        only(tree({"train/cat": 1, "Train/dog": 1, "test/cat": 1})),
        "Train/ and train/ both stand for train: put them into one, or move one away",
    ),
    "the same split by two names": (
        only(tree({"Train/cat": 1, "Train/dog": 1, "test/cat": 1, "testing/cat": 1})),
        "test/ and testing/ both stand for test",
    ),
    "an empty class folder": (empty_class, "the class folder Train/cow holds no images that can be read"),
    "splits without classes": (
        only(tree({"Train": 1, "Test": 1})),
        "Test/000.png isn't in a class folder: move it into one, as CLASS/000.png",
    ),
    "stranger beside a capital": (
        only(tree({"Train/cat": 1, "Test/cat": 1, "more/cat": 1})),
        "more/ stands beside Train/, which may have test/ and val/ beside it: move it away",
    ),
    "stranger of files beside a capital": (
        only(tree({"Train/cat": 1, "Train/dog": 1, "Meta": 1})),
        "Meta/ stands beside Train/, which may have test/ and val/ beside it: move it away",
    ),
    "a class called train": (
        only(tree({"bus": 1, "train": 1, "truck": 1})),
        "train/ holds images and no folders, as bus/ beside it does: if train is a class, put all class folders into a "
        "folder train/, as train/train/; if not, move bus/ away",
    ),
    "a class called train, before its neighbours": (
        only(tree({"vehicles/test": 1, "vehicles/train": 1, "vehicles/truck": 1})),
        "train/ holds images and no folders, as truck/ beside it does",
    ),
    "one class, of which another is missing": (
        lambda root: (write(root / "data", tree({"set/x/a": 1, "set/x/b": 1})), (root / "data/set/y").mkdir())[0],
        "the class folder set/y holds no images that can be read: put some there, or remove it",
    ),
    "images within two folders": (
        only(tree({"set/x/a": 1, "set/x/b": 1, "set/x": 1})),
        "has 1 class folder(s) with images (x)",
    ),
    "only a test split within a folder": (only(tree({"set/Test/a": 1, "set/Test/b": 1})), "has Test/ and no train/"),
    "splits by names of their own": (
        only(tree({"seg_train/cat": 1, "seg_test/cat": 1})),
        "seg_test/, seg_train/ look like splits rather than classes: call them train/, test/ and val/",
    ),
    "splits by names of two words": (only(tree({"TrainSet": 1, "TestSet": 1})), "TestSet/, TrainSet/ look like splits"),
    "splits beside a folder that is none": (
        only(tree({"dataset/training_set/cat": 1, "dataset/test_set/cat": 1, "dataset/single_prediction": 1})),
        "test_set/, training_set/ look like splits rather than classes: call them train/, test/ and val/",
    ),
    "splits around folders of their own name": (
        only(tree({"seg_train/seg_train/sea": 1, "seg_test/seg_test/sea": 1, "seg_pred/seg_pred": 1})),
        "seg_test/, seg_train/ look like splits",
    ),
    "splits of a year": (
        only(tree(dict.fromkeys(("train2017", "val2017", "test2017", "unlabeled2017"), 1))),
        "test2017/, train2017/ look like splits",
    ),
    "splits of which one has no split's name": (
        only(tree({"Train/a": 1, "Train/b": 1, "Eval/a": 1, "Eval/b": 1})),
        "Eval/, Train/ look like splits",
    ),
    "splits and what is held out": (
        only(tree({"training_data/1": 1, "training_data/2": 1, "holdout_data/1": 1, "holdout_data/2": 1})),
        "holdout_data/, training_data/ look like splits",
    ),
    "a split beside the set": (
        only(tree({"rps/rock": 1, "rps/paper": 1, "rps-test-set/rock": 1, "rps-test-set/paper": 1})),
        "rps/, rps-test-set/ look like splits rather than classes",
    ),
    "a split before the set's name": (
        only(tree({f"{top}{name}": 1 for top in ("h-or-h/", "validation-h-or-h/") for name in ("horses", "humans")})),
        "h-or-h/, validation-h-or-h/ look like splits",
    ),
    "the same classes in several folders": (
        only(tree({f"{top}/{name}": 1 for top in ("color", "grayscale", "segmented") for name in ("Corn", "Rice")})),
        "color/, grayscale/, segmented/ hold the same folders (Corn/, Rice/), so that these look like the classes",
    ),
    "the same classes within folders of images": (
        only(tree({f"{top}/images/{name}": 1 for top in ("amazon", "webcam") for name in ("bike", "mug")})),
        "amazon/, webcam/ hold the same folders (bike/, mug/)",
    ),
    "a set within itself": (
        only(tree({f"flowers/{top}{name}": 1 for top in ("", "flowers/") for name in ("daisy", "rose")})),
        "flowers/ holds daisy/, rose/, which are called like the classes beside it: if it is the same set once more",
    ),
    "a class that is hidden": (only(tree({".net": 1, "java": 1, "python": 1})), ".net holds images and is hidden"),
    "a class that is hidden in a split": (
        only(tree({"set/train/.net": 1, "set/train/java": 1, "set/train/python": 1})),
        "set/train/.net holds images and is hidden, by the point: rename it, or move it away",
    ),
    "tar: a class that is hidden": (
        lambda root: pack(root / "data.tar", tree({"set/.net/a": 1, "set/java": 1, "set/python": 1})),
        "data.tar: set/.net holds images and is hidden",
    ),
    "classes that look the same": (
        only(tree({"caf\u00e9": 1, "cafe\u0301": 1, "tea": 1})),
        r"look the same and are spelt in different ways ('caf\xe9' and 'cafe\u0301'): put their images into one",
    ),
    "splits within classes": (
        only(tree({"cat/Train": 1, "cat/Test": 1, "dog/Train": 1, "dog/Test": 1})),
        "/Test/ and dog/Train/ are splits within a folder of one class: put train/ and test/ around the class folders",
    ),
    "too few": (only(tree({"cat": 1, "dog": 1})), "data has too few images (2) to hold some back for test: add some"),
    "too large a file": (huge_file, f"cat/huge.png has more than {MAX_FILE_BYTES} bytes: take it out"),
    "a link that leads up": (loop, "folders deep: is there a link that leads back up?"),
    "a link that leads nowhere": (broken_link, "cat/gone.png can't be read (No such file or directory)"),
    "a pipe among the images": (pipe, "cat/pipe.png is a device, a socket or a pipe: take it out"),
    "a pipe": (only_a_pipe, "data.tar is a device, a socket or a pipe: write the path of a folder or a tar file"),
    "class that isn't UTF-8": (not_utf8, "isn't UTF-8: rename it"),
    "tar: up": (tar_with("../evil.png"), "../evil.png leads out of the archive"),
    "tar: up within": (tar_with("cat/../../evil.png"), "leads out of the archive: pack it from within its folder"),
    "tar: absolute": (tar_with("/etc/evil.png"), "/etc/evil.png leads out of the archive"),
    "tar: backslash": (tar_with("cat\\evil.png"), "leads out of the archive"),
    "tar: link": (tar_with("cat/a.png", tarfile.SYMTYPE, "/etc/passwd"), "cat/a.png is a link: pack the files"),
    "tar: hard link": (tar_with("cat/a.png", tarfile.LNKTYPE, "cat/000.png"), "is a link: pack the files themselves"),
    "tar: device": (tar_with("cat/a.png", tarfile.CHRTYPE), "cat/a.png is a device or pipe"),
    "tar: pipe": (tar_with("cat/a.png", tarfile.FIFOTYPE), "cat/a.png is a device or pipe"),
    "tar: twice": (tar_with("cat/000.txt"), "cat/000.txt isn't an image"),
    "tar: huge member": (tar_with("cat/a.png", size=2**40), f"cat/a.png has {2**40} bytes, more than {MAX_FILE_BYTES}"),
    "tar: huge header": (header_bomb, f"has a header or member of {2**30} bytes"),
    "tar: member cut short": (tar_with("cat/a.png", size=10_000_000), "can't be read to its end"),
    "tar: cut short": (cut_short("", "w"), "data.tar has no end, or a broken header: is it whole? Copy it again"),
    "tar.gz: cut short": (cut_short(".gz", "w:gz"), "can't be read to its end"),
    "tar.bz2: cut short": (cut_short(".bz2", "w:bz2"), "can't be read to its end"),
    "tar.xz: cut short": (cut_short(".xz", "w:xz"), "can't be read to its end"),
    "tar: two": (behind("", "w"), "data.tar: something follows the archive's end, as when archives are put one"),
    "tar: bytes behind it": (behind("", "w", b"x"), "data.tar: something follows the archive's end"),
    "tar.gz: two": (behind(".gz", "w:gz"), "data.tar.gz: something follows the archive's end"),
    "tar.bz2: two": (behind(".bz2", "w:bz2"), "data.tar.bz2: something follows the archive's end"),
    "tar.xz: two": (behind(".xz", "w:xz"), "data.tar.xz: something follows the archive's end"),
    "tar.gz: a byte": (one_byte_else(gzipped_as_it_is), "data.tar.gz can't be read to its end (CRC check failed"),
    "zip: a byte": (
        one_byte_else(lambda root: zipped(root / "data.zip", BITMAPS)),
        "data.zip: cat/001.bmp can't be unpacked (Bad CRC-32 for file 'cat/001.bmp'): pack it again",
    ),
    "tar: empty": (lambda root: pack(root / "data.tar", {}), "data.tar holds no images"),
    "tar: no images": (lambda root: pack(root / "data.tar", {"a": b""}), "data.tar holds no images"),
    "a packed file that is no tar": (
        lambda root: write(root, {"data.gz": gzip.compress(b"text" * 1000)}) / "data.gz",
        "data.gz can't be read to its end",
    ),
    "a text": (lambda root: write(root, {"data.csv": b"a,b\n"}) / "data.csv", "data.csv is neither a folder nor a tar"),
    "an empty file": (lambda root: write(root, {"data.tar": b""}) / "data.tar", "is neither a folder nor a tar file"),
    "IDX: no labels": (replaced(IDX, train_labels_idx1_ubyte=None), "has train-images-idx3-ubyte without its counter"),
    "IDX: no training": (only(idx_tree(train=0)), "has no train-images-idx3-ubyte: put the training images there"),
    "IDX: another name": (
        only({**IDX, "cats-images-idx3-ubyte": b""}),
        "data/cats-images-idx3-ubyte: rename it: its name must start with train, t10k, test or validation",
    ),
    "IDX: too short": (
        replaced(IDX, t10k_images_idx3_ubyte=IDX["t10k-images-idx3-ubyte"][:-1]),
        "t10k-images-idx3-ubyte should have 210 bytes behind its header and has 209: copy it again",
    ),
    "IDX: too long": (
        replaced(IDX, train_labels_idx1_ubyte=IDX["train-labels-idx1-ubyte"] + b"x"),
        "train-labels-idx1-ubyte should have 20 bytes behind its header and has more",
    ),
    "IDX: other magic": (
        replaced(IDX, train_images_idx3_ubyte=b"\0\0\x0d\3" + bytes(100)),
        "train-images-idx3-ubyte isn't an IDX file of bytes with 3 dimension(s)",
    ),
    "IDX: huge sides": (
        replaced(IDX, train_images_idx3_ubyte=b"\0\0\x08\3" + b"\xff" * 12),
        f"train-images-idx3-ubyte would have {(2**32 - 1) ** 3} bytes",
    ),
    "IDX: counts": (replaced(IDX, train_labels_idx1_ubyte=idx(np.arange(3))), "20 images and ROOT/data/train-labels"),
    "IDX: other size": (
        replaced(IDX, t10k_images_idx3_ubyte=idx(np.zeros((5, 8, 8)))),
        "t10k-images-idx3-ubyte has images of 8x8 pixels, the others 7x6",
    ),
    "IDX: broken gz": (
        only({**{f"{name}.gz": gzip.compress(data)[:-9] for name, data in IDX.items()}}),
        "train-images-idx3-ubyte.gz can't be read",
    ),
    "CIFAR: a byte too many": (
        only({"data_batch_1.bin": cifar(3) + b"x"}),
        "has 9220 bytes, no multiple of a record's",
    ),
    "CIFAR: empty": (only({"data_batch_1.bin": b""}), "has 0 bytes, no multiple of a record's 3073"),
    "CIFAR: no training": (only({"test_batch.bin": cifar(3)}), "has test_batch.bin and no data_batch_*.bin"),
    "CIFAR: label": (only({"data_batch_1.bin": b"\x0b" + bytes(3072)}), "has labels up to 11 and only 10 classes"),
}


@pytest.mark.parametrize("case", CASES)
def test_sentence(case: str, tmp_path: Path) -> None:
    make, expected = CASES[case]
    source = make(tmp_path)
    with pytest.raises(DataError) as caught:
        load(DataSpec(source=str(source)), seed=0, cache=tmp_path / "cache")
    message = str(caught.value)
    assert expected.replace("ROOT", str(tmp_path)) in message
    assert str(tmp_path) in message or case == "too few"
    assert "\n" not in message
    left = sorted(path.suffix for path in (tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else []
    assert ".partial" not in left


def test_the_same_name_twice(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for _ in range(2):
            member = tarfile.TarInfo("cat/000.png")
            member.size = len(GOOD["cat/000.png"])
            archive.addfile(member, io.BytesIO(GOOD["cat/000.png"]))
    (tmp_path / "data.tar").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"holds cat/000\.png twice: pack it again"):
        load(DataSpec(source=str(tmp_path / "data.tar")), seed=0, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            DataSpec(name="cifar-1000"),
            "no data set is named cifar-1000. Did you mean cifar100? Known are digits, cifar10",
        ),
        (DataSpec(name="imagenet"), "no data set is named imagenet. Known are digits"),
        (DataSpec(), "trainer.data has neither name nor source: write one of them"),
        (DataSpec(source="http://127.0.0.1:9/a.tar"), "http://127.0.0.1:9/a.tar can't be reached, or breaks off ("),
        (DataSpec(source="gopher://a/b"), "gopher://a/b can't be opened (Protocol not known: gopher"),
        (DataSpec(source="zip://a::http://b/c"), "zip://a::http://b/c is a chain of URLs: give the one"),
        (DataSpec(source="blockcache::http://me:word@b/c?sig=1"), "blockcache::http://b/c is a chain of URLs"),
    ],
)
def test_bad_spec(spec: DataSpec, expected: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(spec, seed=0, cache=tmp_path)
    assert expected in str(caught.value)


def test_validation_twice(tmp_path: Path) -> None:
    root = write(tmp_path / "data", tree({"train/cat": 5, "train/dog": 5, "val/cat": 1}))
    with pytest.raises(DataError, match="data has validation images of its own: leave validationFraction out"):
        load(DataSpec(source=str(root), validation_fraction=0.1), seed=0, cache=tmp_path / "cache")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that isn't there stands for a machine without one."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DataError) as caught:
        load(DataSpec(name="cifar10"), seed=0, cache=tmp_path)
    message = str(caught.value)
    assert f"cifar10 isn't in {tmp_path}/torchvision and can't be downloaded" in message
    assert not caught.value.passing
    assert f"Put {tmp_path}/torchvision/cifar-10-python.tar.gz there, or name a folder in data.source" in message


def test_trouble_that_may_pass(tmp_path: Path) -> None:
    """Without a descriptor left; bad data, or a missing network, do not become better by themselves."""
    root = write(tmp_path / "data", tree({"cat": 10, "dog": 10}))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(DataError) as caught:
            load(DataSpec(source=str(root)), seed=0, cache=tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Too many open files" in str(caught.value)
    assert caught.value.passing
    with pytest.raises(DataError) as caught:
        load(DataSpec(source=str(tmp_path / "nowhere")), seed=0, cache=tmp_path / "cache")
    assert not caught.value.passing


def test_the_cache_is_no_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "data", tree({"cat": 10, "dog": 10}))
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match=r"cache can't be written \(.*\): give a folder to write to"):
        load(DataSpec(source=str(root)), seed=0, cache=tmp_path / "cache")


JPEG = encoded(pixels(0, size=(16, 16)), "JPEG")
PNG = encoded(pixels(0, size=(16, 16)))


@given(
    st.sampled_from([JPEG, PNG]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8), st.data()
)
@settings(max_examples=150, deadline=None)
def test_broken_images_are_decoded_or_refused(data: bytes, changes: list[tuple[int, int]], draw: st.DataObject) -> None:
    broken = bytearray(data)
    for position, value in changes:
        broken[position % len(broken)] = value
    del broken[draw.draw(st.integers(0, len(broken))) :]
    try:
        assert decode("a", bytes(broken)).dtype == np.uint8
    except DataError as error:
        assert str(error).startswith("a ")


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_broken_archives_are_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    path = pack(tmp_path / "data.tar", tree({"cat": 6, "dog": 6}))
    broken = bytearray(path.read_bytes())
    for position, value in changes:
        broken[position % len(broken)] = value
    path.write_bytes(broken)
    try:
        load(DataSpec(source=str(path)), seed=0, cache=tmp_path / "cache")
    except DataError as error:
        assert str(error)
