"""Random numbers as a function of what they are for: a hash of (key, counter), with no state to save or to share.

numpy's Generator makes no promise that its shuffles and bounded integers stay the same from version to version (NEP
19), and a resumed training must see the order that it saw before. So the hash is our own: splitmix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", 2014), whose finaliser permutes the 64-bit numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
_MASK: Final = 2**64 - 1


def key_of(*words: int) -> int:
    """One 64-bit key from what it is for, such as a seed, a number that names the purpose, and an epoch."""
    key = 0
    for word in words:
        key = ((key + _GOLDEN) ^ word) & _MASK
        key = ((key ^ (key >> 30)) * _FIRST) & _MASK
        key = ((key ^ (key >> 27)) * _SECOND) & _MASK
        key ^= key >> 31
    return key


def hashes(key: int, counters: npt.NDArray[np.int64]) -> Hashes:
    """uint64, in the shape of `counters` (int64, >= 0). Different counters have different hashes under one key."""
    state = counters.astype(np.uint64)
    state += np.uint64(1)
    state *= np.uint64(_GOLDEN)
    state += np.uint64(key)
    state ^= state >> np.uint64(30)
    state *= np.uint64(_FIRST)
    state ^= state >> np.uint64(27)
    state *= np.uint64(_SECOND)
    state ^= state >> np.uint64(31)
    return state
