"""numpy's files: an .npz with pixels and labels, or a folder with pixels.npy and labels.npy."""

from __future__ import annotations

import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecloud_trainer.data.dataset import (
    CHUNK_BYTES,
    MAX_SIDE,
    SPLITS,
    Contents,
    DataError,
    Labels,
    Part,
    Pixels,
    Split,
    part_of,
)
from edgecloud_trainer.data.files import Reading
from edgecloud_trainer.data.layout import MAX_CLASSES, refuse_classes
from edgecloud_trainer.data.likeness import split_word
from edgecloud_trainer.data.numbered import refuse_unlearnt
from edgecloud_trainer.data.observer import Stage
from edgecloud_trainer.data.resized import resized
from edgecloud_trainer.data.source import File, Source, key_of
from edgecloud_trainer.data.zipped import open_zip

MAX_BYTES: Final = 1024**4
"""Of one array."""
_SPLIT: Final = "train|training|test|testing|t10k|val|valid|validation|dev|eval"
_NAME: Final = re.compile(
    rf"(?:(?P<before>{_SPLIT})[_-])?(?P<what>pixels|images|image|x|labels|label|y|classes|class_names)(?:[_-](?P<behind>{_SPLIT}))?",
    re.IGNORECASE,
)
_SPLITS: Final[dict[str, Split]] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "t10k": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "validation",
}
_NO_NAME: Final = "the arrays must be named pixels and labels, or train_pixels, train_labels, test_pixels, test_labels"


class _Array(NamedTuple):
    """An array whose header has been read."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    values: Callable[[], npt.NDArray[Any]]


class _Found(NamedTuple):
    """Which array is what."""

    pixels: dict[Split, _Array]
    labels: dict[Split, _Array]
    classes: _Array | None


def is_npy(name: str) -> bool:
    """Whether a file is called as an array of a data set."""
    return name.endswith(".npy") and _NAME.fullmatch(name[:-4]) is not None


def npz_source(path: Path, where: str = "") -> Source:
    """The images in an .npz file.

    Args:
        path: the file.
        where: what messages call it.

    Raises:
        DataError: it can't be read.
    """
    status = path.stat()
    return Source(
        name=path.stem or path.name,
        kind="numpy",
        location=where or str(path),
        key=key_of("npz", str(path.resolve()), [File(path.name, status.st_size, status.st_mtime_ns)]),
        read=partial(_read_npz, path, where or str(path)),
        single=path,
    )


def is_npz(path: Path, where: str = "") -> bool:
    """Whether a zip file is numpy's.

    Raises:
        DataError: it isn't a zip file, or a broken one.
    """
    with open_zip(path, where) as archive:
        return any(name.endswith(".npy") and "/" not in name for name in archive.namelist())


def npy_source(root: Path, files: list[File]) -> Source | None:
    """The images in a folder's .npy files; None if it has none."""
    found = [file for file in files if is_npy(file.name)]
    if not found:
        return None
    others = [file.name[:-4] for file in files if file.name.endswith(".npy") and "/" not in file.name]
    others = [name for name in others if not _NAME.fullmatch(name)]
    return Source(
        name=root.resolve().name or str(root),
        kind="numpy",
        location=str(root),
        key=key_of("npy", str(root.resolve()), found),
        read=partial(_read_folder, root, [file.name for file in found], others),
    )


def _read_npz(path: Path, where: str, reading: Reading) -> Contents:
    with open_zip(path, where) as archive:
        members = {member.filename[:-4]: member for member in archive.infolist() if member.filename.endswith(".npy")}
        arrays = {name: _member(where, archive, member, reading.scratch) for name, member in members.items()
                  if _NAME.fullmatch(name)}  # fmt: skip
        return _contents(where, arrays, [name for name in members if name not in arrays], reading)


def _read_folder(root: Path, names: list[str], others: list[str], reading: Reading) -> Contents:
    return _contents(str(root), {name[:-4]: _file(root / name) for name in names}, others, reading)


def _file(path: Path) -> _Array:
    try:
        with path.open("rb") as file:
            shape, dtype = _header(file, str(path))
            offset, size = file.tell(), path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error
    _refuse_size(str(path), shape, dtype, size - offset)
    return _Array(str(path), shape, dtype, lambda: np.memmap(path, dtype, "r", offset, shape))


def _member(archived: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, scratch: Path) -> _Array:
    where = f"{archived}: {member.filename}"
    try:
        with archive.open(member) as file:
            shape, dtype = _header(file, where)
            _refuse_size(where, shape, dtype, member.file_size - file.tell())
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError) as error:
        raise _broken(where, error) from error
    return _Array(where, shape, dtype, lambda: _unpacked(where, archive, member, scratch / member.filename))


