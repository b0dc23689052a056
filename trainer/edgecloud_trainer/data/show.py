"""What a prepared file looks like: some images of each class, and how many images each class has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgecloud_trainer.data.dataset import SPLITS, DataError, Ids, Labels, Split
from edgecloud_trainer.data.imagefile import Stored
from edgecloud_trainer.data.manifest import Manifest
from edgecloud_trainer.hashing import hashes, key_of
from edgecloud_trainer.labels import caption

if TYPE_CHECKING:
    from PIL import Image

MAX_CLASSES: Final = 40
"""Of a sheet; of more classes so many are shown, evenly chosen."""
MAX_PER_CLASS: Final = 40
MAX_BARS: Final = 40
"""Of a histogram with names; of more classes the counts are drawn in their order."""
_PURPOSE: Final = 21
_COLOURS: Final[dict[Split, str]] = {"train": "#4878a8", "validation": "#e0a458", "test": "#7a9e5f"}


def sheet(stored: Stored, split: Split, *, per_class: int, seed: int) -> Image.Image:
    """A row of images for each class, chosen by a seed.

    Args:
        stored: the file.
        split: what the images are taken from.
        per_class: images in a row, up to MAX_PER_CLASS.
        seed: another seed shows others.

    Raises:
        DataError: the file has no such split.
    """
    from edgecloud_trainer.sheets import Cell, contact_sheet

    if split not in stored.splits:
        raise DataError(f"{stored.path} has no {split} images: it has {', '.join(stored.splits)}")
    images, manifest = stored.splits[split], stored.manifest
    names = stored.names.get(split)
    channels, height, width = manifest.shape
    blank = np.full((channels, height, width), 255, np.uint8)
    cells: list[Cell] = []
    shown = shown_classes(len(manifest.classes))
    for label in shown:
        places = chosen(images.labels, label, per_class, seed=seed).tolist()
        for place in places:
            name = f"#{place}" if names is None else names[place].rpartition("/")[2]
            cells.append(Cell(pixels=np.array(images.pixels[place]), lines=(manifest.classes[label], name)))
        cells += [Cell(pixels=blank, lines=("" if places else manifest.classes[label],))] * (per_class - len(places))
    some = f" ({len(shown)} of {len(manifest.classes)} classes)" if len(shown) < len(manifest.classes) else ""
    title = f"{manifest.name}: {split}, {len(images):,} images of {width} x {height}{some}"
    return contact_sheet(cells, title=title, columns=per_class)


def shown_classes(classes: int) -> list[int]:
    """The numbers of the classes that a sheet shows: all, or MAX_CLASSES of them, evenly chosen."""
    if classes <= MAX_CLASSES:
        return list(range(classes))
    return [place * classes // MAX_CLASSES for place in range(MAX_CLASSES)]


def chosen(labels: Labels, label: int, count: int, *, seed: int) -> Ids:
    """Places of some images of a class, by a seed: the same for the same images, ascending."""
    ids = np.flatnonzero(labels == label)
    order = np.argsort(hashes(key_of(_PURPOSE, seed, label), ids), kind="stable")
    return np.sort(ids[order[:count]])


def histogram(manifest: Manifest, path: Path) -> None:
    """Draw how many images each class has in each split.

    Raises:
        OSError: the picture can't be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    named = len(manifest.classes) <= MAX_BARS
    size = (8, 1.6 + 0.3 * len(manifest.classes)) if named else (10, 5)
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    try:
        (_bars if named else _steps)(axis, manifest)
        axis.set_title(
            f"{caption(manifest.name)}: {sum(counts.images for counts in manifest.splits.values()):,} images"
        )
        if len(manifest.splits) > 1:
            figure.legend(frameon=False, loc="outside lower center", ncols=3)
        axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=110, format="png")
    finally:
        plt.close(figure)


def _bars(axis: Any, manifest: Manifest) -> None:
    places, left = np.arange(len(manifest.classes)), np.zeros(len(manifest.classes), np.int64)
    for split in (split for split in SPLITS if split in manifest.splits):
        counts = np.array(manifest.splits[split].per_class)
        axis.barh(places, counts, 0.75, left, color=_COLOURS[split], label=_labelled(manifest, split))
        left += counts
    for place, total in enumerate(left.tolist()):
        axis.annotate(f"{total:,}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(places, [caption(name) for name in manifest.classes])
    axis.invert_yaxis()
    axis.set_xlabel("images")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.margins(x=0.08, y=0.01)


def _steps(axis: Any, manifest: Manifest) -> None:
    order = np.argsort(-np.array(manifest.splits["train"].per_class), kind="stable")
    below = np.zeros(len(order), np.int64)
    for split in (split for split in SPLITS if split in manifest.splits):
        upper = below + np.array(manifest.splits[split].per_class)[order]
        axis.stairs(upper, baseline=below, color=_COLOURS[split], label=_labelled(manifest, split), fill=True)
        below = upper
    axis.set_xlabel(f"{len(order):,} classes, the largest in train first")
    axis.set_ylabel("images")
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_ylim(bottom=0)
    axis.margins(x=0)


def _labelled(manifest: Manifest, split: Split) -> str:
    return f"{split} ({manifest.splits[split].images:,})"
