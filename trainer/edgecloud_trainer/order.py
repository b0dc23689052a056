"""Which samples a step sees, in which order: a pure function of (seed, step).

So a checkpoint needs to store but one integer.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from edgecloud_trainer.hashing import hashes, key_of

Ids = npt.NDArray[np.int64]

_PURPOSE: Final = 1


def steps_per_epoch(samples: int, batch: int) -> int:
    """Whole batches in an epoch; what is left over waits for another epoch's order. At least 1.

    Raises:
        ValueError: there are no samples, or the batch is empty.
    """
    if samples < 1 or batch < 1:
        raise ValueError(f"{samples} samples in batches of {batch}: both must be at least 1")
    return max(1, samples // batch)


def validation_due(done: int, *, steps_per_epoch: int, total_steps: int, every: int) -> bool:
    """Whether it is time, after `done` steps, to look at the validation images.

    That is when an epoch has ended and the ranks have one model: so once for each epoch, or for those that end between
    two exchanges. Nothing else than the step counts, so that a training that goes on from there knows it too.

    Args:
        done: steps done so far.
        steps_per_epoch: see `steps_per_epoch`.
        total_steps: of the training; after the last one the ranks have one model as well.
        every: they have it after each so many steps.
    """
    if done < 1 or (done % every and done != total_steps):
        return False
    before = (done - 1) // every * every
    return done // steps_per_epoch > before // steps_per_epoch


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, samples: int) -> Ids:
    """The samples' ids in the order of an epoch: int64 [samples], a permutation, read-only.

    Sorted by a hash of (seed, epoch, id). The hashes differ from each other, so that the order depends neither on the
    sorting algorithm nor on numpy's version.
    """
    order = np.argsort(hashes(key_of(_PURPOSE, seed, epoch), np.arange(samples, dtype=np.int64))).astype(np.int64)
    order.flags.writeable = False
    return order


def batch_ids(seed: int, step: int, samples: int, batch: int) -> tuple[int, Ids]:
    """The epoch that a step (from 0) belongs to, and the ids of its global batch.

    Returns:
        epoch, and int64 [min(batch, samples)], read-only.
    """
    epoch, within = divmod(step, steps_per_epoch(samples, batch))
    return epoch, epoch_order(seed, epoch, samples)[within * batch : (within + 1) * batch]


def shard_bounds(batch: int, shards: int) -> tuple[tuple[int, int], ...]:
    """Where each virtual shard starts and ends in the global batch.

    They follow each other and cover it; their sizes differ by one at most, and the larger ones are spread over all of
    them, so that neighbours together have as much as other neighbours. With more shards than samples some are empty.

    Raises:
        ValueError: there is no shard.
    """
    if shards < 1 or batch < 0:
        raise ValueError(f"a batch of {batch} can't be cut into {shards} shards")
    return tuple(pairwise(shard * batch // shards for shard in range(shards + 1)))
