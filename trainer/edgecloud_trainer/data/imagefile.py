"""The file that a data set is prepared into: decoded images, mapped if they are many, with a manifest.

    magic, where the header is, its length, its checksum | labels and pixels of each split | names of the images, if
    they have any | header (JSON: the manifest, and where everything is)

Each array stands at a multiple of 4096, with zeros before it. Integers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal, overload

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from edgecloud.api.base import Model
from edgecloud_trainer.data.dataset import SPLITS, Contents, Images, Labels, Part, Pixels, Split
from edgecloud_trainer.data.manifest import MAX_SKIPPED, Count, Counts, Left, Manifest, Provenance
from edgecloud_trainer.data.observer import Observer, Stage

SUFFIX: Final = ".images"
MAPPED_ABOVE: Final = 256 * 1024 * 1024
"""Bytes of pixels from which on they are memory-mapped instead of read."""
FORMAT: Final = 2

_MAGIC: Final = b"edgecloud-images"
_START: Final = struct.Struct("<16sQQL")
START_BYTES: Final = _START.size
_PAGE: Final = 4096
_MAX_HEADER: Final = 64 * 1024 * 1024
_NAMES_AT_ONCE: Final = 65536
_COUNTED_AT_ONCE: Final = 1 << 18


class ImageFileError(ValueError):
    """It is no file of decoded images, or no whole one. The message is what is wrong, without the file's name."""

    def __init__(self, message: str, *, is_foreign: bool = False) -> None:
        super().__init__(message)
        self.is_foreign = is_foreign
        """Whether it is something else altogether."""


class Place(Model):
    """Where a split is in the file."""

    samples: Annotated[int, Field(ge=1, le=1 << 48)]
    labels: Count
    pixels: Count
    name_ends: Count | None = None
    """Where each name ends in the bytes of all, int64."""
    names: Count | None = None
    name_bytes: Count = 0


class Header(Model):
    """What stands behind the arrays."""

    format: Literal[2] = FORMAT
    arrays: dict[Split, Place]
    manifest: Manifest

    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each array, ascending."""
        row, spans = math.prod(self.manifest.shape), []
        for place in self.arrays.values():
            spans += [(place.labels, 8 * place.samples), (place.pixels, row * place.samples)]
            if place.name_ends is not None and place.names is not None:
                spans += [(place.name_ends, 8 * place.samples), (place.names, place.name_bytes)]
        return sorted((start, start + length) for start, length in spans)


class Names(Sequence[str]):
    """The names of a split's images, read from the file as they are asked for."""

    def __init__(self, ends: npt.NDArray[np.int64], text: npt.NDArray[np.uint8]) -> None:
        self._ends = ends
        self._text = text

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        start = int(self._ends[place - 1]) if place else 0
        return self._text[start : int(self._ends[place])].tobytes().decode(errors="surrogateescape")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a file of decoded images holds."""

    path: Path
    manifest: Manifest
    splits: dict[Split, Images]
    names: Mapping[Split, Names]
    """Of those splits whose images have names."""


# -- writing


def write(path: Path, contents: Contents, provenance: Provenance, observer: Observer) -> Manifest:
    """The file, in one pass over the images; digest and statistics are taken on the way.

    Raises:
        OSError: it can't be written.
    """
    shape, present = contents.shape, [split for split in SPLITS if split in contents.parts]
    digest = hashlib.sha256(json.dumps([contents.classes, shape]).encode())
    moments = Moments(shape[0])
    places: dict[Split, Place] = {}
    offset = _PAGE
    for split in present:
        samples = len(contents.parts[split].labels)
        pixels_at = aligned(offset + 8 * samples)
        places[split] = Place(samples=samples, labels=offset, pixels=pixels_at)
        offset = aligned(pixels_at + samples * math.prod(shape))
    total, done = sum(place.samples for place in places.values()), 0
    with path.open("wb") as file:
        for split in present:
            part, place = contents.parts[split], places[split]
            digest.update(split_start(split, place.samples))
            file.seek(place.labels)
            file.write(part.labels.astype("<i8").tobytes())
            file.seek(place.pixels)
            for chunk in _checked(part, shape):
                digest.update(chunk.data)
                file.write(chunk.data)
                if split == "train":
                    moments.add(chunk)
                done += len(chunk)
                observer.stage(Stage("writing", done, total, images=done))
            digest.update(part.labels.astype("<i8").tobytes())
        names_digest, offset = _write_names(file, contents.parts, places, offset)
        mean, std = moments.mean_and_std()
        manifest = Manifest(
            edgecloud=metadata.version("edgecloud"),
            name=provenance.name,
            classes=contents.classes,
            shape=shape,
            splits={split: _counts(contents.parts[split].labels, len(contents.classes)) for split in present},
            mean=mean,
            std=std,
            sha256=digest.hexdigest(),
            names_sha256=names_digest,
            source=provenance.source,
            options=provenance.options,
            skipped=tuple(Left(name=fault.name, reason=fault.reason) for fault in contents.skipped[:MAX_SKIPPED]),
            skipped_count=contents.skipped_count,
            derived_from=provenance.derived_from,
        )
        text = json.dumps(Header(arrays=places, manifest=manifest).dump()).encode()
        file.seek(offset)
        file.write(text)
        file.seek(0)
        file.write(_START.pack(_MAGIC, offset, len(text), zlib.crc32(text)))
        file.flush()
        os.fsync(file.fileno())
    return manifest


def split_start(split: Split, samples: int) -> bytes:
    """What the digest takes in before a split's pixels and labels."""
    return json.dumps([split, samples]).encode()


