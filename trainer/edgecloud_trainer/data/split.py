"""Holding a part of the images back, the same part of each class, by a seed. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from edgecloud_trainer.hashing import hashes, key_of

TEST: Final = 11
VALIDATION: Final = 12


def stratified(
    labels: npt.NDArray[np.int64], fraction: float, *, seed: int, purpose: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut in two, each class in proportion.

    Of N samples the nearest whole number to `fraction` * N is held back, but at least 1; of a class with n samples one
    of the two whole numbers around `fraction` * n. No class loses all that it has, so it may be fewer.

    Args:
        labels: int64 [N].
        fraction: 0 < fraction < 1.
        seed: another seed holds others back.
        purpose: TEST or VALIDATION, so that the one is no function of the other.

    Returns:
        (kept, held): int64, ascending ids; disjoint, and together all of them.
    """
    _, counts = np.unique(labels, return_counts=True)
    exact = counts * fraction
    quota = np.minimum(np.floor(exact).astype(np.int64), counts - 1)
    wanted = max(1, round(fraction * len(labels)))
    # What rounding down left over goes to the classes that lost most by it, the first ones among equals.
    room = np.where(counts - 1 > quota, exact - quota, 0.0)
    for index in np.argsort(-room, kind="stable")[: max(0, wanted - int(quota.sum()))]:
        quota[index] += room[index] > 0
    random = hashes(key_of(purpose, seed), np.arange(len(labels), dtype=np.int64))
    order = np.lexsort((random, labels))
    first = np.repeat(np.cumsum(counts) - counts, counts)
    held = np.zeros(len(labels), dtype=np.bool_)
    held[order] = np.arange(len(labels)) - first < np.repeat(quota, counts)
    return np.flatnonzero(~held), np.flatnonzero(held)
