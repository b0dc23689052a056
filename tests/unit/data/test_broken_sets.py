"""Data sets that can't be prepared: a sentence, exit code 2, and not a file more or less than before."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecloud.edge.images import MAX_FILE_BYTES
from tests.unit.data.tool import data, prepared, snapshot, verified
from tests.unit.trainer.pictures import cifar, encoded, idx, idx_tree, pack, pixels, saved, tree, write

GOOD = tree({"cat": 3, "dog": 3})
SPLIT = tree({"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/dog": 1})
IDX = idx_tree()
Make = Callable[[Path], object]


def folder(change: Callable[[Path], object] | None = None, **files: bytes) -> Make:
    """Good images, some files (__ stands for /, _dot_ for a point), and a change."""

    def make(root: Path) -> None:
        named = {name.replace("__", "/").replace("_dot_", "."): data for name, data in files.items()}
        write(root, {**GOOD, **named})
        if change is not None:
            change(root)

    return make


def only(files: dict[str, bytes]) -> Make:
    return lambda root: write(root, files)


def bomb(side: int) -> bytes:
    """A PNG file of some bytes that would be so many pixels wide and high."""
    body = zlib.compress(bytes(1000))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", body))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def npy(shape: str, descr: str = "'|u1'", contents: bytes = b"") -> bytes:
    """An array whose header says anything."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + contents


def npz_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(f"{name}.npy", contents)
    return buffer.getvalue()


