"""From the bytes of image files to uint8 pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgecloud.edge import images
from edgecloud_trainer.data.dataset import DataError, Pixels
from edgecloud_trainer.data.resize import Size, fit


class Encoded(NamedTuple):
    """An image file."""

    name: str
    where: str
    """The name for messages: with its folder or archive."""
    read: Callable[[], bytes]
    """Called in another thread; raises DataError."""
    held: int = 0
    """Bytes of it that are in memory already."""


class Decoded(NamedTuple):
    """What became of it."""

    name: str
    pixels: Pixels | DataError


def decode(name: str, data: bytes, size: Size | None = None) -> Pixels:
    """uint8 [1, H, W] of a grey image, [3, H, W] of any other; transparency is dropped.

    Args:
        name: for messages.
        data: the image file.
        size: what it is scaled and cut to.

    Raises:
        DataError: it isn't an image, is broken, too large, or has more than 8 bits.
    """
    try:
        image = images.open_image(data)
        return images.to_pixels(fit(image, size) if size else image)
    except images.ImageError as error:
        raise DataError(f"{name} {error}") from error.__cause__


def decode_some(files: Sequence[Encoded], size: Size | None) -> list[Decoded]:
    """What becomes of some files.

    Raises:
        DataError: trouble that may pass.
    """
    return [Decoded(file.name, _decode_one(file, size)) for file in files]


def _decode_one(file: Encoded, size: Size | None) -> Pixels | DataError:
    try:
        return decode(file.where, file.read(), size)
    except DataError as error:
        if error.passing:
            raise
        return error
