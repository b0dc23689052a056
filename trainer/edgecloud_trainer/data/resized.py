"""A set whose images lie in arrays, brought to another size as they are read."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from edgecloud_trainer.data.dataset import CHUNK_BYTES, Contents, Ids, Part, Pixels
from edgecloud_trainer.data.parallel import some_threads
from edgecloud_trainer.data.resize import Size, fit_pixels


def resized(contents: Contents, size: Size | None) -> Contents:
    """The same images, scaled and cut to a size; None: as they are."""
    channels, height, width = contents.shape
    at_once = max(1, CHUNK_BYTES // math.prod(contents.shape))
    if size is None or size == (width, height):
        return contents
    parts = {split: replace(part, take=partial(_take, part, at_once, size)) for split, part in contents.parts.items()}
    return replace(contents, shape=(channels, size.height, size.width), parts=parts)


def _take(part: Part, at_once: int, size: Size, ids: Ids) -> Pixels:
    """The images at some places; no more than `at_once` of them are in memory as they were."""
    fit = partial(fit_pixels, size=size)
    with ThreadPoolExecutor(some_threads(), "resize") as pool:
        return np.stack(
            [
                scaled
                for start in range(0, len(ids), at_once)
                for scaled in pool.map(fit, part.take(ids[start : start + at_once]))
            ]
        )
