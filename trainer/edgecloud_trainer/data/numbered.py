"""Classes by numbers in an array of labels: whether there is something to learn of each that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from edgecloud_trainer.data.dataset import DataError, Part, Split
from edgecloud_trainer.data.observer import Observer

_NAMED: Final = 5
"""Labels in a message."""


def refuse_unlearnt(
    parts: Mapping[Split, Part], classes: Sequence[str], where: Mapping[Split, str], observer: Observer
) -> None:
    """See to it that the training images have every label that the others have; a class without any is noted.

    Args:
        parts: with labels from 0 to the number of classes - 1.
        classes: their names.
        where: what each part's labels were found in, for messages.
        observer: is told of classes without training images.

    Raises:
        DataError: other images have a label that no training image has.
    """
    learnt = np.bincount(parts["train"].labels, minlength=len(classes)) > 0
    for split, part in parts.items():
        if len(unlearnt := np.unique(part.labels[~learnt[part.labels]])):
            raise DataError(
                f"{where[split]} has labels that {where['train']} hasn't ({_some(unlearnt.tolist())}): the splits need "
                "the same classes, with the same numbers"
            )
    if empty := np.flatnonzero(~learnt).tolist():
        first = ": do its labels begin at 1? They count from 0" if empty == [0] else ""
        observer.note(
            f"{where['train']} has no training images of {len(empty)} of the {len(classes)} classes, those with the "
            f"labels {_some(empty)}{first}"
        )


def _some(labels: Sequence[int]) -> str:
    return ", ".join(map(str, labels[:_NAMED])) + (", ..." if len(labels) > _NAMED else "")
