"""CIFAR-10's binary version: data_batch_*.bin and test_batch.bin, each record a label and 3x32x32 bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edgecloud_trainer.data.dataset import Contents, DataError, Labels, Part, Pixels, Split, joined, part_of
from edgecloud_trainer.data.files import Reading
from edgecloud_trainer.data.layout import refuse_classes
from edgecloud_trainer.data.resized import resized
from edgecloud_trainer.data.source import File, Source, key_of, read_file

_SHAPE: Final = (3, 32, 32)
_RECORD: Final = 1 + 3 * 32 * 32
_CLASSES: Final = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_NAMES: Final = "batches.meta.txt"
_PATTERNS: Final[dict[Split, str]] = {"train": r"data_batch_\w+\.bin", "test": r"test_batch\.bin"}


def is_cifar(name: str) -> bool:
    """Whether a file is called as one of CIFAR-10's binary version."""
    return name == _NAMES or any(re.fullmatch(pattern, name) for pattern in _PATTERNS.values())


def cifar_source(root: Path, files: Sequence[File]) -> Source | None:
    """The images in a folder's CIFAR files; None if it has none.

    Raises:
        DataError: no training images, or a file of a size that no whole number of images has.
    """
    found: dict[Split, list[File]] = {
        split: [file for file in files if re.fullmatch(pattern, file.name)] for split, pattern in _PATTERNS.items()
    }
    found = {split: some for split, some in found.items() if some}
    if not found:
        return None
    if "train" not in found:
        raise DataError(f"{root} has test_batch.bin and no data_batch_*.bin: put the training images there")
    for file in [file for some in found.values() for file in some]:
        if file.size % _RECORD or not file.size:
            raise DataError(
                f"{root / file.name} has {file.size} bytes, no multiple of a record's {_RECORD}: copy it again"
            )
    listed = [file for some in found.values() for file in some] + [file for file in files if file.name == _NAMES]
    return Source(
        name=root.resolve().name or str(root),
        kind="cifar",
        location=str(root),
        key=key_of("cifar", str(root.resolve()), listed),
        read=partial(_read, root, found),
    )


def _read(root: Path, found: dict[Split, list[File]], reading: Reading) -> Contents:
    parts = {split: _part([root / file.name for file in some]) for split, some in found.items()}
    highest = max(int(part.labels.max()) for part in parts.values())
    return resized(Contents(classes=_classes(root, highest), shape=_SHAPE, parts=parts), reading.size)


def _classes(root: Path, highest: int) -> tuple[str, ...]:
    names: tuple[str, ...] = _CLASSES
    if (root / _NAMES).exists():
        text = read_file(str(root / _NAMES), 65536).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        # A name may have several words; all names may also stand in one line.
        names = tuple(lines if len(lines) > 1 else text.split())
        refuse_classes(names, str(root / _NAMES))
    if highest >= len(names):
        raise DataError(
            f"{root} has labels up to {highest} and only {len(names)} classes: name them in {_NAMES}, one a line"
        )
    return names


def _part(paths: list[Path]) -> Part:
    try:
        maps = [np.memmap(path, np.uint8, "r").reshape(-1, _RECORD) for path in paths]
    except (OSError, ValueError) as error:
        raise DataError(f"{', '.join(map(str, paths))} can't be read ({error}): copy them again") from error
    return joined([part_of(records[:, 1:].reshape(-1, *_SHAPE), _labels(records)) for records in maps], _SHAPE)


def _labels(records: Pixels) -> Labels:
    return records[:, 0].astype(np.int64)