def tar(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> Make:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return lambda root: pack(root / "a.tar", GOOD, extra=[member])


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> Make:
    def make(root: Path) -> None:
        with zipfile.ZipFile(root / "a.zip", "w") as archive:
            for name, contents in (*GOOD.items(), *members):
                archive.writestr(name, contents)

    return make


def link_in_zip() -> Make:
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = 0o120777 << 16
    return zipped((link, b"/etc/passwd"))


def from_windows(name: str) -> Make:
    member = zipfile.ZipInfo(name)
    member.create_system = 0
    return zipped((member, b""))


def cut(name: str, mode: str) -> Make:
    def make(root: Path) -> None:
        path = pack(root / name, tree({"cat": 30, "dog": 30}), mode)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


def twice(root: Path) -> None:
    with tarfile.open(root / "a.tar", "w") as archive:
        for name in (*GOOD, "cat/000.png"):
            member = tarfile.TarInfo(name)
            member.size = len(GOOD[name])
            archive.addfile(member, io.BytesIO(GOOD[name]))


def deep(root: Path) -> None:
    path = root / "cat" / "/".join("x" * 20)
    path.mkdir(parents=True)
    (path / "a.png").write_bytes(GOOD["cat/000.png"])


def link_out(root: Path) -> None:
    outside = root.parent / "outside.png"
    outside.write_bytes(encoded(pixels(99)))
    (root / "cat" / "link.png").symlink_to(outside)


def folder_out(root: Path) -> None:
    write(root.parent / "outside", {"a.png": encoded(pixels(99))})
    (root / "cow").symlink_to(root.parent / "outside")


def huge(root: Path) -> None:
    with (root / "cat" / "huge.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)


PAIR = {"pixels": np.zeros((2, 4, 4), np.uint8), "labels": np.arange(2)}
CASES: dict[str, tuple[Make, str, str]] = {
    # name: (what makes it, the source below the folder, what is said)
    "nothing there": (lambda root: None, "no/such", "): check how it is written"),
    "empty folder": (lambda root: None, "", "holds no images: a folder of images for each class is needed"),
    "one class": (only(tree({"cat": 3})), "", "has 1 class folder(s) with images (cat)"),
    "empty class": (folder(lambda root: (root / "cow").mkdir()), "", "the class folder cow holds no images"),
    "empty class in train": (
        lambda root: (write(root, SPLIT), (root / "train" / "cow").mkdir()),
        "",
        "the class folder train/cow holds no images that can be read: put some there, or remove it",
    ),
    "class of other files": (folder(cow__a_dot_txt=b"moo"), "", "cow/a.txt isn't an image that can be read"),
    "unreadable image": (folder(cat__a_dot_jpg=b"garbage"), "", "cat/a.jpg isn't an image of a kind that is read"),
    "image cut short": (folder(cat__a_dot_png=GOOD["cat/000.png"][:200]), "", "cat/a.png can't be decoded"),
    "0 bytes": (folder(cat__a_dot_png=b""), "", "cat/a.png isn't an image of a kind that is read"),
    "16 bit": (
        folder(cat__a_dot_png=saved(Image.fromarray(np.zeros((10, 12), np.uint16)))),
        "",
        "cat/a.png has more than 8 bits in a pixel's channel (I;16): convert it to 8 bits",
    ),
    "unequal sizes": (
        folder(dog__z_dot_png=encoded(pixels(0, size=(5, 6)))),
        "",
        "dog/z.png has 6x5: all images need one size: scale them, or prepare the set with edgecloud data prepare "
        "--resize",
    ),
    "decompression bomb": (folder(cat__a_dot_png=bomb(100_000)), "", "cat/a.png would be larger than"),
    "too large a file": (folder(huge), "", f"cat/huge.png has more than {MAX_FILE_BYTES} bytes"),
    "a folder in a file's place": (
        folder(lambda root: (root / "cat" / "a.png").symlink_to(root / "gone")),
        "",
        "cat/a.png can't be read",
    ),
    "pipe": (folder(lambda root: os.mkfifo(root / "cat" / "a.png")), "", "cat/a.png is a device, a socket or a pipe"),
    "deep nesting": (folder(deep), "", "is more than 8 folders deep"),
    "link out": (folder(link_out), "", "cat/link.png is a link that leads out of"),
    "folder's link out": (folder(folder_out), "", "cow is a link that leads out of"),
    "link to itself": (folder(lambda root: (root / "cat" / "up").symlink_to(root)), "", "folders deep"),
    "control characters": (
        only({name.replace("cat", "c\x1b[31m"): data for name, data in GOOD.items()}),
        "",
        "the name of the class folder 'c\\x1b[31m' has control characters: rename it",
    ),
    "class of test only": (only({**SPLIT, "test/cow/a.png": GOOD["cat/000.png"]}), "", "test has a class cow that"),
    "tar: up": (tar("../evil.png"), "a.tar", "../evil.png leads out of the archive"),
    "tar: absolute": (tar("/tmp/evil.png"), "a.tar", "/tmp/evil.png leads out of the archive"),
    "tar: link out": (tar("cat/a.png", tarfile.SYMTYPE, "/etc/passwd"), "a.tar", "cat/a.png is a link: pack the files"),
    "tar: hard link out": (tar("cat/a.png", tarfile.LNKTYPE, "../../x"), "a.tar", "cat/a.png is a link"),
    "tar: device": (tar("cat/a.png", tarfile.CHRTYPE), "a.tar", "cat/a.png is a device or pipe"),
    "tar: huge member": (tar("cat/a.png", size=2**40), "a.tar", f"cat/a.png has {2**40} bytes"),
    "tar: twice": (twice, "a.tar", "holds cat/000.png twice: pack it again"),
    "tar: cut short": (cut("a.tar", "w"), "a.tar", "has no end, or a broken header: is it whole?"),
    "tar.gz: cut short": (cut("a.tar.gz", "w:gz"), "a.tar.gz", "can't be read to its end"),
    "tar.xz: cut short": (cut("a.tar.xz", "w:xz"), "a.tar.xz", "can't be read to its end"),
    "tar: empty class": (tar("cow", tarfile.DIRTYPE), "a.tar", "the class folder cow holds no images"),
    "zip: up, by Windows": (from_windows("..\\evil.png"), "a.zip", "evil.png leads out of the archive"),
    "zip: both ways": (from_windows("cat/..\\evil.png"), "a.zip", "evil.png leads out of the archive"),
    "zip: up": (zipped(("../evil.png", b"")), "a.zip", "../evil.png leads out of the archive"),
    "zip: link": (link_in_zip(), "a.zip", "cat/link.png is a link, a device or a pipe"),
    "zip: cut short": (
        lambda root: (zipped()(root), os.truncate(root / "a.zip", 900)),
        "a.zip",
        "a.zip can't be read (File is not",
    ),
    "IDX: counts": (only({**IDX, "train-labels-idx1-ubyte": idx(np.arange(3))}), "", "20 images and"),
    "IDX: cut short": (
        only({**IDX, "train-images-idx3-ubyte": IDX["train-images-idx3-ubyte"][:-9]}),
        "",
        "should have 840 bytes behind its header and has 831",
    ),
    "IDX: gz cut short": (
        only({f"{name}.gz": gzip.compress(contents)[:-9] for name, contents in IDX.items()}),
        "",
        "train-images-idx3-ubyte.gz can't be read",
    ),
    "IDX: only one file": (
        only(IDX),
        "train-images-idx3-ubyte",
        "is only a part of a data set: give the folder with all of its files",
    ),
    "CIFAR: cut short": (only({"data_batch_1.bin": cifar(3)[:-1]}), "", "has 9218 bytes, no multiple of a record's"),
    "numpy: pickled": (
        only({"a.npz": npz(pixels=np.array([{}, {}], object), labels=np.arange(2))}),
        "a.npz",
        "pixels.npy holds pickled objects, which could run anything",
    ),
    "numpy: huge shape": (
        only({"a.npz": npz_of(pixels=npy("(9223372036854775807, 32, 32)"), labels=npy("(2,)", contents=b"\0\1"))}),
        "a.npz",
        "which is no array that could be here",
    ),
    "numpy: lying shape": (
        only({"a.npz": npz_of(pixels=npy("(1000000, 32, 32)", contents=b"x" * 100), labels=npy("(1000000,)"))}),
        "a.npz",
        "pixels.npy should have 1024000000 bytes behind its header and has 100",
    ),
    "numpy: negative shape": (
        only({"a.npz": npz_of(pixels=npy("(-1, 2, 2)"), labels=npy("(2,)", contents=b"\0\1"))}),
        "a.npz",
        "which is no array that could be here",
    ),
    "numpy: code in the header": (
        only({"a.npz": npz_of(pixels=npy("__import__('os').abort()"), labels=npy("(2,)", contents=b"\0\1"))}),
        "a.npz",
        "has a broken header",
    ),
    "numpy: counts": (
        only({"a.npz": npz(pixels=np.zeros((3, 4, 4), np.uint8), labels=np.arange(2))}),
        "a.npz",
        "as many images as labels are needed",
    ),
    "numpy: floats": (
        only({"a.npz": npz(pixels=np.zeros((2, 4, 4)), labels=np.arange(2))}),
        "a.npz",
        "is of type float64: save the pixels as uint8",
    ),
    "numpy: other shape": (
        only({"a.npz": npz(pixels=np.zeros((2, 4, 4, 5), np.uint8), labels=np.arange(2))}),
        "a.npz",
        "has the shape (2, 4, 4, 5): [images, height, width] is needed",
    ),
    "numpy: label below 0": (
        only({"a.npz": npz(pixels=np.zeros((2, 4, 4), np.uint8), labels=np.array([-1, 1]))}),
        "a.npz",
        "has labels from -1 to 1",
    ),
    "numpy: no labels": (
        only({"a.npz": npz(pixels=np.zeros((2, 4, 4), np.uint8))}),
        "a.npz",
        "of train without their counterpart",
    ),
    "numpy: images by another name": (
        only({"a.npz": npz(**PAIR, test_imgs=PAIR["pixels"], test_lbls=PAIR["labels"])}),
        "a.npz",
        "a.npz has an array test_imgs, which seems to be of test: the arrays must be named pixels and labels, or train",
    ),
    "numpy: images of the same split twice": (
        only({"a.npz": npz(**PAIR, x_dev=PAIR["pixels"], x_eval=PAIR["pixels"], y_dev=PAIR["labels"])}),
        "a.npz",
        "x_eval.npy and ROOT/a.npz: x_dev.npy are both of validation: leave one out",
    ),
    "numpy: classes by two names": (
        only({"a.npz": npz(**PAIR, classes=np.array(["a", "b"]), class_names=np.array(["c", "d"]))}),
        "a.npz",
        "class_names.npy and ROOT/a.npz: classes.npy both name the classes: leave one out",
    ),
    "numpy: labels that only the test has": (
        only({"a.npz": npz(**PAIR, x_test=np.zeros((9, 4, 4), np.uint8), y_test=np.arange(9))}),
        "a.npz",
        "y_test.npy has labels that ROOT/a.npz: labels.npy hasn't (2, 3, 4, 5, 6, ...): the splits need the same",
    ),
    "IDX: labels that only the test has": (
        only({**IDX, "t10k-labels-idx1-ubyte": idx(np.array([0, 1, 2, 3, 12]))}),
        "",
        "t10k-labels-idx1-ubyte has labels that ROOT/train-labels-idx1-ubyte hasn't (12): the splits need the same",
    ),
    "numpy: folder without labels": (
        lambda root: np.save(root / "pixels.npy", np.zeros((2, 4, 4), np.uint8)),
        "",
        "without their counterpart",
    ),
    "a text": (only({"a.csv": b"a,b\n"}), "a.csv", "a.csv is neither a folder nor a tar file"),
    "0 bytes as a tar file": (only({"a.tar": b""}), "a.tar", "a.tar is neither a folder nor a tar file"),
    "broken URL": (lambda root: None, "http://127.0.0.1:9/a.tar", "can't be reached, or breaks off"),
    "no such scheme": (lambda root: None, "gopher://127.0.0.1/a", "can't be opened (Protocol not known: gopher"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, tmp_path: Path) -> None:
    make, below, expected = CASES[case]
    root, target = tmp_path / "set", tmp_path / "target"
    root.mkdir()
    target.mkdir()
    make(root)
    before = snapshot(tmp_path)
    source = below if "://" in below else root / below
    done = data("prepare", source, "--out", target / "a.images")
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert expected.replace("ROOT", str(root)) in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("edgecloud: ")
    assert "\x1b" not in done.stderr
    assert snapshot(tmp_path) == before


def test_an_earlier_file_stays(tmp_path: Path) -> None:
    """A source that can't be used doesn't cost the file that is to be replaced."""
    prepared(write(tmp_path / "good", GOOD), tmp_path / "a.images")
    bad = write(tmp_path / "bad", {**GOOD, "cat/a.png": b""})
    before = snapshot(tmp_path)
    done = data("prepare", bad, "--out", tmp_path / "a.images", "--force")
    assert done.exit_code == 2
    assert snapshot(tmp_path) == before


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    root = write(tmp_path / "set", GOOD)
    (tmp_path / "folder.images").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "there.images").write_text("mine")
    (tmp_path / "beside.manifest.json").write_text("mine")
    (tmp_path / "busy.images.partial").write_text("mine")
    before = snapshot(tmp_path)
    for out, expected in {
        "folder.images": "folder.images is a folder: name a file, such as",
        "file/a.images": "there is no folder",
        "no/such/a.images": "there is no folder",
        "there.images": "there.images is there already: pass --force to replace it, or name another file",
        "beside.images": "beside.manifest.json is there already: pass --force to replace it",
        "busy.images": "busy.images can't be written (File exists): give a folder to write to",
        "set/a.images": "set/a.images would lie in",
        "set/cat/a.images": "which is read: name a place outside of it",
        "/proc/a.images": "/proc/a.images can't be written",
    }.items():
        done = data("prepare", root, "--out", tmp_path / out)
        assert (done.exit_code, done.stdout) == (2, "")
        assert expected in done.stderr, done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_rights(tmp_path: Path) -> None:
    root = write(tmp_path / "set", GOOD)
    (root / "cat" / "000.png").chmod(0)
    done = data("prepare", root, "--out", tmp_path / "a.images")
    assert done.exit_code == 2
    assert "cat/000.png can't be read (Permission denied): check it and its rights" in done.stderr


def test_grey_and_colours_together_are_colours(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {**GOOD, "cat/grey.png": encoded(pixels(9, channels=1))})
    assert prepared(root, tmp_path / "a.images")["shape"] == [3, 10, 12]


# -- leaving them out


BROKEN = {
    "cat/a.jpg": b"garbage",
    "cat/b.png": b"",
    "cat/c.png": GOOD["cat/000.png"][:200],
    "dog/d.png": bomb(100_000),
    "dog/e.txt": b"text",
    "f.png": GOOD["cat/000.png"],
}


def broken_set(root: Path) -> set[str]:
    """A folder, and the names of what is wrong in it."""
    write(root, {**GOOD, **BROKEN})
    os.mkfifo(root / "dog" / "g.png")
    (root / "dog" / "h.png").symlink_to(root / "gone")
    link_out(root)
    return {*BROKEN, "dog/g.png", "dog/h.png", "cat/link.png"}


def test_broken_files_are_left_out_and_listed(tmp_path: Path) -> None:
    names = broken_set(tmp_path / "set")
    done = data("prepare", tmp_path / "set", "--out", tmp_path / "a.images", "--skip-broken")
    assert done.exit_code == 0, done.stderr
    listed = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    assert {line.split(": ")[1] for line in listed} == names
    manifest = prepared(tmp_path / "set", tmp_path / "b.images", "--skip-broken")
    assert {one["name"] for one in manifest["skipped"]} == names
    assert manifest["skippedCount"] == len(names)
    assert all(one["reason"] for one in manifest["skipped"])
    # What is left is what a set without them gives.
    assert manifest["sha256"] == prepared(write(tmp_path / "good", GOOD), tmp_path / "c.images")["sha256"]


def test_a_source_is_read_through_and_all_that_is_broken_listed(tmp_path: Path) -> None:
    names = broken_set(tmp_path / "set")
    before = snapshot(tmp_path)
    code, verdict = verified(tmp_path / "set")
    assert code == 1 and not verdict["ok"]
    assert {one["name"] for one in verdict["broken"]} == names
    assert (verdict["images"], verdict["splits"]) == (7, {"train": 6})  # f.png is an image, but of no class
    assert snapshot(tmp_path) == before


def test_members_of_archives_are_left_out(tmp_path: Path) -> None:
    link = tarfile.TarInfo("cat/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    pack(tmp_path / "a.tar", {**GOOD, "cat/z.png": b"", "../up.png": GOOD["cat/000.png"]}, extra=[link])
    zipped(("cat/z.png", b""), ("../up.png", GOOD["cat/000.png"]))(tmp_path)
    good = prepared(write(tmp_path / "good", GOOD), tmp_path / "good.images")
    left_out = {"cat/z.png", "../up.png"}
    for name, others in {"a.tar": {"cat/link.png"}, "a.zip": set[str]()}.items():
        manifest = prepared(tmp_path / name, tmp_path / f"{name}.images", "--skip-broken")
        assert {one["name"] for one in manifest["skipped"]} == left_out | others
        assert manifest["sha256"] == good["sha256"]


def test_a_class_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    """Else the numbers of the other classes would be others, without a word."""
    root = write(tmp_path / "set", {**GOOD, "cow/a.png": b""})
    before = snapshot(tmp_path)
    done = data("prepare", root, "--out", tmp_path / "a.images", "--skip-broken")
    assert done.exit_code == 2
    assert "the class folder cow holds no images that can be read" in done.stderr
    assert snapshot(tmp_path) == before


def test_links_out_are_followed_when_they_are_to_be(tmp_path: Path) -> None:
    root = write(tmp_path / "set", GOOD)
    link_out(root)
    assert prepared(root, tmp_path / "a.images", "--follow-links")["splits"]["train"]["images"] == 7
    assert verified(root, "--follow-links")[0] == 0


def test_a_link_within_the_folder_is_no_link_out(tmp_path: Path) -> None:
    root = write(tmp_path / "set", GOOD)
    (root / "dog" / "again.png").symlink_to(root / "cat" / "000.png")
    assert prepared(root, tmp_path / "a.images")["splits"]["train"]["images"] == 7


def test_the_manifest_lists_no_more_than_is_good_for_it(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {**GOOD, **{f"cat/x{number}.png": b"" for number in range(1100)}})
    done = data("prepare", root, "--out", tmp_path / "a.images", "--skip-broken", "-o", "json")
    assert done.exit_code == 0
    assert done.stderr.count("left out: ") == 1001 and "left out: 100 more" in done.stderr
    assert '"skippedCount": 1100' in done.stdout
