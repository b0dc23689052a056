"""Augmentation of whole batches of uint8 images, random by (seed, epoch, sample) and by nothing else.

So an image looks the same in an epoch whichever batch, shard, rank or attempt it is seen in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from edgecloud_trainer.hashing import hashes, key_of

if TYPE_CHECKING:
    import torch

Kind = Literal["none", "flip", "flip-crop", "flip-crop-cutout"]
Pixels = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]

_FLIP: Final = 2
_SHIFT: Final = 3
_CUTOUT: Final = 4
_GREY: Final = 128
_SMALL: Final = 16
"""Images with a side under this many pixels are shifted by half as much."""


@dataclass(frozen=True)
class Augmenter:
    """What is done to the training images: nothing, mirrored, also shifted by up to four pixels, or also with a hole.

    The hole is a grey square with sides of a quarter of the image's shorter one (DeVries and Taylor, "Improved
    regularization of convolutional neural networks with cutout", 2017; here it lies wholly inside the image).
    Mirroring alternates: a sample's side is random in epoch 0 and changes with each epoch, so that two epochs in a row
    show both sides of each image (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024).
    """

    kind: Kind
    seed: int

    def augment(self, pixels: Pixels, ids: Ids, epoch: int) -> Pixels:
        """Augment a batch.

        Args:
            pixels: uint8 [B, C, H, W]; left as they are.
            ids: int64 [B], each image's number in the training set.
            epoch: from 0.

        Returns:
            uint8 [B, C, H, W], C-contiguous; `pixels` itself if there is nothing to do.

        Raises:
            ValueError: the shapes don't go together, or the images are too small to be shifted.
        """
        if pixels.ndim != 4 or ids.shape != pixels.shape[:1]:
            raise ValueError(f"pixels {pixels.shape} and ids {ids.shape}: [B, C, H, W] and [B] are needed")
        if self.kind == "none" or not len(ids):
            return pixels
        if problem := too_small(self.kind, *pixels.shape[2:]):
            raise ValueError(problem)
        flipped = self._flipped(ids, epoch)
        if self.kind == "flip":
            mirrored = np.ascontiguousarray(pixels).copy()
            mirrored[flipped] = mirrored[flipped][..., ::-1]
            return mirrored
        pad = _pad(*pixels.shape[2:])
        down, right = self._places(_SHIFT, ids, epoch, 2 * pad + 1, 2 * pad + 1)
        windows = _windows(_padded(pixels, flipped, pad), down, right, pixels.shape[2:])
        if self.kind == "flip-crop-cutout":
            self._cut(windows, ids, epoch)
        return windows

    def _flipped(self, ids: Ids, epoch: int) -> npt.NDArray[np.bool_]:
        """[B]: who is mirrored."""
        side = hashes(key_of(_FLIP, self.seed), ids) >> np.uint64(63)
        return np.asarray(side != np.uint64(epoch & 1))

    def _cut(self, pixels: Pixels, ids: Ids, epoch: int) -> None:
        """Grey out a square of each image, in place."""
        height, width = pixels.shape[2:]
        side = min(height, width) // 4
        top, left = self._places(_CUTOUT, ids, epoch, height - side + 1, width - side + 1)
        rows, columns = np.arange(height) - top[:, None], np.arange(width) - left[:, None]
        hole = ((rows >= 0) & (rows < side))[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
        np.copyto(pixels, np.uint8(_GREY), where=hole)

    def _places(self, purpose: int, ids: Ids, epoch: int, rows: int, columns: int) -> tuple[Ids, Ids]:
        """[B] and [B]: a row under `rows` and a column under `columns` for each sample."""
        random = hashes(key_of(purpose, self.seed, epoch), ids)
        down = (random >> np.uint64(32)) * np.uint64(rows) >> np.uint64(32)
        right = (random & np.uint64(0xFFFFFFFF)) * np.uint64(columns) >> np.uint64(32)
        return down.astype(np.int64), right.astype(np.int64)


def too_small(kind: Kind, height: int, width: int) -> str | None:
    """What is wrong with augmenting images of so many pixels, and what to write instead; None if nothing is."""
    if kind in ("none", "flip") or min(height, width) > _pad(height, width):
        return None
    return f"images of {width}x{height} pixels are too small to be shifted: write augment: flip"


def _pad(height: int, width: int) -> int:
    """Pixels that such images are shifted by at most."""
    return 4 if min(height, width) >= _SMALL else 2


def _padded(pixels: Pixels, flipped: npt.NDArray[np.bool_], pad: int) -> Pixels:
    """[B, C, H + 2 pad, W + 2 pad]: mirrored where asked, and reflected at the edges without repeating them."""
    count, channels, height, width = pixels.shape
    padded = np.empty((count, channels, height + 2 * pad, width + 2 * pad), np.uint8)
    inner = padded[:, :, pad : pad + height]
    middle = inner[..., pad : pad + width]
    middle[:] = pixels
    middle[flipped] = pixels[flipped][..., ::-1]
    for k in range(1, pad + 1):  # a column or row of the whole batch at a time: four times as fast as blocks
        inner[..., pad - k] = middle[..., k]
        inner[..., pad + width - 1 + k] = middle[..., width - 1 - k]
    for k in range(1, pad + 1):
        padded[:, :, pad - k] = inner[:, :, k]
        padded[:, :, pad + height - 1 + k] = inner[:, :, height - 1 - k]
    return padded


def _windows(padded: Pixels, down: Ids, right: Ids, size: tuple[int, ...]) -> Pixels:
    """[B, C, H, W]: from each padded image the window that starts at its own row and column."""
    count, channels, height, width = padded.shape
    image, plane, row, column = padded.strides
    views = as_strided(
        padded,
        (count, height - size[0] + 1, width - size[1] + 1, channels, *size),
        (image, row, column, plane, row, column),
        writeable=False,
    )
    return np.ascontiguousarray(views[np.arange(count), down, right])


def to_input(
    pixels: Pixels,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device | None = None,
) -> torch.Tensor:
    """What a network is given: (pixels / 255 - mean) / std, computed in float32.

    Args:
        pixels: uint8 [B, C, H, W].
        mean: of each channel, of the training pixels scaled to 0..1.
        std: likewise; none is 0.
        dtype: of the result.
        memory_format: of the result.
        device: where to compute it; None: the CPU.

    Returns:
        [B, C, H, W] on the device; the same everywhere, to the last bit.
    """
    import torch

    scale = np.array([1 / (255 * s) for s in std], np.float32)
    shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32)
    count, channels, height, width = pixels.shape
    if memory_format == torch.channels_last:
        # Interleaved as bytes, and scaled as one long row: channels as the innermost loop would be far slower.
        values = np.empty((count, height, width, channels), np.uint8)
        for channel in range(channels):
            values[..., channel] = pixels[:, channel]
        if device is not None and device.type != "cpu":
            images = sent(values, device).to(torch.float32)
            return images.mul_(sent(scale, device)).add_(sent(shift, device)).to(dtype).permute(0, 3, 1, 2)
        rows = torch.from_numpy(values.reshape(count, -1)).to(torch.float32)
        rows.mul_(torch.from_numpy(np.tile(scale, height * width))).add_(
            torch.from_numpy(np.tile(shift, height * width))
        )
        return rows.to(dtype).view(count, height, width, channels).permute(0, 3, 1, 2)
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch has no read-only tensors and warns of a memory-mapped one
    planes = sent(pixels, device).to(torch.float32)
    planes.mul_(sent(scale, device).view(-1, 1, 1)).add_(sent(shift, device).view(-1, 1, 1))
    return planes.to(dtype)


def sent(values: npt.NDArray[Any], device: torch.device | None) -> torch.Tensor:
    """The array as a tensor there; nobody waits for a GPU, which takes it from memory of its driver's."""
    import torch

    tensor = torch.from_numpy(values)
    if device is None or device.type == "cpu":
        return tensor
    if device.type == "cuda" and tensor.numel():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
