"""Which images of many: evenly over the classes, and the same ones every time."""

from __future__ import annotations

import numpy as np

from edgecloud_trainer.data.dataset import Labels


def even_choice(labels: Labels, count: int) -> Labels:
    """Some images, each class with its share of them; the nth image of a class stands for those around it.

    Args:
        labels: int64 [N].
        count: how many; more than there are means all.

    Returns:
        int64, ascending: places in `labels`.
    """
    total = len(labels)
    if count >= total:
        return np.arange(total, dtype=np.int64)
    by_class = np.argsort(labels, kind="stable")
    chosen = by_class[np.arange(count, dtype=np.int64) * total // max(1, count)]
    return np.sort(chosen).astype(np.int64)
