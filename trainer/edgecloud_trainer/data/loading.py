"""From `trainer.data` to a data set: find the source, read it once into the cache, and split it."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data.dataset import (
    SPLITS,
    Contents,
    DataError,
    Dataset,
    Images,
    Progress,
    Split,
    TransferError,
)
from edgecloud_trainer.data.files import Reading
from edgecloud_trainer.data.filesystem import is_url
from edgecloud_trainer.data.holding import hold_back
from edgecloud_trainer.data.imagefile import Stored
from edgecloud_trainer.data.locate import find_source
from edgecloud_trainer.data.manifest import Options, Provenance
from edgecloud_trainer.data.named import named_source
from edgecloud_trainer.data.observer import Observer, Stage
from edgecloud_trainer.data.prepared import as_contents, open_prepared
from edgecloud_trainer.data.remembering import recall, remember
from edgecloud_trainer.data.source import Source
from edgecloud_trainer.data.store import stored

log = logging.getLogger(__name__)


def _silent(done: int, total: int) -> None:
    """Nobody wants to know."""


class _Teller(Observer):
    """Tells a plain function."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def stage(self, stage: Stage) -> None:
        if stage.name == "waiting":
            self._progress(0, 0)
        elif stage.name in ("downloading", "decoding") and stage.total:
            self._progress(stage.done, stage.total)

    def note(self, text: str) -> None:
        log.info("%s", text)


def load(spec: DataSpec, *, seed: int, cache: Path, on_progress: Progress = _silent, whole: bool = False) -> Dataset:
    """The data set that a job names.

    The images are decoded once and kept in `cache`; several processes may call this at once. A prepared file is used
    where it is. A source without test images has a tenth of them held back (of digits a fifth), and
    `validation_fraction` holds back a part of the training images; both by class and seed.

    Args:
        spec: the job's `trainer.data`.
        seed: of the splits.
        cache: a folder to write to.
        on_progress: called with (done, total), and with (0, 0) while another process reads the images.
        whole: the splits are those that the source has: nothing is held back, and `test` may be empty.

    Raises:
        DataError: the data aren't there, are broken, or don't go with the spec.
    """
    observer = _Teller(on_progress)
    found = _found(spec, cache, observer)
    name, there = found.name, found.stored
    if whole:
        return _dataset(name, there)
    fraction = spec.validation_fraction
    if fraction and "validation" in there.splits:
        raise DataError(f"{name} has validation images of its own: leave validationFraction out")
    if not fraction and "test" in there.splits:
        return _dataset(name, there)
    test = 0.0 if "test" in there.splits else found.test_fraction
    key = sha256(f"{found.key} {seed} {fraction!r} {test!r}".encode()).hexdigest()[:40]
    wanted: dict[Split, float] = {"test": test, "validation": fraction}
    fractions = {split: part for split, part in wanted.items() if part}

    def divided(scratch: Path) -> tuple[Contents, Provenance]:
        options = there.manifest.options.model_copy(update={"split": fractions, "seed": seed})
        provenance = Provenance(
            name=name, source=there.manifest.source, options=options, derived_from=there.manifest.sha256
        )
        return hold_back(name, as_contents(there), fractions, seed=seed), provenance

    return _dataset(name, stored(cache, key, divided, observer))


def _source(spec: DataSpec, observer: Observer) -> Source:
    if spec.name is not None:
        return named_source(spec.name)
    if spec.source is None:
        raise DataError("trainer.data has neither name nor source: write one of them")
    return find_source(spec.source, observer, named=False)


class _Found(NamedTuple):
    """A source's images."""

    key: str
    name: str
    stored: Stored
    test_fraction: float = Source.test_fraction


def _found(spec: DataSpec, cache: Path, observer: Observer) -> _Found:
    """The images that a job names, as they are there or in the cache."""
    try:
        source = _source(spec, observer)
    except TransferError as error:
        if (known := recall(cache, str(spec.source))) is None:
            raise
        log.warning("%s; the images that it had are used", error)
        return _Found(*known)
    if source.kind == "prepared" and source.single is not None:
        return _Found(source.key, source.name, open_prepared(source.single))

    def read(scratch: Path) -> tuple[Contents, Provenance]:
        reading = Reading(scratch=scratch, observer=observer, downloads=cache)
        here = source.here(reading)
        return here.read(reading), Provenance(name=source.name, source=here.origin(), options=Options())

    whole = stored(cache, source.key, read, observer)
    if spec.source is not None and is_url(spec.source):
        remember(cache, spec.source, key=source.key, name=source.name)
    return _Found(source.key, source.name, whole, source.test_fraction)


def _dataset(name: str, found: Stored) -> Dataset:
    splits: dict[Split, Images] = found.splits
    train = splits["train"]
    return Dataset(
        name=name,
        train=train,
        validation=splits.get("validation"),
        test=splits["test"] if "test" in splits else Images(pixels=train.pixels[:0], labels=train.labels[:0]),
        classes=found.manifest.classes,
        mean=found.manifest.mean,
        std=found.manifest.std,
        digest=found.manifest.sha256,
        names=found.names,
        held_back=tuple(split for split in SPLITS if split in found.manifest.options.split),
    )
