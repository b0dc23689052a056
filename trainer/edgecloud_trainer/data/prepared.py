"""A file that `edgecloud data prepare` has written, as a source."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgecloud_trainer.data.dataset import Contents, DataError, part_of
from edgecloud_trainer.data.files import Reading
from edgecloud_trainer.data.imagefile import ImageFileError, Stored, open_images
from edgecloud_trainer.data.resized import resized
from edgecloud_trainer.data.source import Source


def prepared_source(path: Path, where: str = "") -> Source:
    """The images in a prepared file. Its digest is the key: it isn't checked here.

    Args:
        path: the file.
        where: what messages call it.

    Raises:
        DataError: it isn't whole.
    """
    stored = open_prepared(path, where)
    return Source(
        name=stored.manifest.name,
        kind="prepared",
        location=where or str(path),
        key=f"prepared-{stored.manifest.sha256}",
        read=partial(_read, stored),
        single=path,
    )


def open_prepared(path: Path, where: str = "") -> Stored:
    """What a prepared file holds.

    Args:
        path: the file.
        where: what messages call it.

    Raises:
        DataError: it is none, isn't whole, or can't be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{where or path} is no file: name one that edgecloud data prepare has written")
        return open_images(path)
    except ImageFileError as error:
        raise DataError(f"{where or path} {error}: prepare it again, or copy it again") from error
    except OSError as error:
        raise DataError(
            f"{where or path} can't be read ({error.strerror or error}): check it and its rights"
        ) from error


def as_contents(stored: Stored) -> Contents:
    """The images of a file, to be written to another one."""
    return Contents(
        classes=stored.manifest.classes,
        shape=stored.manifest.shape,
        parts={
            split: part_of(images.pixels, images.labels, stored.names.get(split))
            for split, images in stored.splits.items()
        },
    )


def _read(stored: Stored, reading: Reading) -> Contents:
    return resized(as_contents(stored), reading.size)
