"""Images that are there more than once, by their pixels; in two splits they make a test worthless."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecloud_trainer.data.dataset import Ids, Labels, Pixels

_BYTES: Final = 16


class Fingerprints:
    """A digest of each image, in the order they were added."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def __len__(self) -> int:
        return len(self._digests) // _BYTES

    def add(self, images: Pixels) -> None:
        """More images, uint8 [n, C, H, W]."""
        shape = repr(images.shape[1:]).encode()
        for image in images:
            self._digests += hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=_BYTES, key=shape).digest()

    def pick(self, ids: Ids) -> Fingerprints:
        """Those at these places, in this order."""
        picked = Fingerprints()
        rows = np.frombuffer(bytes(self._digests), np.uint8).reshape(-1, _BYTES)[ids]
        picked._digests = bytearray(rows.tobytes())
        return picked

    def equal(self) -> Iterator[npt.NDArray[np.int64]]:
        """The places of images that are the same, ascending; only of those that are there more than once."""
        halves = np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, 2)
        order = np.lexsort((np.arange(len(halves)), halves[:, 0], halves[:, 1]))
        same = (halves[order[1:]] == halves[order[:-1]]).all(1)
        begins = np.flatnonzero(np.concatenate(([True], ~same))) if len(halves) else np.zeros(0, np.int64)
        for start, stop in pairwise([*begins.tolist(), len(halves)]):
            if stop - start > 1:
                yield order[start:stop]


class Repeats(NamedTuple):
    """How often images are there again."""

    within: npt.NDArray[np.int64]
    """[splits]: images of a split that are there before in the same split."""
    between: npt.NDArray[np.int64]
    """[splits, splits]: images of the one split that are in the other one, too."""
    conflicting: int
    """Images that are there again with another label."""
    groups: list[npt.NDArray[np.int64]]
    """The places of equal images: first of those in several splits, then of those with several labels."""


def repeats(equal: Iterator[npt.NDArray[np.int64]], splits: Labels, labels: Labels, *, most: int) -> Repeats:
    """Count what is there again. Pure.

    Args:
        equal: the places of equal images.
        splits: int64 [N], the number of each image's split, from 0.
        labels: int64 [N].
        most: groups that are kept.
    """
    count = int(splits.max()) + 1 if len(splits) else 0
    within, between = np.zeros(count, np.int64), np.zeros((count, count), np.int64)
    conflicting = 0
    ranked: list[tuple[int, npt.NDArray[np.int64]]] = []
    kept = [0, 0, 0]
    for places in equal:
        there = np.bincount(splits[places], minlength=count)
        within += np.maximum(there - 1, 0)
        between += np.outer(there, there > 0)
        differ = len(set(labels[places].tolist())) > 1
        conflicting += differ * (len(places) - 1)
        rank = 0 if (there > 0).sum() > 1 else 1 if differ else 2
        if kept[rank] < most:
            kept[rank] += 1
            ranked.append((rank, places))
    np.fill_diagonal(between, 0)
    ranked.sort(key=lambda one: one[0])
    return Repeats(within, between, conflicting, [places for _, places in ranked[:most]])
