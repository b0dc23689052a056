"""The model on images that it was not trained on: every rank takes its part, and counts add up exactly."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from edgecloud.edge.intervals import wilson
from edgecloud_trainer.augment import to_input
from edgecloud_trainer.confusion import Confusion
from edgecloud_trainer.data import Dataset, Images
from edgecloud_trainer.data.dataset import Labels
from edgecloud_trainer.devices import Device

_MOST_IMAGES: Final = 500
_MOST_PIXELS: Final = _MOST_IMAGES * 64 * 64
"""In a forward pass, over all its images. What a network's first layers make of them fills the memory, whatever number
of channels they have themselves: some 0.4 GiB for article-cnn, less than a training step of a usual batch."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model says of images, counted."""

    classes: tuple[str, ...]
    confusion: Confusion
    loss: float

    @property
    def total(self) -> int:
        return self.confusion.total

    @property
    def correct(self) -> int:
        return self.confusion.correct

    @property
    def accuracy(self) -> float:
        return self.correct / max(1, self.total)

    def to_json(self) -> dict[str, Any]:
        """Accuracy with its 95 % interval, per class (None of a class without images), and the confusion: see there.

        The loss is None where it is not finite, as where a logit is minus infinity: JSON has no such number.
        """
        low, high = wilson(self.correct, self.total)
        per_class: dict[str, dict[str, float | None]] = {}
        totals, _, right = self.confusion.by_class.tolist()
        for name, total, correct in zip(self.classes, totals, right, strict=True):
            per_class[name] = {"total": total, "correct": correct, "accuracy": correct / total if total else None}
        return {
            "accuracy": self.accuracy,
            "interval95": [low, high],
            "correct": self.correct,
            "total": self.total,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "perClass": per_class,
            "classes": list(self.classes),
            **self.confusion.to_json(),
        }


def images_at_once(shape: tuple[int, int, int]) -> int:
    """Images [C, H, W] in a forward pass: 500 up to 64x64 pixels, and fewer the larger they are; at least 1.

    Of the shape alone, and images are cut by position: so each has the same neighbours on any number of ranks, and
    wherever it is evaluated again.
    """
    _, height, width = shape
    return max(1, min(_MOST_IMAGES, _MOST_PIXELS // (height * width)))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Images,
    dataset: Dataset,
    device: Device,
    *,
    rank: int = 0,
    world_size: int = 1,
    state: dict[str, Tensor] | None = None,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    heartbeat: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate on `images`, shared out over the ranks; the same result on every rank.

    state: weights to use instead of the model's own (the exponential mean), put back afterwards.
    """
    own = {name: value.detach().clone() for name, value in model.state_dict().items()} if state is not None else None
    if state is not None:
        model.load_state_dict(state)
    model.eval()
    asked: list[Labels] = [np.zeros(0, np.int64)]
    answered: list[Labels] = [np.zeros(0, np.int64)]
    loss = torch.zeros((), dtype=torch.float64)
    size = images_at_once(dataset.shape)
    for number, start in enumerate(range(0, len(images.labels), size)):
        if number % world_size != rank:
            continue
        labels = torch.from_numpy(np.array(images.labels[start : start + size]))
        with autocast():
            scores = logits_of(
                model,
                images.pixels[start : start + size],
                mean=dataset.mean,
                std=dataset.std,
                device=device,
                mirror=bool(getattr(model, "test_time_mirror", False)),
            )
        loss += nn.functional.cross_entropy(scores, labels, reduction="sum").double()
        asked.append(labels.numpy())
        answered.append(scores.argmax(1).numpy())
        heartbeat()
    confusion = Confusion.counted(np.concatenate(asked), np.concatenate(answered), len(dataset.classes))
    if world_size > 1:
        confusion, loss = confusion.of_all_ranks(device.device), loss.to(device.device)
        dist.all_reduce(loss)
    if own is not None:
        model.load_state_dict(own)
    total = max(1, len(images.labels))
    return Evaluation(classes=dataset.classes, confusion=confusion, loss=float(loss) / total)


def logits_of(
    model: nn.Module, pixels: np.ndarray, *, mean: Sequence[float], std: Sequence[float], device: Device, mirror: bool
) -> Tensor:
    """What a network says of images; under the caller's autocast.

    Args:
        model: in evaluation mode, on the device.
        pixels: uint8 [N, C, H, W].
        mean: see `to_input`.
        std: likewise.
        device: where it computes, and in which memory format.
        mirror: the mean of the logits of each image and its mirror image.

    Returns:
        float32 [N, classes] on the CPU.
    """
    images = to_input(pixels, mean, std, dtype=torch.float32, memory_format=device.memory_format, device=device.device)
    logits: Tensor = model(images)
    if mirror:
        # Not the sum: the loss, and how sure the network is, would be those of logits twice as large.
        logits = (logits + model(images.flip(-1))) / 2
    return logits.float().cpu()
