"""The images that a network is converted with: the job's own, or others of the same classes and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecloud.api.trainer import DataSpec
from edgecloud.edge.card import ModelCard
from edgecloud_trainer import data
from edgecloud_trainer.appraisal.material import spec_of
from edgecloud_trainer.cards import published
from edgecloud_trainer.data import Dataset, Images
from edgecloud_trainer.data.dataset import Progress
from edgecloud_trainer.data.layout import as_it_looks
from edgecloud_trainer.export.errors import ExportError


def own_images(card: ModelCard, cache: Path, on_progress: Progress) -> Dataset:
    """The images that the network was trained and evaluated on.

    Raises:
        DataError: they aren't there.
        ExportError: they are others by now: test images might be among those that were trained on.
    """
    found = data.load(card.data, seed=card.seed, cache=cache, on_progress=on_progress)
    if found.digest != card.data_sha256:
        raise ExportError(
            f"{_shown(published(card).data)} holds other images than the network was trained on: put the first ones"
            " back, or name the images to use with --data"
        )
    return found


def other_images(card: ModelCard, place: str, cache: Path, on_progress: Progress) -> Dataset:
    """Images by name or path, split as the job's were.

    Raises:
        DataError, MaterialError: they aren't there.
        ExportError: they have other classes, or another size.
    """
    found = data.load(spec_of(place), seed=card.seed, cache=cache, on_progress=on_progress)
    looks, wanted = (tuple(map(as_it_looks, classes)) for classes in (found.classes, card.classes))
    # Sorted by name they may come in another order where Unicode spells them in another way.
    if sorted(looks) != sorted(wanted):
        raise ExportError(f"{place} has other classes than the network: {_difference(sorted(looks), sorted(wanted))}")
    if found.shape != card.shape:
        raise ExportError(
            f"{place} has images of {_size(found.shape)}, and the network takes {_size(card.shape)}: scale them"
        )
    return found if looks == wanted else _numbered(found, card.classes, [wanted.index(one) for one in looks])


def _numbered(found: Dataset, classes: tuple[str, ...], numbers: Sequence[int]) -> Dataset:
    """The same images with other numbers of their classes."""

    def images(some: Images) -> Images:
        return replace(some, labels=np.array(numbers, np.int64)[some.labels])

    validation = None if found.validation is None else images(found.validation)
    return replace(found, classes=classes, train=images(found.train), validation=validation, test=images(found.test))


def _shown(spec: DataSpec) -> str:
    return spec.name or spec.source or "trainer.data"


def _difference(found: Sequence[str], wanted: Sequence[str]) -> str:
    if len(found) != len(wanted):
        return f"{len(found)} instead of {len(wanted)}"
    place = next(number for number, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])
    return f"number {place + 1} is {found[place]!r:.80} instead of {wanted[place]!r:.80}"


def _size(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels in {channels} channel{'s' if channels != 1 else ''}"
