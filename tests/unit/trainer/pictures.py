"""Small real image files of every kind that is read, made where a test needs them."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Tree = Mapping[str, bytes]
"""Files by their path below a folder."""


def pixels(seed: int, *, channels: int = 3, size: tuple[int, int] = (10, 12)) -> np.ndarray:
    """uint8 [C, H, W]; another seed, another picture."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (channels, *size), dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file with uint8 [C, H, W], C = 1 or 3."""
    plain = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    return saved(plain, kind, **options)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tree(counts: Mapping[str, int], *, channels: int = 3, suffix: str = ".png", kind: str = "PNG") -> dict[str, bytes]:
    """So many images in each folder, all of them different."""
    files: dict[str, bytes] = {}
    for folder, count in counts.items():
        for number in range(count):
            files[f"{folder}/{number:03}{suffix}"] = encoded(pixels(len(files), channels=channels), kind)
    return files


def write(root: Path, files: Tree) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def pack(path: Path, files: Tree, mode: str = "w", *, extra: Sequence[tarfile.TarInfo] = ()) -> Path:
    """A tar file of these files, in their order, and of members without contents."""
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return path


def zipped(path: Path, files: Tree) -> Path:
    """A zip file of these files, in their order."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def idx_tree(
    *, train: int = 20, test: int = 5, size: tuple[int, int] = (6, 7), packed: bool = False
) -> dict[str, bytes]:
    """MNIST's four files, or two of them, with random images of ten classes."""
    files: dict[str, bytes] = {}
    for split, count in (("train", train), ("t10k", test)):
        if count:
            random = np.random.Generator(np.random.PCG64(count))
            files[f"{split}-images-idx3-ubyte"] = idx(random.integers(0, 256, (count, *size)))
            files[f"{split}-labels-idx1-ubyte"] = idx(np.arange(count) % 10)
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()} if packed else files


def cifar(count: int, *, seed: int = 0, classes: int = 10) -> bytes:
    """Records of CIFAR-10's binary version."""
    random = np.random.Generator(np.random.PCG64(seed))
    records = random.integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(count) % classes
    return records.tobytes()
