"""Contact sheets: many small images on one page, each with a line of text below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgecloud_trainer.data.dataset import Pixels

_MARGIN: Final = 8
_LINE: Final = 14
_FONT: Final = 11
_MAX_LINE: Final = 256
"""Characters that are looked at."""
_LETTERS: Final = "mpl-data/fonts/ttf/DejaVuSans.ttf"
"""In matplotlib: Latin, Greek, Cyrillic and more, where Pillow's own font has boxes for all that isn't ASCII."""

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_PAPER: Final = (255, 255, 255)
_INK: Final = (30, 30, 30)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One image on a sheet."""

    pixels: Pixels
    """uint8 [1 or 3, H, W]."""
    lines: tuple[str, ...] = ()
    """What stands below it; cut to its width."""
    colour: tuple[int, int, int] = _INK
    """Of the lines."""


def contact_sheet(cells: Sequence[Cell], *, title: str = "", columns: int = 10, side: int = 96) -> Image.Image:
    """The images in rows, scaled to fit `side` pixels: small ones by whole factors, so that their pixels are seen.

    Args:
        cells: one or more; their images may differ in size.
        title: at the top.
        columns: images in a row.
        side: width and height of the place that an image has.
    """
    font = _font(_FONT)
    title = _printable(title)
    columns = max(1, min(columns, len(cells)))
    lines = max((len(cell.lines) for cell in cells), default=0)
    wide, high = side + _MARGIN, side + lines * _LINE + _MARGIN
    top = _MARGIN + (2 * _LINE if title else 0)
    rows = math.ceil(len(cells) / columns)
    title_font = _font(_FONT + 2)
    width = max(columns * wide + _MARGIN, math.ceil(title_font.getlength(title)) + 2 * _MARGIN)
    sheet = Image.new("RGB", (width, rows * high + top), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN), title, _INK, title_font)
    for place, cell in enumerate(cells):
        left, upper = _MARGIN + place % columns * wide, top + place // columns * high
        image = _scaled(cell.pixels, side)
        sheet.paste(image, (left + (side - image.width) // 2, upper + (side - image.height) // 2))
        for number, line in enumerate(cell.lines):
            draw.text((left, upper + side + number * _LINE), _cut(line, font, side), cell.colour, font)
    return sheet


def _font(size: int) -> Font:
    """matplotlib's, which has letters of other languages and draws the other pictures; without importing it."""
    there = find_spec("matplotlib")
    file = Path(there.origin).parent / _LETTERS if there is not None and there.origin else None
    try:
        return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
    except OSError:  # a distribution's package may have its fonts elsewhere
        return ImageFont.load_default(size)


def _scaled(pixels: Pixels, side: int) -> Image.Image:
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    image = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows).convert("RGB")
    longest = max(image.size)
    if longest <= side:
        factor = max(1, side // longest)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    factor_down = side / longest
    size = (max(1, round(image.width * factor_down)), max(1, round(image.height * factor_down)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in line[:_MAX_LINE])


def _cut(line: str, font: Font, width: int) -> str:
    """As much of a line as fits."""
    line = _printable(line)
    while line and font.getlength(line) > width:
        line = line[:-2] + "…" if len(line) > 2 else ""
    return line
