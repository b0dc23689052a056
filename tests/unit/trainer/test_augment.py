"""Augmentation: a pure function of (seed, epoch, sample), the same as a slow and plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_trainer.augment import Augmenter, Kind, to_input


def images(count: int, channels: int = 3, height: int = 32, width: int = 32) -> np.ndarray:
    random = np.random.Generator(np.random.PCG64(count))
    return random.integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def which_window(image: np.ndarray, result: np.ndarray, pad: int) -> list[tuple[bool, int, int]]:
    """All (mirrored, down, right) that make `result` of `image` by plain means."""
    height, width = image.shape[1:]
    found = []
    for mirrored in (False, True):
        turned = image[..., ::-1] if mirrored else image
        padded = np.pad(turned, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
        found += [
            (mirrored, down, right)
            for down in range(2 * pad + 1)
            for right in range(2 * pad + 1)
            if np.array_equal(padded[:, down : down + height, right : right + width], result)
        ]
    return found


def test_none_is_the_same_array() -> None:
    pixels = images(3)
    assert Augmenter("none", 0).augment(pixels, np.arange(3), 5) is pixels


@given(
    st.sampled_from(["flip", "flip-crop", "flip-crop-cutout"]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from([(1, 8, 8), (3, 16, 20), (3, 32, 32)]),
    st.randoms(use_true_random=False),
)
def test_a_sample_looks_the_same_in_every_batch(
    kind: Kind, seed: int, epoch: int, count: int, shape: tuple[int, int, int], random: object
) -> None:
    pixels, augmenter = images(count, *shape), Augmenter(kind, seed)
    ids = np.sort(np.random.Generator(np.random.PCG64(count)).choice(10**9, count, replace=False))
    whole = augmenter.augment(pixels, ids, epoch)
    order = list(range(count))
    random.shuffle(order)  # type: ignore[attr-defined]
    cut = count // 3
    for part in (np.array(order[:cut], np.int64), np.array(order[cut:], np.int64)):
        assert np.array_equal(augmenter.augment(pixels[part], ids[part], epoch), whole[part])


@pytest.mark.parametrize("kind", ["flip", "flip-crop", "flip-crop-cutout"])
def test_the_images_given_are_left_alone(kind: Kind) -> None:
    pixels = images(16)
    before = pixels.copy()
    pixels.flags.writeable = False
    result = Augmenter(kind, 1).augment(pixels, np.arange(16), 0)
    assert np.array_equal(pixels, before)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert not np.array_equal(result, before)


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.sampled_from([(32, 32), (20, 40), (8, 8)]))
def test_cutout_is_one_grey_square_of_the_shifted_image(seed: int, epoch: int, size: tuple[int, int]) -> None:
    pixels, ids, side = images(12, 3, *size) | 1, np.arange(12), min(size) // 4  # odd: never the grey of a hole
    shifted = Augmenter("flip-crop", seed).augment(pixels, ids, epoch)
    for before, after in zip(shifted, Augmenter("flip-crop-cutout", seed).augment(pixels, ids, epoch), strict=True):
        hole = after[0] == 128
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == side * side
        assert np.ptp(rows) == np.ptp(columns) == side - 1
        assert (after[:, hole] == 128).all()
        assert np.array_equal(after[:, ~hole], before[:, ~hole])


def test_holes_are_in_many_places() -> None:
    pixels, ids = images(200), np.arange(200)
    holes = {
        tuple(np.argwhere(image[0] == 128)[0]) for image in Augmenter("flip-crop-cutout", 0).augment(pixels | 1, ids, 0)
    }
    assert len(holes) > 100


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_mirroring_alternates(seed: int, epoch: int) -> None:
    pixels, ids, augmenter = images(30, 1, 4, 5), np.arange(30), Augmenter("flip", seed)
    now, then = augmenter.augment(pixels, ids, epoch), augmenter.augment(pixels, ids, epoch + 1)
    assert np.array_equal(now[..., ::-1], then)
    assert np.array_equal(now, augmenter.augment(pixels, ids, epoch + 2))


def test_half_are_mirrored_at_first() -> None:
    pixels, ids = images(1, 1, 2, 3).repeat(4000, 0), np.arange(4000)
    same = (Augmenter("flip", 0).augment(pixels, ids, 0) == pixels).all((1, 2, 3)).sum()
    assert 1800 < same < 2200


@pytest.mark.parametrize(("shape", "pad"), [((1, 8, 8), 2), ((3, 15, 40), 2), ((3, 16, 16), 4), ((3, 32, 24), 4)])
def test_flip_crop_is_a_window_of_the_reflected_image(shape: tuple[int, int, int], pad: int) -> None:
    pixels, ids = images(200, *shape), np.arange(200)
    result = Augmenter("flip-crop", 3).augment(pixels, ids, 4)
    flipped = Augmenter("flip", 3).augment(pixels, ids, 4)
    windows = []
    for image, mirrored, augmented in zip(pixels, flipped, result, strict=True):
        (window,) = which_window(image, augmented, pad)
        assert window[0] != np.array_equal(image, mirrored)
        windows.append(window[1:])
    shifts = {down for down, _ in windows} | {right for _, right in windows}
    assert shifts == set(range(2 * pad + 1))


def test_shifts_change_with_the_epoch_and_the_seed() -> None:
    pixels, ids = images(8), np.arange(8)
    seen = {Augmenter("flip-crop", seed).augment(pixels, ids, epoch).tobytes() for seed in (0, 1) for epoch in (0, 2)}
    assert len(seen) == 4


def test_too_small_to_be_shifted() -> None:
    with pytest.raises(ValueError, match="2x2 pixels are too small to be shifted: write augment: flip"):
        Augmenter("flip-crop", 0).augment(images(1, 1, 2, 2), np.arange(1), 0)


@pytest.mark.parametrize(("pixels", "ids"), [(images(3), np.arange(2)), (images(3)[0], np.arange(3))])
def test_shapes_that_do_not_go_together(pixels: np.ndarray, ids: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[B, C, H, W\] and \[B\] are needed"):
        Augmenter("flip", 0).augment(pixels, ids, 0)


def test_an_empty_batch() -> None:
    assert Augmenter("flip-crop", 0).augment(images(0), np.arange(0), 0).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_to_input(channels: int, memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    pixels = images(5, channels, 8, 6)
    pixels.flags.writeable = False
    mean, std = (0.1, 0.5, 0.9)[:channels], (0.2, 0.3, 0.4)[:channels]
    result = to_input(pixels, mean, std, dtype, memory_format)
    assert result.dtype == dtype
    assert result.shape == pixels.shape
    assert result.is_contiguous(memory_format=memory_format)
    expected = (pixels / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    tolerance = 1e-6 if dtype == torch.float32 else 2**-8
    np.testing.assert_allclose(result.float().numpy(), expected, rtol=tolerance, atol=1e-5)


def test_to_input_is_the_same_in_both_formats_and_for_any_part() -> None:
    pixels = images(6, 3, 8, 8)
    plain = to_input(pixels, (0.5,) * 3, (0.2,) * 3, torch.float32, torch.contiguous_format)
    last = to_input(pixels, (0.5,) * 3, (0.2,) * 3, torch.float32, torch.channels_last)
    part = to_input(pixels[2:4], (0.5,) * 3, (0.2,) * 3, torch.float32, torch.channels_last)
    assert torch.equal(plain, last)
    assert torch.equal(part, last[2:4])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_to_input_computes_where_the_network_does(memory_format: torch.memory_format) -> None:
    """On a device that isn't the CPU, from bytes; to the last bit the same, as far as it can be seen on the CPU."""
    pixels, mean, std = images(5, 3, 8, 6), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    there = to_input(pixels, mean, std, torch.float32, memory_format, torch.device("meta"))
    assert (there.device.type, there.shape, there.dtype) == ("meta", pixels.shape, torch.float32)
    assert there.is_contiguous(memory_format=memory_format)
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in zip(*_scales(mean, std), strict=True))
    by_channel = torch.from_numpy(pixels).float().mul_(scale).add_(shift)
    assert torch.equal(to_input(pixels, mean, std, torch.float32, memory_format, torch.device("cpu")), by_channel)


def _scales(mean: tuple[float, ...], std: tuple[float, ...]) -> list[tuple[float, float]]:
    return [(1 / (255 * s), -m / s) for m, s in zip(mean, std, strict=True)]
