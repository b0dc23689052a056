"""IDX files, as MNIST and its relatives come: NAME-images-idx3-ubyte and NAME-labels-idx1-ubyte, also with .gz."""

from __future__ import annotations

import errno
import gzip
import math
import os
import re
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from edgecloud_trainer.data.dataset import CHUNK_BYTES, MAX_SIDE, SPLITS, Contents, DataError, Part, Split, part_of
from edgecloud_trainer.data.files import Reading
from edgecloud_trainer.data.layout import refuse_classes
from edgecloud_trainer.data.numbered import refuse_unlearnt
from edgecloud_trainer.data.observer import Stage
from edgecloud_trainer.data.resized import resized
from edgecloud_trainer.data.source import File, Source, key_of

MAX_BYTES: Final = 64 * 1024**3
"""Of one file, unpacked."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME: Final = re.compile(r"(?P<split>[A-Za-z0-9_]+)-(?P<kind>images[-.]idx3|labels[-.]idx1)-ubyte(?P<gz>\.gz)?")
_SPLITS: Final[dict[str, Split]] = {
    "train": "train",
    "t10k": "test",
    "test": "test",
    "val": "validation",
    "validation": "validation",
}


def is_idx(name: str) -> bool:
    """Whether a file is called as IDX files are."""
    return _NAME.fullmatch(name) is not None


def idx_source(root: Path, files: Sequence[File]) -> Source | None:
    """The images in a folder's IDX files; None if it has none.

    Raises:
        DataError: images without labels, or no training images.
    """
    found: dict[Split, dict[str, File]] = {}
    for file in files:
        if (match := _NAME.fullmatch(file.name)) is None:
            continue
        if match["split"] not in _SPLITS:
            raise DataError(f"{root / file.name}: rename it: its name must start with train, t10k, test or validation")
        # Packed and unpacked side by side, the unpacked one, which sorts first, is read.
        found.setdefault(_SPLITS[match["split"]], {}).setdefault(match["kind"][:6], file)
    if not found:
        return None
    for split, pair in found.items():
        if len(pair) < 2:
            there = next(iter(pair.values())).name
            raise DataError(
                f"{root} has {there} without its counterpart: put images and labels of {split} side by side"
            )
    if "train" not in found:
        raise DataError(f"{root} has no train-images-idx3-ubyte: put the training images there")
    found = {split: found[split] for split in SPLITS if split in found}
    chosen = [file for pair in found.values() for file in pair.values()]
    return Source(
        name=root.resolve().name or str(root),
        kind="idx",
        location=str(root),
        key=key_of("idx", str(root.resolve()), chosen),
        read=partial(_read, {split: (root / p["images"].name, root / p["labels"].name) for split, p in found.items()}),
    )


def _read(paths: dict[Split, tuple[Path, Path]], reading: Reading) -> Contents:
    parts: dict[Split, Part] = {}
    shape: tuple[int, int, int] | None = None
    highest = 0
    for done, (split, (images, labels)) in enumerate(paths.items()):
        reading.observer.stage(Stage("decoding", done, len(paths)))
        pixels = read_idx(images, 3, reading.scratch)
        numbers = read_idx(labels, 1, reading.scratch).astype(np.int64)
        if len(pixels) != len(numbers) or not len(numbers):
            raise DataError(
                f"{images} has {len(pixels)} images and {labels} {len(numbers)} labels: they don't go together"
            )
        size = (1, pixels.shape[1], pixels.shape[2])
        if shape is not None and size != shape:
            raise DataError(
                f"{images} has images of {size[2]}x{size[1]} pixels, the others {shape[2]}x{shape[1]}: scale them"
            )
        if max(size) > MAX_SIDE:
            raise DataError(
                f"{images} has images of {size[2]}x{size[1]} pixels, more than {MAX_SIDE} on a side: scale them down"
            )
        shape = size
        highest = max(highest, int(numbers.max()))
        parts[split] = part_of(pixels[:, None], numbers)
    assert shape is not None
    classes = tuple(str(number) for number in range(highest + 1))
    refuse_classes(classes, str(paths["train"][1]))
    refuse_unlearnt(parts, classes, {split: str(labels) for split, (_, labels) in paths.items()}, reading.observer)
    contents = Contents(classes=classes, shape=shape, parts=parts)
    return resized(contents, reading.size)


def read_idx(path: Path, dimensions: int, scratch: Path) -> npt.NDArray[np.uint8]:
    """The array in an IDX file of bytes with so many dimensions, mapped.

    Args:
        path: the file; one that ends in .gz is unpacked.
        dimensions: of the array.
        scratch: a folder that is there as long as the array is used.

    Raises:
        DataError: it is something else, or shorter or longer than its header says.
        OSError: there is no room to unpack it.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
                raise DataError(f"{path} isn't an IDX file of bytes with {dimensions} dimension(s): copy it again")
            shape = tuple(int(side) for side in np.frombuffer(header, ">u4", offset=4))
            # In Python's whole numbers: a product of sides from a file could overflow.
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise DataError(f"{path} would have {size} bytes, more than {MAX_BYTES}: split it")
            unpacked, offset = path, len(header)
            if path.suffix == ".gz":
                unpacked, offset = scratch / path.stem, 0
                there = _unpack(file, unpacked, size)
            else:
                there = os.fstat(file.fileno()).st_size - offset
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise  # it isn't the source's
        raise DataError(f"{path} can't be read ({error}): copy it again") from error
    if there != size:
        said = "more" if there > size else str(there)
        raise DataError(f"{path} should have {size} bytes behind its header and has {said}: copy it again")
    return np.memmap(unpacked, np.uint8, "r", offset, shape) if size else np.zeros(shape, np.uint8)


def _unpack(file: BinaryIO | gzip.GzipFile, path: Path, size: int) -> int:
    """Copy so many bytes of a file, and one more if there is one; how many it were."""
    done = 0
    with path.open("wb") as unpacked:
        while data := file.read(min(CHUNK_BYTES, size + 1 - done)):
            unpacked.write(data)
            done += len(data)
    return done
