"""reference.npz: test images with what the original network says of them, for whoever measures a converted model."""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

MAX_IMAGES: Final = 10_000
MAX_PIXEL_BYTES: Final = 256 * 1024**2
MAX_LOGIT_BYTES: Final = 512 * 1024**2
MAX_FILE_BYTES: Final = 1024**3
"""Pixels, logits, labels."""
_AGAIN: Final = "copy it again, or export again"
_MEMBERS: Final = {"pixels": ("|u1", 4), "labels": ("<i8", 1), "logits": ("<f4", 2)}


class ReferenceError(ValueError):
    """The file holds no such images. The message names it, and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Images, and the original's answers in torch with fp32."""

    pixels: npt.NDArray[np.uint8]
    """uint8 [N, C, H, W]."""
    labels: npt.NDArray[np.int64]
    """int64 [N], each from 0 to the number of classes - 1."""
    logits: npt.NDArray[np.float32]
    """float32 [N, classes], all finite."""

    def __len__(self) -> int:
        return len(self.labels)


def most_images(shape: tuple[int, int, int], classes: int) -> int:
    """How many images of a shape (C, H, W) a reference may hold, with as many logits each; 1 at least."""
    return max(1, min(MAX_IMAGES, MAX_PIXEL_BYTES // math.prod(shape), MAX_LOGIT_BYTES // (4 * classes)))


def save_reference(path: Path, reference: Reference) -> None:
    """Write it beside its place and rename it.

    Raises:
        OSError: it can't be written; nothing is left of it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez(file, pixels=reference.pixels, labels=reference.labels, logits=reference.logits)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load_reference(path: Path) -> Reference:
    """Read it; whoever wrote it.

    Raises:
        ReferenceError: it isn't there, is damaged, too large, or its parts don't go together.
    """
    try:
        with path.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_FILE_BYTES:
                raise ReferenceError(f"{path} has {size} bytes, more than {MAX_FILE_BYTES}: {_AGAIN}")
            with zipfile.ZipFile(file) as archive:
                arrays = {name: _array(path, archive, name) for name in _MEMBERS}
    except OSError as error:
        raise ReferenceError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error
    except ReferenceError:
        raise
    except Exception as error:  # a damaged zip file fails in many ways
        raise ReferenceError(f"{path} is damaged ({error or type(error).__name__}): {_AGAIN}") from error
    found = Reference(**arrays)
    _check(path, found)
    return found


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """One array, of the type and number of dimensions that it has to have."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise ReferenceError(f"{path} has no {name}: {_AGAIN}") from None
    if info.file_size > MAX_FILE_BYTES:
        raise ReferenceError(f"{path}: its {name} would have {info.file_size} bytes: {_AGAIN}")
    with archive.open(info) as member:
        shape, dtype = _header(member)  # type: ignore[arg-type]
    type_, dimensions = _MEMBERS[name]
    # What the header claims is held against the file before numpy asks for as much memory.
    if dtype != np.dtype(type_) or len(shape) != dimensions or math.prod(shape) * dtype.itemsize > info.file_size:
        raise ReferenceError(f"{path}: its {name} are {dtype} {list(shape)[:8]}: {_AGAIN}")
    with archive.open(info) as member:
        array: npt.NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read(file)
    return shape, dtype


def _check(path: Path, found: Reference) -> None:
    count = len(found.labels)
    if not count or len(found.pixels) != count or len(found.logits) != count:
        raise ReferenceError(
            f"{path} has {len(found.pixels)} images, {count} labels and {len(found.logits)} rows of logits: {_AGAIN}"
        )
    classes = found.logits.shape[1]
    if classes < 2 or not 0 <= int(found.labels.min()) <= int(found.labels.max()) < classes:
        raise ReferenceError(f"{path} has labels outside of its {classes} classes: {_AGAIN}")
    if not np.isfinite(found.logits).all():
        raise ReferenceError(f"{path} has logits that are no numbers: look at the training, and export again")
