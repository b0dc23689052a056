"""A set whose images lie in arrays, brought to another size as they are read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from edgecloud_trainer.data.dataset import Contents, Ids, Part, Pixels
from edgecloud_trainer.data.parallel import some_threads
from edgecloud_trainer.data.resize import Size, fit_pixels


def resized(contents: Contents, size: Size | None) -> Contents:
    """The same images, scaled and cut to a size; None: as they are."""
    channels, height, width = contents.shape
    if size is None or size == (width, height):
        return contents
    parts = {split: replace(part, take=partial(_take, part, size)) for split, part in contents.parts.items()}
    return replace(contents, shape=(channels, size.height, size.width), parts=parts)


def _take(part: Part, size: Size, ids: Ids) -> Pixels:
    with ThreadPoolExecutor(some_threads(), "resize") as pool:
        return np.stack(list(pool.map(partial(fit_pixels, size=size), part.take(ids))))