def _unpacked(where: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> npt.NDArray[Any]:
    """A member's array, mapped from a file that it is unpacked into; its name holds no / and is one of ours."""
    left = member.file_size
    try:
        with archive.open(member) as file, path.open("wb") as unpacked:
            shape, dtype = _header(file, where)
            while left > 0 and (data := file.read(min(left, CHUNK_BYTES))):
                unpacked.write(data)
                left -= len(data)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise _broken(where, error) from error
    try:
        return np.memmap(path, dtype, "r", 0, shape)
    except ValueError as error:
        raise _broken(where, error) from error


def _broken(where: str, error: Exception) -> DataError:
    return DataError(f"{where} can't be unpacked ({error or type(error).__name__}): save it again")


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DataError(f"{where} is of version {version}: save it with numpy.save, as arrays of numbers")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except DataError:
        raise
    except (ValueError, TypeError, SyntaxError, KeyError) as error:
        raise DataError(f"{where} has a broken header ({error}): save it again with numpy.save") from error
    if dtype.hasobject:
        raise DataError(
            f"{where} holds pickled objects, which could run anything: save it as an array of numbers or of text"
        )
    if fortran and len(shape) > 1:
        raise DataError(f"{where} is in Fortran's order: save numpy.ascontiguousarray of it")
    return shape, dtype


def _refuse_size(where: str, shape: tuple[int, ...], dtype: np.dtype[Any], there: int) -> None:
    size = math.prod(shape) * dtype.itemsize  # in Python's whole numbers: a header could overflow others
    if any(side < 0 for side in shape) or size > MAX_BYTES:
        raise DataError(f"{where} would have the shape {shape}, which is no array that could be here: save it again")
    if size != there:
        raise DataError(f"{where} should have {size} bytes behind its header and has {there}: save it again")


def _contents(where: str, arrays: Mapping[str, _Array], others: Sequence[str], reading: Reading) -> Contents:
    """others: the names of arrays that nobody here knows."""
    found = _sorted(where, arrays)
    for name in sorted(others):
        if (split := split_word(name)) is not None and split not in found.pixels:
            raise DataError(f"{where} has an array {name}, which seems to be of {split}: {_NO_NAME}; or take it out")
    if others:
        reading.observer.note(f"{where} has arrays that are passed over: {', '.join(sorted(others)[:10])}")
    parts: dict[Split, Part] = {}
    highest = 0
    shape: tuple[int, int, int] | None = None
    for done, split in enumerate(split for split in SPLITS if split in found.pixels):
        reading.observer.stage(Stage("decoding", done, len(found.pixels)))
        images, labels = found.pixels[split], found.labels[split]
        if images.shape[:1] != labels.shape[:1] or not math.prod(images.shape):
            raise DataError(
                f"{images.where} has the shape {images.shape} and {labels.where} {labels.shape}: "
                "as many images as labels are needed, and one at least"
            )
        numbers, pixels = _numbers(labels), _images(images)
        size = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
        if shape is not None and size != shape:
            raise DataError(
                f"{images.where} has images of {size[2]}x{size[1]} pixels in {size[0]} channel(s), "
                f"those before {shape[2]}x{shape[1]} in {shape[0]}: save them in one size"
            )
        shape = size
        highest = max(highest, int(numbers.max()))
        parts[split] = part_of(pixels, numbers)
    assert shape is not None
    classes = _names(found.classes) if found.classes else tuple(str(number) for number in range(highest + 1))
    if highest >= len(classes):
        raise DataError(f"{where} has labels up to {highest} and only {len(classes)} classes: name all of them")
    refuse_classes(classes, found.classes.where if found.classes else where)
    refuse_unlearnt(parts, classes, {split: labels.where for split, labels in found.labels.items()}, reading.observer)
    return resized(Contents(classes=classes, shape=shape, parts=parts), reading.size)


def _sorted(where: str, arrays: Mapping[str, _Array]) -> _Found:
    found = _Found({}, {}, None)
    for name, array in arrays.items():
        match = _NAME.fullmatch(name)
        assert match is not None
        what = match["what"].lower()
        if what in ("classes", "class_names"):
            if found.classes is not None:
                raise DataError(f"{array.where} and {found.classes.where} both name the classes: leave one out")
            found = found._replace(classes=array)
            continue
        split = _SPLITS[(match["before"] or match["behind"] or "train").lower()]
        kind = found.labels if what in ("labels", "label", "y") else found.pixels
        if split in kind:
            raise DataError(f"{array.where} and {kind[split].where} are both of {split}: leave one out")
        kind[split] = array
    if "train" not in found.pixels:
        raise DataError(f"{where} has no training images: {_NO_NAME}")
    for split in {*found.pixels} ^ {*found.labels}:
        raise DataError(f"{where} has images or labels of {split} without their counterpart: {_NO_NAME}")
    return found


def _images(array: _Array) -> Pixels:
    """uint8 [N, C, H, W] of [N, H, W], [N, C, H, W] or [N, H, W, C]; of two readings the first."""
    shape = array.shape
    if array.dtype != np.uint8:
        raise DataError(f"{array.where} is of type {array.dtype}: save the pixels as uint8, 0 to 255")
    first, last = len(shape) == 4 and shape[1] in (1, 3), len(shape) == 4 and shape[3] in (1, 3)
    if not (len(shape) == 3 or first or last) or not all(1 <= side <= MAX_SIDE for side in shape[1:]):
        raise DataError(
            f"{array.where} has the shape {shape}: [images, height, width] is needed, or with 1 or 3 channels "
            "before or behind height and width"
        )
    values: Pixels = array.values()
    if len(shape) == 3:
        return values[:, None]
    return values if first else values.transpose(0, 3, 1, 2)


def _numbers(array: _Array) -> Labels:
    """int64 [N] of [N] or [N, 1]."""
    shape = array.shape
    if array.dtype.kind not in "iu" or not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise DataError(
            f"{array.where} is of type {array.dtype} and shape {shape}: one whole number for each image is needed"
        )
    values = array.values().reshape(-1)
    if not 0 <= int(values.min()) <= int(values.max()) < MAX_CLASSES:
        raise DataError(
            f"{array.where} has labels from {values.min()} to {values.max()}: 0 to {MAX_CLASSES - 1} can be used"
        )
    return values.astype(np.int64)


def _names(array: _Array) -> tuple[str, ...]:
    if array.dtype.kind != "U" or len(array.shape) != 1 or not 1 <= array.shape[0] <= MAX_CLASSES:
        raise DataError(f"{array.where} is of type {array.dtype}: a name for each class is needed, as text")
    return tuple(str(name) for name in array.values())
