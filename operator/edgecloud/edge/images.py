"""From the bytes of an image file to uint8 pixels. The bytes may be anybody's."""

from __future__ import annotations

import io
import warnings
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

# Pillow warns of what it finds in a file on the terminal, without the file's name; here that is refused in a sentence,
# or doesn't matter.
warnings.filterwarnings("ignore", module=r"PIL\.")

Pixels = npt.NDArray[np.uint8]

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Of one image file."""

# Only what Pillow decodes itself: others of its formats start programs.
FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES: Final = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff",
        ".webp",
    )
)  # fmt: skip
"""Of the files in a folder, those with such names are images; in lower case."""
_BITS: Final = 8
_GREY: Final = frozenset(("1", "L", "LA"))
_COLOUR: Final = frozenset(("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"))


_ORIENTATION: Final = 0x0112
_TURNS: Final[dict[object, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its orientation in EXIF."""


class ImageError(ValueError):
    """It can't be used as an image. The message says why, and what to do; it doesn't name the file."""


def decode(data: bytes) -> Pixels:
    """uint8 [1, H, W] of a grey image, [3, H, W] of any other; transparency is dropped. Safe in several threads.

    Raises:
        ImageError: it isn't an image, is broken, too large, or has more than 8 bits.
    """
    return to_pixels(open_image(data))


def open_image(data: bytes, *, upright: bool = False) -> Image.Image:
    """The image, decoded, in mode L or RGB.

    Args:
        data: the file's bytes.
        upright: turned as the camera says that it was held (EXIF, XMP), instead of as it was stored. Pillow turns TIFF
            files in any case.

    Raises:
        ImageError: see `decode`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if (deeper := _deeper(image)) is not None:
                raise ImageError(f"has more than 8 bits in a pixel's channel ({deeper}): convert it to 8 bits")
            image.load()
            mode = "L" if image.mode in _GREY else "RGB"
            turned = _turned(image) if upright else image
            return turned if turned.mode == mode else turned.convert(mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"would be larger than {Image.MAX_IMAGE_PIXELS} pixels: scale it down, or take it out"
        ) from None
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"isn't an image of a kind that is read ({', '.join(FORMATS)}): take it out") from None
    except Exception as error:  # broken files make Pillow's readers fail in any way there is
        raise ImageError(f"can't be decoded ({error or type(error).__name__}): repair it, or take it out") from error


def _turned(image: Image.Image) -> Image.Image:
    """Upright, if it says how it was held.

    Pillow's exif_transpose writes all of EXIF anew, and some cameras' is too odd for that.
    """
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    except Exception:  # whatever there is in it that can't be read
        return image
    return image if turn is None else image.transpose(turn)


def _deeper(image: Image.Image) -> str | None:
    """What says of an image, not yet loaded, that its channels have more than 8 bits; None: they have not.

    Of colours Pillow would keep the high byte alone, which is next to black where 12 bits are stored in 16.
    """
    if image.mode not in _GREY | _COLOUR:
        return image.mode
    if isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(BITSPERSAMPLE, (1,)))
        return f"{image.mode}, {bits} bits" if bits > _BITS else None
    for tile in image.tile if isinstance(image, PngImageFile | PpmImageFile) else ():
        words = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        for word in words:
            if isinstance(word, str) and ";16" in word:
                return word
            if isinstance(word, int) and word >= 2**_BITS:
                return f"{image.mode}, values up to {word}"
    return None


def to_pixels(image: Image.Image) -> Pixels:
    """uint8 [C, H, W], C-contiguous, of an image in mode L or RGB."""
    rows = np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)
    return np.ascontiguousarray(rows.transpose(2, 0, 1))
