"""The labelled images that models are held against, and which of a model's classes each label means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from edgecloud.api.trainer import DataSpec
from edgecloud.edge.card import ModelCard
from edgecloud.edge.looking import is_folder, is_there
from edgecloud_trainer.cards import local_path
from edgecloud_trainer.data import Dataset, Images, load
from edgecloud_trainer.data.dataset import Labels, Pixels, Progress
from edgecloud_trainer.data.layout import as_it_looks

Choice = Literal["test", "validation", "train", "all"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CACHE: Final = Path("edgecloud/data")


class MaterialError(ValueError):
    """The images don't go with the model, or aren't there. The message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Labelled images, in an order that is always the same."""

    name: str
    choice: Choice
    digest: str
    """Of the whole data set; see Dataset."""
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    parts: Mapping[str, Images]
    """By the name of their split."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Likewise, each image's file, if they were files."""

    def __len__(self) -> int:
        return sum(len(images) for images in self.parts.values())

    def pieces(self, size: int) -> Iterator[tuple[Pixels, Labels]]:
        """All images and labels, no more than so many at a time."""
        for images in self.parts.values():
            for start in range(0, len(images), size):
                yield images.pixels[start : start + size], images.labels[start : start + size]

    def image(self, number: int) -> tuple[str, Pixels]:
        """One image, uint8 [C, H, W], and what to call it: its file, or its place in its split, such as `test/17`."""
        for split, images in self.parts.items():
            if number < len(images):
                name = self.names[split][number] if split in self.names else f"{split}/{number}"
                return name, np.array(images.pixels[number])
            number -= len(images)
        raise IndexError(number)


def spec_of(data: str) -> DataSpec:
    """What somebody means by a name or a path: a path if there is one, else a name."""
    if _NAME.fullmatch(data) and not is_there(Path(data)):
        return DataSpec(name=data)
    if len(data) > 1024:
        raise MaterialError(f"--data {data[:64]}...: this is no path: write at most 1024 characters")
    return DataSpec(source=data)


def cache_folder(workdir: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Where decoded images are kept: in the run's own folder, else in the user's cache."""
    if workdir is not None and is_folder(workdir / "data"):
        return workdir / "data"
    cache = environment.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / _CACHE


def still_there(spec: DataSpec) -> DataSpec:
    """The images that a model was trained with, as its card names them.

    Raises:
        MaterialError: they lay on this machine, and don't any more.
    """
    path = local_path(spec)
    if path is not None and not is_there(path):
        said = f"{path}" if path.is_absolute() else f"{path} (looked for in {Path.cwd()})"
        raise MaterialError(f"{said} isn't there, where the model's training had its images: name them with --data")
    return spec


def gather(
    spec: DataSpec, choice: Choice, *, seed: int, cache: Path, on_progress: Progress, own: bool = False
) -> Material:
    """Read the images, or find them in the cache.

    Of those of the training as many are held back as there; of others only for a split that is asked for.

    Args:
        spec: which data.
        choice: a split, or all of them together.
        seed: of the split, where the data has none of its own.
        cache: see `data.load`.
        on_progress: likewise.
        own: whether the model was trained with them.

    Raises:
        DataError: they can't be read.
        MaterialError: there is no such split.
    """
    whole = not own and choice in ("train", "all")
    found = load(spec, seed=seed, cache=cache, on_progress=on_progress, whole=whole)
    splits: dict[str, Images | None] = {"train": found.train, "validation": found.validation, "test": found.test}
    parts = {
        name: images
        for name, images in splits.items()
        if images is not None and choice in (name, "all") and len(images)
    }
    if not parts:
        there = ", ".join(name for name, images in splits.items() if images is not None and len(images))
        raise MaterialError(f"{found.name} has no {choice} images, only {there}: name one of these with --split")
    return _material(found, choice, parts)


def _material(found: Dataset, choice: Choice, parts: Mapping[str, Images]) -> Material:
    return Material(
        name=found.name, choice=choice, digest=found.digest, classes=found.classes, shape=found.shape, parts=parts,
        names={split: names for split, names in found.names.items() if split in parts},
    )  # fmt: skip


def meaning(material: Material, card: ModelCard) -> npt.NDArray[np.int64]:
    """For each class of the data its number among the model's: classes are the same if their names look the same.

    Raises:
        MaterialError: the model doesn't know one of them, or takes other images.
    """
    if material.shape != card.shape:
        _, height, width = card.shape
        remedy = f"prepare them with edgecloud data prepare --resize {width}x{height}"
        if material.shape[1:] == card.shape[1:]:
            remedy = "convert the files"
        raise MaterialError(
            f"{material.name} has images of {_size(material.shape)}, and the model takes {_size(card.shape)}: {remedy}"
        )
    places = {as_it_looks(name): place for place, name in enumerate(card.classes)}
    unknown = [name for name in material.classes if as_it_looks(name) not in places]
    if unknown:
        raise MaterialError(
            f"{material.name} has classes that the model doesn't know: {_some(unknown)}; it knows "
            f"{_some(card.classes)}: rename the class folders, or leave these out"
        )
    return np.array([places[as_it_looks(name)] for name in material.classes], np.int64)


def _size(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{width}x{height} pixels ({kind})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