def aligned(offset: int) -> int:
    """The next place where an array may stand."""
    return -(-offset // _PAGE) * _PAGE


def _counts(labels: Labels, classes: int) -> Counts:
    return Counts(images=len(labels), per_class=tuple(np.bincount(labels, minlength=classes).tolist()))


def _write_names(
    file: BinaryIO, parts: Mapping[Split, Part], places: dict[Split, Place], offset: int
) -> tuple[str | None, int]:
    """Write the names of those splits that have them, and note in `places` where; (their digest, the file's end)."""
    digest = hashlib.sha256()
    named = False
    for split, place in list(places.items()):
        if (names := parts[split].names) is None:
            continue
        named = True
        text_at = aligned(offset + 8 * place.samples)
        lengths = np.zeros(place.samples, np.int64)
        file.seek(text_at)
        for start in range(0, place.samples, _NAMES_AT_ONCE):
            some = [name.encode(errors="surrogateescape") for name in names[start : start + _NAMES_AT_ONCE]]
            lengths[start : start + len(some)] = [len(name) for name in some]
            text = b"".join(some)
            digest.update(text)
            file.write(text)
        ends = np.cumsum(lengths).astype("<i8")
        digest.update(ends.tobytes())
        file.seek(offset)
        file.write(ends.tobytes())
        places[split] = place.model_copy(update={"name_ends": offset, "names": text_at, "name_bytes": int(ends[-1])})
        offset = aligned(text_at + int(ends[-1]))
    return (digest.hexdigest() if named else None), offset


def _checked(part: Part, shape: tuple[int, int, int]) -> Iterator[Pixels]:
    """The chunks, contiguous; a source that gives other images than it said is a bug of ours."""
    count = 0
    for chunk in part.chunks():
        assert chunk.dtype == np.uint8 and chunk.shape[1:] == shape, (chunk.dtype, chunk.shape, shape)
        count += len(chunk)
        yield np.ascontiguousarray(chunk)
    assert count == len(part.labels), (count, len(part.labels))


class Moments:
    """Mean and deviation of each channel, from how often each value occurs: in whole numbers, so exact."""

    def __init__(self, channels: int) -> None:
        self._counts = np.zeros((channels, 256), np.int64)

    def add(self, chunk: Pixels) -> None:
        """More images, uint8 [n, C, H, W]."""
        for channel in range(len(self._counts)):
            values = chunk[:, channel].ravel()
            for start in range(0, len(values), _COUNTED_AT_ONCE):
                # bincount takes four times as long to convert them by itself.
                some = values[start : start + _COUNTED_AT_ONCE].astype(np.intp)
                self._counts[channel] += np.bincount(some, minlength=256)

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of the values scaled to 0..1; a deviation of 0 is given as 1."""
        mean, std = [], []
        for channel in self._counts.tolist():
            total = sum(channel)
            first = sum(value * count for value, count in enumerate(channel))
            second = sum(value * value * count for value, count in enumerate(channel))
            mean.append(first / (255 * total))
            std.append(math.sqrt(total * second - first * first) / (255 * total) or 1.0)
        return tuple(mean), tuple(std)


# -- reading


def is_image_file(path: Path) -> bool:
    """Whether it begins as such a file does.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_header(path: Path) -> tuple[Header, int]:
    """The header of a file, and where it stands.

    Raises:
        ImageFileError: it is none, or isn't whole, or of another version.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        start = file.read(_START.size)
        if start[: len(_MAGIC)] != _MAGIC:
            raise ImageFileError("is no prepared file", is_foreign=True)
        if len(start) < _START.size:
            raise ImageFileError("ends within its first line")
        _, at, length, checksum = _START.unpack(start)
        size = os.fstat(file.fileno()).st_size
        if not _START.size <= at <= size or length > _MAX_HEADER or at + length != size:
            raise ImageFileError(f"has {size} bytes and should have {at + length}")
        file.seek(at)
        text = file.read(length)
    if zlib.crc32(text) != checksum:
        raise ImageFileError("has a damaged header")
    try:
        header = Header.model_validate_json(text, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ImageFileError(f"has a header that can't be used ({field}: {first['msg']})") from None
    _refuse_overlap(header, at)
    return header, at


def _refuse_overlap(header: Header, end: int) -> None:
    """Each array is behind the one before it and within the file, and of the size that the manifest says."""
    if {split: place.samples for split, place in header.arrays.items()} != {
        split: counts.images for split, counts in header.manifest.splits.items()
    }:
        raise ImageFileError("has a header that contradicts its manifest")
    before = _START.size
    for start, stop in header.spans():
        if start < before or stop > end:
            raise ImageFileError("has a header that says its arrays overlap, or lie outside of it")
        before = stop


def open_images(path: Path) -> Stored:
    """What the file holds; pixels are mapped if they are many. The digest isn't checked.

    Raises:
        ImageFileError: it is no such file, isn't whole, or has labels without a class.
        OSError: it can't be read.
    """
    header, _ = read_header(path)
    row = math.prod(header.manifest.shape)
    mapped = sum(place.samples for place in header.arrays.values()) * row > MAPPED_ABOVE
    splits: dict[Split, Images] = {}
    names: dict[Split, Names] = {}
    for split, place in header.arrays.items():
        splits[split] = _images(path, place, header.manifest.shape, mapped)
        if place.name_ends is not None and place.names is not None:
            at = partial(np.memmap, path, mode="r")
            text = at(dtype=np.uint8, offset=place.names, shape=(place.name_bytes,)) if place.name_bytes else b""
            ends = at(dtype="<i8", offset=place.name_ends, shape=(place.samples,))
            names[split] = Names(np.asarray(ends, np.int64), np.frombuffer(text, np.uint8))
        if not 0 <= int(splits[split].labels.min()) <= int(splits[split].labels.max()) < len(header.manifest.classes):
            raise ImageFileError(f"has labels in {split} that no class has")
    return Stored(path=path, manifest=header.manifest, splits=splits, names=names)


def _images(path: Path, place: Place, shape: tuple[int, int, int], mapped: bool) -> Images:
    with path.open("rb") as file:
        file.seek(place.labels)
        labels: Labels = np.fromfile(file, "<i8", place.samples).astype(np.int64)
        pixels: Pixels
        if mapped:
            pixels = np.memmap(path, np.uint8, "r", place.pixels, (place.samples, *shape))
        else:
            file.seek(place.pixels)
            pixels = np.fromfile(file, np.uint8, place.samples * math.prod(shape)).reshape(place.samples, *shape)
            pixels.flags.writeable = False
    labels.flags.writeable = False
    return Images(pixels=pixels, labels=labels)
