"""Image files through a converted model, some at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from edgecloud.edge.fitting import Way, fitted
from edgecloud.edge.images import MAX_FILE_BYTES, ImageError, Pixels
from edgecloud.edge.runtime import EdgeModel, images_in_a_run, softmax

MAX_BATCH: Final = 32
_MAX_DECODERS: Final = 4
_AT_ONCE: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""How a file is opened that may be a pipe, on any system."""


@dataclass(frozen=True)
class Prediction:
    """What the model sees in an image. ranked: every class with its probability, the likeliest first."""

    image: Path
    ranked: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Refused:
    """An image that can't be used, and why; the sentence names the file."""

    image: Path
    message: str


def predict(model: EdgeModel, images: Iterable[Path], *, top: int, way: Way = "crop") -> Iterator[Prediction | Refused]:
    """The answer for each image, in their order. No more than a batch of them is in memory.

    Args:
        model: see `runtime.open_model`.
        images: files, whoever made them.
        top: classes to name of each, at most as many as there are.
        way: see `fitting`.

    Raises:
        ModelFileError: the model fails.
    """
    network = model.card.network
    batch = images_in_a_run(network.shape, MAX_BATCH)
    rest = iter(images)
    with ThreadPoolExecutor(min(_MAX_DECODERS, model.threads), "decode") as pool:
        while some := list(islice(rest, batch)):
            pixels = list(pool.map(partial(_pixels, shape=network.shape, way=way), some))
            good = [one for one in pixels if not isinstance(one, Refused)]
            probabilities = iter(softmax(model.logits(np.stack(good)))) if good else iter(())
            for path, one in zip(some, pixels, strict=True):
                if isinstance(one, Refused):
                    yield one
                    continue
                row = next(probabilities)
                order = np.argsort(-row, kind="stable")[:top]
                yield Prediction(path, tuple((network.classes[place], float(row[place])) for place in order))


def _pixels(path: Path, *, shape: tuple[int, int, int], way: Way) -> Pixels | Refused:
    try:
        return fitted(_read(path), shape, way)
    except ImageError as error:
        return Refused(path, f"{path} {error}")
    except OSError as error:
        return Refused(path, f"{path} can't be read ({error.strerror or error}): check it and its rights")


def _read(path: Path) -> bytes:
    """The file's bytes; a pipe or a device might have no end."""
    descriptor = os.open(path, _AT_ONCE)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - opened already
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("is no file that holds an image: name an image file, or a folder of them")
        if found.st_size > MAX_FILE_BYTES:
            raise ImageError(f"has {found.st_size} bytes, more than {MAX_FILE_BYTES}: scale it down, or take it out")
        return file.read(MAX_FILE_BYTES)
