"""Whether a prepared file is what its manifest says, to the last byte."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgecloud_trainer.data.dataset import CHUNK_BYTES, SPLITS, Labels, Pixels, Split
from edgecloud_trainer.data.imagefile import START_BYTES, Header, ImageFileError, Moments, read_header, split_start
from edgecloud_trainer.data.observer import Observer, Stage

OnImages = Callable[[Split, Pixels], None]


def _unseen(split: Split, chunk: Pixels) -> None:
    """Nobody wants to see the images."""


def check_file(path: Path, observer: Observer, on_images: OnImages = _unseen) -> list[str]:
    """Read a prepared file through.

    Args:
        path: the file.
        observer: is told how far it is.
        on_images: called with each split and some of its images, uint8 [n, C, H, W], in their order.

    Returns:
        What is wrong with it, each a sentence without the file's name; empty: nothing.

    Raises:
        OSError: it can't be read.
    """
    try:
        header, end = read_header(path)
    except ImageFileError as error:
        return [str(error)]
    return list(_problems(path, header, end, observer, on_images))


def _problems(path: Path, header: Header, end: int, observer: Observer, on_images: OnImages) -> Iterator[str]:
    manifest = header.manifest
    digest = hashlib.sha256(json.dumps([manifest.classes, manifest.shape]).encode())
    moments = Moments(manifest.shape[0])
    total, done = sum(place.samples for place in header.arrays.values()), 0
    names = hashlib.sha256()
    for split in (split for split in SPLITS if split in header.arrays):
        place = header.arrays[split]
        digest.update(split_start(split, place.samples))
        pixels: Pixels = np.memmap(path, np.uint8, "r", place.pixels, (place.samples, *manifest.shape))
        step = max(1, CHUNK_BYTES // math.prod(manifest.shape))
        for start in range(0, place.samples, step):
            chunk = pixels[start : start + step]
            digest.update(chunk.data)
            if split == "train":
                moments.add(chunk)
            on_images(split, chunk)
            done += len(chunk)
            observer.stage(Stage("checking", done, total, images=done))
        labels: Labels = np.memmap(path, "<i8", "r", place.labels, (place.samples,))
        digest.update(labels.tobytes())
        yield from _of_labels(split, labels, manifest.splits[split].per_class)
        if place.name_ends is not None and place.names is not None:
            with path.open("rb") as file:
                file.seek(place.names)
                names.update(file.read(place.name_bytes))
                file.seek(place.name_ends)
                names.update(file.read(8 * place.samples))
    if digest.hexdigest() != manifest.sha256:
        yield f"holds other images or labels than it was written with (sha256 {digest.hexdigest()})"
    if manifest.names_sha256 not in (None, names.hexdigest()):
        yield f"holds other names than it was written with (sha256 {names.hexdigest()})"
    if (mean_and_std := moments.mean_and_std()) != (manifest.mean, manifest.std):
        yield f"has other statistics than its manifest says (mean and deviation {mean_and_std})"
    if not _zero_between(path, header, end):
        yield "has bytes between its arrays that should be 0"


def _of_labels(split: Split, labels: Labels, per_class: tuple[int, ...]) -> Iterator[str]:
    if not 0 <= int(labels.min()) <= int(labels.max()) < len(per_class):
        yield f"has labels in {split} that no class has ({labels.min()} to {labels.max()})"
    elif np.bincount(labels, minlength=len(per_class)).tolist() != list(per_class):
        yield f"has other numbers of images per class in {split} than its manifest says"


def _zero_between(path: Path, header: Header, end: int) -> bool:
    """Whether nothing is hidden between the arrays."""
    before = START_BYTES
    with path.open("rb") as file:
        for start, stop in [*header.spans(), (end, end)]:
            file.seek(before)
            while before < start and (data := file.read(min(start - before, CHUNK_BYTES))):
                if data.strip(b"\0"):
                    return False
                before += len(data)
            before = stop
    return True
