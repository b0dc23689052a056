"""Pictures of any size and kind as a model takes them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgecloud.edge.fitting import fitted, middle
from edgecloud.edge.images import ImageError, decode


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """uint8 [H, W] or [H, W, 3] as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("way", ["crop", "stretch"])
def test_the_right_size_stays_as_it_is(way: str) -> None:
    pixels = noise(6, 9, 3)
    np.testing.assert_array_equal(fitted(encoded(pixels), (3, 6, 9), way), pixels.transpose(2, 0, 1))  # type: ignore[arg-type]
    np.testing.assert_array_equal(fitted(encoded(pixels), (3, 6, 9)), decode(encoded(pixels)))


def test_the_middle_is_cut_out() -> None:
    """A wide picture, red on the left, green in the middle, blue on the right."""
    wide = np.zeros((20, 60, 3), np.uint8)
    for part in range(3):
        wide[:, 20 * part : 20 * (part + 1), part] = 255
    for picture, shape in ((wide, (3, 10, 10)), (wide.transpose(1, 0, 2), (3, 10, 10)), (wide, (3, 40, 40))):
        found = fitted(encoded(np.ascontiguousarray(picture)), shape)
        inner = found[:, 2:-2, 2:-2]
        assert (inner[1] == 255).all()
        assert (inner[[0, 2]] == 0).all()
    stretched = fitted(encoded(wide), (3, 10, 30), "stretch")
    assert stretched[0, 5, 0] == stretched[1, 5, 15] == stretched[2, 5, 29] == 255


def test_grey_and_colour() -> None:
    grey = noise(5, 5)
    np.testing.assert_array_equal(fitted(encoded(grey), (3, 5, 5)), np.stack([grey] * 3))
    colour = noise(5, 5, 3)
    weighted = colour @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(fitted(encoded(colour), (1, 5, 5))[0], weighted, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_stand_upright(orientation: int, kind: str) -> None:
    """The bright corner is the upper left one, however the camera was held."""
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.ascontiguousarray(stored), kind, exif=exif)
    found = fitted(data, (1, 16, 32))[0]
    assert found[:6, :6].min() > 200
    assert found[10:].max() < 60 and found[:, 10:].max() < 60
    if kind != "TIFF":  # which Pillow turns by itself
        assert decode(data).shape[1:] == stored.shape, "data for training stays as it is stored"


@pytest.mark.parametrize(
    ("data", "shape", "said"),
    [
        (b"x", (3, 4, 4), "isn't an image"),
        (encoded(noise(40, 40))[:900], (3, 4, 4), "can't be decoded"),
        (encoded(noise(4, 4)), (4, 4, 4), "the model takes 4"),
    ],
    ids=["text", "cut", "four channels"],
)
def test_what_cannot_be_fitted(data: bytes, shape: tuple[int, int, int], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        fitted(data, shape)


def test_a_broken_orientation_is_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    pixels = noise(4, 6)
    np.testing.assert_array_equal(fitted(encoded(pixels, "PNG", exif=exif), (1, 4, 6))[0], pixels)


def jpeg_with(pixels: np.ndarray, exif: bytes) -> bytes:
    data, block = encoded(pixels, "JPEG", quality=95), b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def entries(*fields: tuple[int, int, int, int]) -> bytes:
    """EXIF of these: tag, type, count, value."""
    listed = b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + listed + bytes(4)


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (entries((0x0112, 3, 1, 6), (0x011A, 2, 3, 0x3237)), True),  # XResolution as a text
        (entries((0x0112, 3, 1, 6), (0x0131, 3, 1, 7)), True),  # Software as a number
        (entries((0x0112, 3, 1, 6), (0x8769, 4, 1, 8)), True),  # a block within itself
        (entries((0x0112, 2, 2, 0x36)), False),
        (entries((0x0112, 3, 2, 0x00060006)), False),
        (b"II*\0\x08\0\0\0\x05\0", False),
        (b"garbage garbage", False),
        (b"", False),
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_odd_notes_of_a_camera(exif: bytes, turned: bool) -> None:
    """What data for training may be can be predicted too; unreadable means as it was stored."""
    stored = np.zeros((16, 32), np.uint8)
    stored[:, :16] = 255
    upright = np.rot90(stored, -1) if turned else stored
    data = jpeg_with(stored, exif)
    assert decode(data).shape == (1, *stored.shape)
    np.testing.assert_allclose(fitted(data, (1, *upright.shape))[0], upright, atol=20)


sides = st.integers(1, 5000)


@given(sides, sides, sides, sides)
def test_the_middle(width: int, height: int, wanted_width: int, wanted_height: int) -> None:
    left, top, right, bottom = middle((width, height), (wanted_width, wanted_height))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left == pytest.approx(width - right, abs=1e-6)
    assert top == pytest.approx(height - bottom, abs=1e-6)
    assert (right - left) * wanted_height == pytest.approx((bottom - top) * wanted_width, rel=1e-9)
    assert right - left == pytest.approx(width) or bottom - top == pytest.approx(height)
