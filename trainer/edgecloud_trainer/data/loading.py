"""From `trainer.data` to a data set: find the source, read it once into the cache, and split it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from edgecloud.api.trainer import DataSpec
from edgecloud_trainer.data.cifar import cifar_source
from edgecloud_trainer.data.dataset import Contents, DataError, Dataset, Images, Part, Progress, Split, part_of
from edgecloud_trainer.data.folder import folder_source
from edgecloud_trainer.data.idx import idx_source
from edgecloud_trainer.data.named import named_source
from edgecloud_trainer.data.source import Source, files_below
from edgecloud_trainer.data.split import TEST, VALIDATION, stratified
from edgecloud_trainer.data.store import Stored, stored
from edgecloud_trainer.data.tar import tar_source


def _silent(done: int, total: int) -> None:
    """Nobody wants to know."""


def load(spec: DataSpec, *, seed: int, cache: Path, on_progress: Progress = _silent) -> Dataset:
    """The data set that a job names.

    The images are decoded once and kept in `cache`; several processes may call this at once. A source without test
    images has a tenth of them held back (of digits a fifth), and `validation_fraction` holds back a part of the
    training images; both by class and seed.

    Args:
        spec: the job's `trainer.data`.
        seed: of the splits.
        cache: a folder to write to.
        on_progress: called with (done, total), and with (0, 0) while another process reads the images.

    Raises:
        DataError: the data aren't there, are broken, or don't go with the spec.
    """
    source = _source(spec, cache)
    whole = stored(cache, source.key, lambda scratch: source.read(scratch, on_progress), on_progress)
    fraction = spec.validation_fraction
    if fraction and "validation" in whole.splits:
        raise DataError(f"{source.name} has validation images of its own: leave validationFraction out")
    if not fraction and "test" in whole.splits:
        return _dataset(source.name, whole)
    test = 0.0 if "test" in whole.splits else source.test_fraction
    key = sha256(f"{source.key} {seed} {fraction!r} {test!r}".encode()).hexdigest()[:40]
    divide = partial(_divided, source.name, whole, seed, fraction, test)
    return _dataset(source.name, stored(cache, key, lambda scratch: divide(), on_progress))


def _source(spec: DataSpec, cache: Path) -> Source:
    if spec.name is not None:
        return named_source(spec.name, cache)
    if spec.source is None:
        raise DataError("trainer.data has neither name nor source: write one of them")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", spec.source):
        raise DataError(f"{spec.source} is a URL, which isn't read yet: download it, and write its path into source")
    path = Path(spec.source).expanduser()
    try:
        if not path.exists():
            raise DataError(f"{path} isn't there (looked for in {Path.cwd()}): write the path as the worker sees it")
        if path.is_file():
            return tar_source(path)
        if not path.is_dir():
            raise DataError(f"{path} is a device, a socket or a pipe: write the path of a folder or a tar file")
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error
    files = files_below(path)
    return idx_source(path, files) or cifar_source(path, files) or folder_source(path, files)


def _divided(name: str, whole: Stored, seed: int, fraction: float, test: float) -> Contents:
    """The same images with a test and a validation split, as far as they are asked for."""
    images = whole.splits["train"]
    kept = np.arange(len(images))
    parts: dict[Split, Part] = {
        split: part_of(other.pixels, other.labels) for split, other in whole.splits.items() if split != "train"
    }
    wanted: Iterable[tuple[Split, float, int]] = (("test", test, TEST), ("validation", fraction, VALIDATION))
    for split, part, purpose in wanted:
        if not part:
            continue
        stay, held = stratified(images.labels[kept], part, seed=seed, purpose=purpose)
        if not len(held):
            raise DataError(f"{name} has too few images ({len(kept)}) to hold some back for {split}: add some")
        parts[split] = part_of(images.pixels, images.labels, kept[held])
        kept = kept[stay]
    parts["train"] = part_of(images.pixels, images.labels, kept)
    return Contents(classes=whole.classes, shape=whole.shape, parts=parts)


def _dataset(name: str, found: Stored) -> Dataset:
    splits: dict[Split, Images] = found.splits
    return Dataset(
        name=name,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        classes=found.classes,
        mean=found.mean,
        std=found.std,
        digest=found.digest,
    )
