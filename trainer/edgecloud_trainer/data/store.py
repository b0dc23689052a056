"""Decoded images in one file, which is written once however many processes start at once, and mapped if it is large.

    magic, where the header is, its length, its checksum | labels and pixels of each split, each at a multiple of 4096 |
    header (JSON)

A lock file keeps the others waiting while one writes; the kernel drops the lock of a process that is killed. The file
is written beside its place, flushed and renamed, so that it is either whole or not there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from edgecloud_trainer.data.dataset import SPLITS, Contents, DataError, Images, Labels, Part, Pixels, Progress, Split

MAPPED_ABOVE: Final = 256 * 1024 * 1024
"""Bytes of pixels from which on they are memory-mapped instead of read."""
FORMAT: Final = 1

_MAGIC: Final = b"edgecloud-images"
_START: Final = struct.Struct("<16sQQL")
_PAGE: Final = 4096
_MAX_HEADER: Final = 64 * 1024 * 1024
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a file of decoded images holds."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    splits: dict[Split, Images]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str


def stored(cache: Path, key: str, read: Callable[[Path], Contents], progress: Progress) -> Stored:
    """The images under a key: from the cache, or read now and put there.

    Args:
        cache: the folder; made if it isn't there.
        key: of everything that the images depend on.
        read: gives the images; called with an empty scratch folder, under the lock.
        progress: called while another process holds the lock.

    Raises:
        DataError: the cache can't be written, or `read` says so.
    """
    path = cache / f"{key}.images"
    if (found := _open(path)) is not None:
        return found
    scratch = cache / f"{key}.partial"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{key}.lock", progress):
            if (found := _open(path)) is not None:
                return found
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            scratch.mkdir()
            try:
                _write(scratch / "images", read(scratch))
                (scratch / "images").rename(path)
                _flush_folder(cache)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "give a folder to write to"
        raise DataError(f"the data cache {cache} can't be written ({error.strerror or error}): {remedy}") from error
    if (found := _open(path)) is None:
        raise DataError(f"{path} was written and can't be read back: check the disk it is on")
    return found


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a lock file, which stays: to delete it would let two processes in."""
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress(0, 0)
                time.sleep(_POLL_SECONDS)
        yield


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, contents: Contents) -> None:
    """The file, in one pass over the images; digest and statistics are taken on the way."""
    shape, present = contents.shape, [split for split in SPLITS if split in contents.parts]
    digest = hashlib.sha256(json.dumps([contents.classes, shape]).encode())
    counts = np.zeros((shape[0], 256), np.int64)  # how often each value occurs in each channel
    arrays: dict[str, dict[str, int]] = {}
    offset = _PAGE
    for split in present:
        samples = len(contents.parts[split].labels)
        labels_at = offset
        pixels_at = _aligned(labels_at + 8 * samples)
        offset = _aligned(pixels_at + samples * math.prod(shape))
        arrays[split] = {"samples": samples, "labels": labels_at, "pixels": pixels_at}
    with path.open("wb") as file:
        for split in present:
            part, place = contents.parts[split], arrays[split]
            digest.update(json.dumps([split, place["samples"]]).encode())
            file.seek(place["labels"])
            file.write(part.labels.astype("<i8").tobytes())
            file.seek(place["pixels"])
            for chunk in _checked(part, shape):
                digest.update(chunk.data)
                file.write(chunk.data)
                if split == "train":
                    _count(chunk, counts)
            digest.update(part.labels.astype("<i8").tobytes())
        mean, std = _statistics(counts)
        header = {
            "format": FORMAT,
            "classes": contents.classes,
            "shape": shape,
            "arrays": arrays,
            "mean": mean,
            "std": std,
            "digest": digest.hexdigest(),
        }
        text = json.dumps(header).encode()
        file.seek(offset)
        file.write(text)
        file.seek(0)
        file.write(_START.pack(_MAGIC, offset, len(text), zlib.crc32(text)))
        file.flush()
        os.fsync(file.fileno())


def _aligned(offset: int) -> int:
    return -(-offset // _PAGE) * _PAGE


def _checked(part: Part, shape: tuple[int, int, int]) -> Iterator[Pixels]:
    """The chunks, contiguous; a source that gives other images than it said is a bug of ours."""
    count = 0
    for chunk in part.chunks():
        assert chunk.dtype == np.uint8 and chunk.shape[1:] == shape, (chunk.dtype, chunk.shape, shape)
        count += len(chunk)
        yield np.ascontiguousarray(chunk)
    assert count == len(part.labels), (count, len(part.labels))


def _count(chunk: Pixels, counts: npt.NDArray[np.int64]) -> None:
    for channel in range(chunk.shape[1]):
        counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)


def _statistics(counts: npt.NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel from how often each value occurs: in whole numbers, so exact."""
    mean, std = [], []
    for channel in counts.tolist():
        total = sum(channel)
        first = sum(value * count for value, count in enumerate(channel))
        second = sum(value * value * count for value, count in enumerate(channel))
        mean.append(first / (255 * total))
        std.append(math.sqrt(total * second - first * first) / (255 * total) or 1.0)
    return mean, std


def _open(path: Path) -> Stored | None:
    """What the file holds; None if there is none, or none that is whole."""
    try:
        with path.open("rb") as file:
            header = _header(file)
            if header is None:
                return None
            shape = (int(header["shape"][0]), int(header["shape"][1]), int(header["shape"][2]))
            arrays: dict[Split, dict[str, int]] = header["arrays"]
            mapped = sum(place["samples"] for place in arrays.values()) * math.prod(shape) > MAPPED_ABOVE
            return Stored(
                classes=tuple(header["classes"]),
                shape=shape,
                splits={split: _images(path, file, place, shape, mapped) for split, place in arrays.items()},
                mean=tuple(header["mean"]),
                std=tuple(header["std"]),
                digest=str(header["digest"]),
            )
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return None


def _header(file: BinaryIO) -> dict[str, Any] | None:
    magic, at, length, checksum = _START.unpack(file.read(_START.size))
    size = os.fstat(file.fileno()).st_size
    if magic != _MAGIC or length > _MAX_HEADER or at + length > size:
        return None
    file.seek(at)
    text = file.read(length)
    if zlib.crc32(text) != checksum:
        return None
    header: dict[str, Any] = json.loads(text)
    row = math.prod(header["shape"])
    ends = [place["pixels"] + place["samples"] * row for place in header["arrays"].values()]
    return header if header["format"] == FORMAT and "train" in header["arrays"] and max(ends) <= size else None


def _images(path: Path, file: BinaryIO, place: dict[str, int], shape: tuple[int, int, int], mapped: bool) -> Images:
    samples = place["samples"]
    file.seek(place["labels"])
    labels: Labels = np.fromfile(file, "<i8", samples).astype(np.int64)
    pixels: Pixels
    if mapped:
        pixels = np.memmap(path, np.uint8, "r", place["pixels"], (samples, *shape))
    else:
        file.seek(place["pixels"])
        pixels = np.fromfile(file, np.uint8, samples * math.prod(shape)).reshape(samples, *shape)
        pixels.flags.writeable = False
    labels.flags.writeable = False
    return Images(pixels=pixels, labels=labels)
