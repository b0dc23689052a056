"""reference.npz: written, read again, and refused when it is broken or hostile."""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.edge.reference import (
    MAX_FILE_BYTES,
    Reference,
    ReferenceError,
    load_reference,
    most_images,
    save_reference,
)


def made(**other: Any) -> Reference:
    random = np.random.default_rng(0)
    said: dict[str, Any] = {
        "pixels": random.integers(0, 256, (6, 3, 4, 5), dtype=np.uint8),
        "labels": np.arange(6) % 3,
        "logits": random.normal(0, 1, (6, 3)).astype(np.float32),
    }
    return Reference(**(said | other))


def test_written_and_read(tmp_path: Path) -> None:
    save_reference(tmp_path / "reference.npz", made())
    found = load_reference(tmp_path / "reference.npz")
    for name in ("pixels", "labels", "logits"):
        array, original = getattr(found, name), getattr(made(), name)
        assert array.dtype == original.dtype
        np.testing.assert_array_equal(array, original)
    assert len(found) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["reference.npz"]


@pytest.mark.parametrize(
    ("shape", "classes", "most"),
    [
        ((3, 32, 32), 10, 10_000),
        ((3, 224, 224), 1000, 1783),
        ((3, 32, 32), 100_000, 1342),
        ((3, 65536, 65536), 2, 1),
    ],
)
def test_how_many_images_it_may_hold(shape: tuple[int, int, int], classes: int, most: int) -> None:
    assert most_images(shape, classes) == most
    if most > 1:
        assert most * (math.prod(shape) + 4 * classes + 8) + 4096 < MAX_FILE_BYTES, "it could not be read again"


def test_nothing_is_left_of_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "reference.npz").mkdir()
    with pytest.raises(OSError):
        save_reference(tmp_path / "reference.npz", made())
    assert [path.name for path in tmp_path.iterdir()] == ["reference.npz"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"labels": np.arange(5) % 3}, "6 images, 5 labels"),
        ({"labels": np.array([0, 1, 2, 0, 1, 3])}, "labels outside of its 3 classes"),
        ({"labels": np.array([0, 1, 2, 0, 1, -1])}, "labels outside of its 3 classes"),
        ({"labels": np.zeros(6, np.int32)}, "its labels are int32"),
        ({"pixels": np.zeros((6, 3, 4, 5), np.float32)}, "its pixels are float32"),
        ({"pixels": np.zeros((6, 60), np.uint8)}, r"its pixels are uint8 \[6, 60\]"),
        ({"logits": np.full((6, 3), np.nan, np.float32)}, "no numbers"),
        ({"logits": np.zeros((6, 1), np.float32), "labels": np.zeros(6, np.int64)}, "outside of its 1 classes"),
        ({name: getattr(made(), name)[:0] for name in ("pixels", "labels", "logits")}, "0 images"),
        ({"labels": np.array(["a"] * 6, dtype=object)}, "its labels are object"),
    ],
)
def test_parts_that_do_not_go_together(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    save_reference(tmp_path / "reference.npz", made(**other))
    with pytest.raises(ReferenceError, match=said) as error:
        load_reference(tmp_path / "reference.npz")
    assert "reference.npz" in str(error.value)


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    """numpy asks for the memory that the header claims before it reads: 4 TB here."""
    path = tmp_path / "reference.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (2**20, 4, 1024, 1024)}
    )
    save_reference(path, made())
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "new.npz", "w") as new:
        for name in ("labels.npy", "logits.npy"):
            new.writestr(name, old.read(name))
        new.writestr("pixels.npy", header.getvalue())
    with pytest.raises(ReferenceError, match=r"its pixels are uint8 \[1048576, 4, 1024, 1024\]"):
        load_reference(tmp_path / "new.npz")


def test_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("pixels.npy", "w") as member:
        for _ in range(1025):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**21
    with pytest.raises(ReferenceError, match="its pixels would have 1074790400 bytes"):
        load_reference(path)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    save_reference(path, made())
    whole = path.read_bytes()
    for name, data in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "npy": b"\x93NUMPY"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ReferenceError, match=f"{name} is damaged"):
            load_reference(tmp_path / name)
    flipped = bytearray(whole)
    flipped[whole.index(made().pixels.tobytes()[:16]) + 5] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    with pytest.raises(ReferenceError, match="CRC"):
        load_reference(tmp_path / "flipped")
    with pytest.raises(ReferenceError, match="No such file"):
        load_reference(tmp_path / "missing")
    with zipfile.ZipFile(tmp_path / "part", "w") as archive:
        archive.writestr("pixels.npy", b"x")
    with pytest.raises(ReferenceError):
        load_reference(tmp_path / "part")
    with (tmp_path / "sparse").open("wb") as file:
        os.truncate(file.fileno(), 2**30 + 1)
    with pytest.raises(ReferenceError, match="more than"):
        load_reference(tmp_path / "sparse")
