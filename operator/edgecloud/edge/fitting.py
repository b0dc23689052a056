"""From a picture of any size to the pixels that a model takes."""

from __future__ import annotations

from typing import Final, Literal

from PIL import Image

from edgecloud.edge.images import ImageError, Pixels, open_image, to_pixels

Way = Literal["crop", "stretch"]
"""crop: scaled until the shorter side fits, and the middle cut out; stretch: scaled to the size, out of proportion."""

_MODES: Final = {1: "L", 3: "RGB"}


def fitted(data: bytes, shape: tuple[int, int, int], way: Way = "crop") -> Pixels:
    """The pixels of an image file: upright, grey or in colour as the model is, and of its size.

    An image that has the size already stays as it is.

    Args:
        data: the file's bytes.
        shape: channels, height and width that the model takes.
        way: what is done to other proportions.

    Returns:
        uint8 [C, H, W].

    Raises:
        ImageError: it can't be decoded, or no image file has so many channels.
    """
    channels, height, width = shape
    if channels not in _MODES:
        raise ImageError(f"has 1 or 3 channels, and the model takes {channels}: give it arrays instead of image files")
    image = open_image(data, upright=True).convert(_MODES[channels])
    if image.size != (width, height):
        box = middle(image.size, (width, height)) if way == "crop" else None
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return to_pixels(image)


def middle(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest part of a picture that has the wanted proportions, from its middle: left, top, right, bottom.

    Args:
        size: width and height of the picture.
        wanted: likewise, of what is to become of it.
    """
    scale = min(size[0] / wanted[0], size[1] / wanted[1])
    # Rounding may make it a little more than there is.
    width, height = min(size[0], scale * wanted[0]), min(size[1], scale * wanted[1])
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, min(size[0], left + width), min(size[1], top + height)
