"""Splits that a set hasn't, held back from its training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from edgecloud_trainer.data.dataset import SPLITS, Contents, DataError, Part, Split, joined
from edgecloud_trainer.data.split import TEST, VALIDATION, stratified

_PURPOSES: Final[dict[Split, int]] = {"test": TEST, "validation": VALIDATION}


def hold_back(name: str, contents: Contents, fractions: Mapping[Split, float], *, seed: int) -> Contents:
    """The same images, some of the training images in other splits: by class, and by a seed.

    First the test images are taken, then, of those that are left, the validation images.

    Args:
        name: of the set, for messages.
        contents: what it has.
        fractions: each from 0 to below 1, of validation and test only; test's of the training images, validation's of
            those that are left (see `in_turn`).
        seed: another seed holds others back.

    Raises:
        DataError: the set has such a split already, or too few images.
    """
    train = contents.parts["train"]
    kept = np.arange(len(train.labels))
    parts: dict[Split, Part] = {split: part for split, part in contents.parts.items() if split != "train"}
    for split, purpose in _PURPOSES.items():
        if not (fraction := fractions.get(split, 0.0)):
            continue
        if split in parts:
            raise DataError(f"{name} has {split} images of its own: leave the part for {split} out")
        stay, held = stratified(train.labels[kept], fraction, seed=seed, purpose=purpose)
        if not len(held):
            raise DataError(f"{name} has too few images ({len(kept)}) to hold some back for {split}: add some")
        parts[split] = train.pick(kept[held])
        kept = kept[stay]
    parts["train"] = train.pick(kept)
    return replace(contents, parts=parts)


def in_turn(fractions: Mapping[Split, float]) -> dict[Split, float]:
    """Parts of all training images, as `hold_back` takes them: validation's of those that test leaves.

    Args:
        fractions: each from 0 to below 1, of validation and test only.

    Raises:
        DataError: they leave nothing to train on.
    """
    found = dict(fractions)
    test, validation = found.get("test", 0.0), found.get("validation", 0.0)
    if test + validation >= 1:
        raise DataError(
            f"validation={validation:g} and test={test:g} leave no images to train on: write parts whose sum is below 1"
        )
    if test and validation:
        found["validation"] = validation / (1 - test)
    return found


def together(contents: Contents) -> Contents:
    """The images of all splits as training images: those of train first, then validation's and test's."""
    parts = [contents.parts[split] for split in SPLITS if split in contents.parts]
    return replace(contents, parts={"train": joined(parts, contents.shape)})
