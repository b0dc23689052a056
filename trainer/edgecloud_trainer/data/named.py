"""Data sets by name: scikit-learn's digits, which need no download, and torchvision's that have one image size."""

from __future__ import annotations

import gzip
import importlib.util
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgecloud.api.sets import meant, set_of
from edgecloud.api.trainer import SETS
from edgecloud_trainer import vision
from edgecloud_trainer.data.dataset import Contents, DataError, Labels, Part, Pixels, Split, part_of
from edgecloud_trainer.data.files import Reading
from edgecloud_trainer.data.observer import Stage
from edgecloud_trainer.data.resized import resized
from edgecloud_trainer.data.source import Source

DIGITS: Final = "digits"
_DIGITS_FILE: Final = "datasets/data/digits.csv.gz"
_DOWNLOAD_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class _Named:
    """One of torchvision's classes."""

    cls: str
    by_split: bool = False
    """Its splits are chosen by split="train" instead of train=True."""
    files: tuple[str, ...]
    """What it would download, below its root folder."""


def _mnist(cls: str) -> _Named:
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return _Named(cls=cls, files=tuple(f"{cls}/raw/{kind}-ubyte.gz" for kind in kinds))


_TORCHVISION: Final = {
    "cifar10": _Named(cls="CIFAR10", files=("cifar-10-python.tar.gz",)),
    "cifar100": _Named(cls="CIFAR100", files=("cifar-100-python.tar.gz",)),
    "mnist": _mnist("MNIST"),
    "fashion-mnist": _mnist("FashionMNIST"),
    "kmnist": _mnist("KMNIST"),
    "svhn": _Named(cls="SVHN", by_split=True, files=("train_32x32.mat", "test_32x32.mat")),
    "stl10": _Named(cls="STL10", by_split=True, files=("stl10_binary.tar.gz",)),
    "usps": _Named(cls="USPS", files=("usps.bz2", "usps.t.bz2")),
}
NAMES: Final = SETS


def named_source(name: str) -> Source:
    """The set of a name; case, - and _ don't matter.

    Raises:
        DataError: there is none of that name.
    """
    if (found := set_of(name)) is None:
        near = meant(name)
        guess = f" Did you mean {near}?" if near else ""
        raise DataError(f"no data set is named {name}.{guess} Known are {', '.join(NAMES)}; any other goes into source")
    if found == DIGITS:
        return Source(name=DIGITS, kind="named", location=DIGITS, key="digits-1", read=_digits, test_fraction=0.2)
    return Source(
        name=found,
        kind="named",
        location=found,
        key=f"torchvision-{found}-1",
        read=partial(_torchvision, found, _TORCHVISION[found]),
    )


def is_known(name: str) -> bool:
    """Whether there is a set of that name."""
    return set_of(name) is not None


def _digits(reading: Reading) -> Contents:
    """1,797 images of 8x8 grey pixels with values from 0 to 16 (UCI's optical recognition of handwritten digits).

    The file is scikit-learn's, read without scikit-learn: importing that takes as long as torch.
    """
    package = importlib.util.find_spec("sklearn")
    folders = (package.submodule_search_locations if package else None) or []
    file = next((found for folder in folders if (found := Path(folder) / _DIGITS_FILE).exists()), None)
    if file is None:
        raise DataError("digits is scikit-learn's, and that isn't installed here: pip install scikit-learn")
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    pixels: Pixels = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    contents = Contents(
        classes=tuple(str(digit) for digit in range(10)),
        shape=(1, 8, 8),
        parts={"train": part_of(pixels, table[:, -1])},
    )
    return resized(contents, reading.size)


def _torchvision(name: str, named: _Named, reading: Reading) -> Contents:
    datasets = vision.part("datasets")
    root = (reading.downloads or reading.scratch) / "torchvision"
    cls = getattr(datasets, named.cls)
    parts: dict[Split, Part] = {}
    shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] = ()
    for done, (split, train) in enumerate((("train", True), ("test", False))):
        reading.observer.stage(Stage("downloading", done, 2))
        which = {"split": split} if named.by_split else {"train": train}
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _download_timeout():
                try:
                    dataset = cls(root, download=True, **which)
                except Exception:
                    if not _forget_unpacked(root, named):
                        raise
                    dataset = cls(root, download=True, **which)
        except Exception as error:  # no network, a proxy's page in the archive's place, a full disk, ...
            raise DataError(
                f"{name} isn't in {root} and can't be downloaded ({error}). "
                f"Put {' and '.join(str(root / file) for file in named.files)} there, or name a folder in data.source"
            ) from error
        pixels, labels = _pixels(dataset), _labels(dataset)
        shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
        classes = tuple(getattr(dataset, "classes", None) or (str(digit) for digit in range(10)))
        parts["train" if train else "test"] = part_of(pixels, labels)
    assert shape is not None
    return resized(Contents(classes=classes, shape=shape, parts=parts), reading.size)


def _forget_unpacked(root: Path, named: _Named) -> bool:
    """Remove what torchvision has unpacked and will unpack again; whether there was anything.

    It unpacks in place and takes what is there for whole, also where a process was killed over it. (Of archives that
    hold many files it compares the checksum of each.)
    """
    archives = [root / file for file in named.files if file.endswith(".gz") and not file.endswith(".tar.gz")]
    unpacked = [archive.with_suffix("") for archive in archives if archive.exists()]
    there = [path for path in unpacked if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    return bool(there)


@contextmanager
def _download_timeout() -> Iterator[None]:
    """torchvision opens its connections without one, and would wait for ever where packets are dropped."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _pixels(dataset: Any) -> Pixels:
    """uint8 [N, C, H, W] of [N, H, W], [N, H, W, 3] or [N, 3, H, W]."""
    data: Pixels = np.asarray(dataset.data)
    if data.ndim == 3:
        return data[:, None]
    return data.transpose(0, 3, 1, 2) if data.shape[-1] == 3 else data


def _labels(dataset: Any) -> Labels:
    return np.asarray(dataset.labels if hasattr(dataset, "labels") else dataset.targets).astype(np.int64)
