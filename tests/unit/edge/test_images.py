"""How many bits the channels of an image file may have."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from edgecloud.edge.images import ImageError, decode

SIDE = 4


def png(colour: int, bits: int, channels: int) -> bytes:
    row = b"\x00" + bytes(SIDE * channels * bits // 8)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * SIDE)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def ppm(most: int, *, plain: bool = False) -> bytes:
    kind, size = ("P3", 2) if plain else ("P6", 1 if most < 256 else 2)
    return f"{kind}\n{SIDE} {SIDE}\n{most}\n".encode() + (b"0 " if plain else bytes(size)) * (SIDE * SIDE * 3)


def tiff(bits: int) -> bytes:
    """Little-endian, in colours, one strip."""
    size = SIDE * SIDE * 3 * bits // 8
    fields = [
        (256, 3, 1, SIDE), (257, 3, 1, SIDE), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, SIDE), (279, 4, 1, size),
    ]  # fmt: skip
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *field) for field in fields) + bytes(4)
    return b"II*\x00" + struct.pack("<I", 14 + size) + struct.pack("<3H", bits, bits, bits) + bytes(size) + directory


def bmp() -> bytes:
    """5 bits a channel, 16 a pixel."""
    size = SIDE * SIDE * 2
    header = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 16, 0, size, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + size, 0, 0, 54) + header + bytes(size)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (png(0, 16, 1), "I;16"),
        (png(2, 16, 3), "RGB;16B"),
        (png(4, 16, 2), "LA;16B"),
        (png(6, 16, 4), "RGBA;16B"),
        (ppm(65535), "RGB, values up to 65535"),
        (ppm(4095), "RGB, values up to 4095"),
        (ppm(256, plain=True), "RGB, values up to 256"),
        (tiff(16), "RGB, 16 bits"),
    ],
    ids=["grey", "colours", "grey, alpha", "colours, alpha", "ppm", "12 bits", "plain", "tiff"],
)
def test_more_than_eight(data: bytes, said: str) -> None:
    """In colours, too, of which Pillow would silently keep the high byte: 12 bits in 16 would be next to black."""
    with pytest.raises(ImageError) as error:
        decode(data)
    assert str(error.value) == f"has more than 8 bits in a pixel's channel ({said}): convert it to 8 bits"


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (png(0, 8, 1), 1),
        (png(2, 8, 3), 3),
        (png(6, 8, 4), 3),
        (ppm(255), 3),
        (ppm(100), 3),
        (ppm(255, plain=True), 3),
        (tiff(8), 3),
        (bmp(), 3),
    ],
    ids=["grey", "colours", "colours, alpha", "ppm", "fewer", "plain", "tiff", "bmp"],
)
def test_eight_and_fewer(data: bytes, channels: int) -> None:
    assert np.array_equal(decode(data), np.zeros((channels, SIDE, SIDE), np.uint8))
