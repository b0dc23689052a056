"""Images of any size brought to one: the shorter side is scaled, and the middle is kept."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

import numpy as np
from PIL import Image

from edgecloud.edge.fitting import middle
from edgecloud.edge.images import to_pixels
from edgecloud_trainer.data.dataset import Pixels

MAX_SIDE: Final = 16384


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`224`, or `320x240` (width, height).

        Raises:
            ValueError: it is neither.
        """
        match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
        sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not all(1 <= side <= MAX_SIDE for side in sides):
            raise ValueError(f"{text!r} is no size: write one side such as 224, or 320x240, of 1 to {MAX_SIDE} pixels")
        return cls(*sides)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def fit(image: Image.Image, size: Size) -> Image.Image:
    """Scaled so that it just covers the size, and cut to it around the middle; bilinear, with antialiasing."""
    if image.size == (size.width, size.height):
        return image
    wanted = (size.width, size.height)
    return image.resize(wanted, Image.Resampling.BILINEAR, middle(image.size, wanted))


def fit_pixels(pixels: Pixels, size: Size) -> Pixels:
    """The same for uint8 [1 or 3, H, W]."""
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return to_pixels(fit(Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows), size))
