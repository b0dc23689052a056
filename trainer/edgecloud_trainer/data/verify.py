"""A prepared file, or a source, read through: what is broken, and which images are there more than once."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field

from edgecloud.api.base import Model
from edgecloud_trainer.data.checking import check_file
from edgecloud_trainer.data.dataset import SPLITS, Contents, DataError, Fault, Labels, Split
from edgecloud_trainer.data.duplicates import Fingerprints, repeats
from edgecloud_trainer.data.files import ImageFiles, Reading, laid_out
from edgecloud_trainer.data.imagefile import ImageFileError, open_images
from edgecloud_trainer.data.locate import find_source, is_there
from edgecloud_trainer.data.manifest import MAX_NAME, MAX_REASON, Count, Left, Text
from edgecloud_trainer.data.observer import Observer, Stage
from edgecloud_trainer.data.parallel import decode_all

MAX_GROUPS: Final = 100
"""Of equal images that are named."""
MAX_PLACES: Final = 10
"""Of a group that are named."""
MAX_SIZES: Final = 20
"""Of images that are counted."""


class Spot(Model):
    """Where an image is."""

    split: Split
    position: Count = Field(description="From 0, in its split.")
    label: str = Field(description="Its class.")
    name: Text | None = Field(None, description="Its file.")

    def __str__(self) -> str:
        return self.name or f"{self.split}[{self.position}]"


class Group(Model):
    """Images that are the same."""

    images: Count = Field(description="How many.")
    spots: tuple[Spot, ...] = Field(description=f"The first {MAX_PLACES}.")


class Duplicates(Model):
    """Images that are there more than once, by their pixels."""

    within: dict[Split, Count] = Field(
        default_factory=dict, description="Images that are there before in the same split."
    )
    leaked: dict[Split, dict[Split, Count]] = Field(
        default_factory=dict, description="Images of a split that are in another one, too."
    )
    conflicting: Count = Field(0, description="Images that are there again with another label.")
    groups: tuple[Group, ...] = Field((), description=f"At most {MAX_GROUPS}, first those in several splits.")


class Size(Model):
    """How many images have a size."""

    width: Count
    height: Count
    images: Count


class Verdict(Model):
    """What was found."""

    source: Text
    kind: Literal["file", "source"] = Field(description="A prepared file, or something else.")
    images: Count = Field(description="That were read.")
    splits: dict[Split, Count] = Field(default_factory=dict)
    sha256: Annotated[str, Field(max_length=64)] | None = Field(None, description="Of the prepared file's contents.")
    problems: tuple[Text, ...] = Field((), description="What is wrong with it as a whole.")
    broken: tuple[Left, ...] = Field((), description="Files that can't be used.")
    sizes: tuple[Size, ...] = Field((), description="Of the source's images, the most frequent first.")
    duplicates: Duplicates = Field(default_factory=Duplicates)

    def ok(self, *, strict: bool) -> bool:
        """Whether it may be used; strict: duplicates within a split count, too."""
        leaked = any(count for others in self.duplicates.leaked.values() for count in others.values())
        within = any(self.duplicates.within.values())
        return not (self.problems or self.broken or leaked or (strict and within))


def verify(text: str, observer: Observer, *, follow_links: bool = False) -> Verdict:
    """Read a prepared file or a source through.

    Args:
        text: a path, a URL or a name.
        observer: is told how far it is.
        follow_links: links that lead out of a folder aren't broken.

    Raises:
        DataError: there is nothing that could be read.
    """
    path = Path(text)
    if is_there(path) and path.is_file():
        try:
            damaged = open_damaged(path)
        except OSError as error:
            raise DataError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error
        if damaged:
            return Verdict(source=text, kind="file", images=0, problems=(damaged,))
    source = find_source(text, observer, skip_broken=True, follow_links=follow_links)
    with tempfile.TemporaryDirectory(prefix="edgecloud-verify-") as scratch:
        reading = Reading(scratch=Path(scratch), observer=observer, skip_broken=True)
        here = source.here(reading)
        if here.kind == "prepared" and here.single is not None:
            return _of_file(here.location, here.single, observer)
        if here.files is not None:
            return _of_files(text, here.files(), observer)
        return _of_contents(text, here.read(reading), observer)


def open_damaged(path: Path) -> str:
    """What is wrong with a prepared file that can't even be opened; "" if it can, or is something else.

    Raises:
        OSError: it can't be read.
    """
    try:
        open_images(path)
    except ImageFileError as error:
        return "" if error.is_foreign else str(error)
    return ""


class _Catalogue(NamedTuple):
    """What is known of each image, in the order of their fingerprints."""

    classes: Sequence[str]
    splits: Labels
    """int64 [N], places in SPLITS."""
    labels: Labels
    positions: Labels
    """int64 [N], in its split."""
    names: Mapping[Split, Sequence[str]]

    def spot(self, place: int) -> Spot:
        """Where an image is."""
        split, position = SPLITS[int(self.splits[place])], int(self.positions[place])
        name = self.names[split][position] if split in self.names else None
        return Spot(split=split, position=position, label=self.classes[int(self.labels[place])], name=name)

    def counts(self) -> dict[Split, int]:
        """How many images each split has."""
        return {
            split: int((self.splits == number).sum()) for number, split in enumerate(SPLITS) if number in self.splits
        }


def _catalogue(
    classes: Sequence[str], labels: Mapping[Split, Labels], names: Mapping[Split, Sequence[str]]
) -> _Catalogue:
    present = [split for split in SPLITS if split in labels]
    return _Catalogue(
        classes,
        np.concatenate([np.full(len(labels[split]), SPLITS.index(split)) for split in present]),
        np.concatenate([labels[split] for split in present]),
        np.concatenate([np.arange(len(labels[split])) for split in present]),
        names,
    )


def _of_file(text: str, path: Path, observer: Observer) -> Verdict:
    fingerprints = Fingerprints()
    problems = check_file(path, observer, lambda split, chunk: fingerprints.add(chunk))
    stored = open_images(path)
    labels = {split: images.labels for split, images in stored.splits.items()}
    catalogue = _catalogue(stored.manifest.classes, labels, stored.names)
    return Verdict(
        source=text,
        kind="file",
        images=len(fingerprints),
        splits=catalogue.counts(),
        sha256=stored.manifest.sha256,
        problems=tuple(problems),
        duplicates=_duplicates(fingerprints, catalogue),
    )


def _of_contents(text: str, contents: Contents, observer: Observer) -> Verdict:
    fingerprints = Fingerprints()
    parts = {split: contents.parts[split] for split in SPLITS if split in contents.parts}
    total = sum(len(part.labels) for part in parts.values())
    for part in parts.values():
        for chunk in part.chunks():
            fingerprints.add(chunk)
            observer.stage(Stage("checking", len(fingerprints), total, images=len(fingerprints)))
    names = {split: part.names for split, part in parts.items() if part.names is not None}
    catalogue = _catalogue(contents.classes, {split: part.labels for split, part in parts.items()}, names)
    _, height, width = contents.shape
    return Verdict(
        source=text,
        kind="source",
        images=total,
        splits=catalogue.counts(),
        sizes=(Size(width=width, height=height, images=total),),
        duplicates=_duplicates(fingerprints, catalogue),
    )


def _of_files(text: str, files: ImageFiles, observer: Observer) -> Verdict:
    fingerprints, arrivals, broken = Fingerprints(), dict[str, int](), list[Fault]()
    sizes: Counter[tuple[int, int]] = Counter()
    for done in decode_all(files.encoded(), threads=files.threads, helpers=not files.threads):
        for one in done:
            if isinstance(one.pixels, DataError):
                broken.append(Fault(one.name, str(one.pixels)))
                continue
            arrivals[one.name] = len(fingerprints)
            fingerprints.add(one.pixels[None])
            sizes[one.pixels.shape[2], one.pixels.shape[1]] += 1
        read = len(fingerprints) + len(broken)
        observer.stage(files.stage(read, read))
    read_through = partial(
        Verdict,
        source=text,
        kind="source",
        images=len(fingerprints),
        sizes=tuple(
            Size(width=wide, height=high, images=count) for (wide, high), count in sizes.most_common(MAX_SIZES)
        ),
    )
    try:
        names, layout = laid_out(files, [fault.name for fault in broken], broken)
    except DataError as error:
        if not broken:
            raise
        return read_through(problems=(str(error),), broken=_left(broken))
    ordered = {
        split: [names[position] for _, position in layout.splits[split]] for split in SPLITS if split in layout.splits
    }
    labels = {split: np.array([label for label, _ in items], np.int64) for split, items in layout.splits.items()}
    catalogue = _catalogue(layout.classes, labels, ordered)
    order = np.array([arrivals[name] for several in ordered.values() for name in several], np.int64)
    return read_through(
        splits=catalogue.counts(),
        broken=_left(broken),
        duplicates=_duplicates(fingerprints.pick(order), catalogue),
    )


def _left(broken: Sequence[Fault]) -> tuple[Left, ...]:
    return tuple(Left(name=fault.name[:MAX_NAME], reason=fault.reason[:MAX_REASON]) for fault in broken)


def _duplicates(fingerprints: Fingerprints, catalogue: _Catalogue) -> Duplicates:
    found = repeats(fingerprints.equal(), catalogue.splits, catalogue.labels, most=MAX_GROUPS)
    present = [(number, split) for number, split in enumerate(SPLITS) if split in catalogue.counts()]
    return Duplicates(
        within={split: int(found.within[number]) for number, split in present},
        leaked={
            split: {other: int(found.between[number, place]) for place, other in present if place != number}
            for number, split in present
        },
        conflicting=found.conflicting,
        groups=tuple(
            Group(images=len(places), spots=tuple(catalogue.spot(place) for place in places[:MAX_PLACES].tolist()))
            for places in found.groups
        ),
    )
