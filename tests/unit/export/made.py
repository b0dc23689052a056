"""Networks with weights that make a difference, their cards, and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecloud.api.trainer import DataSpec
from edgecloud.edge.card import ExportCard, Format, ModelCard, RunCard
from edgecloud_trainer import models
from edgecloud_trainer.data import Dataset, Images
from edgecloud_trainer.restoring import Restored

CLASSES = ("ant", "bee", "cat", "dog", "eel")
SHAPE = (3, 16, 16)
RUN = RunCard(step=7, round=2, weights_sha256="a" * 64, torch="2.15.0")


def network(name: str, shape: tuple[int, int, int] = SHAPE, *, seed: int = 0) -> nn.Module:
    """As after a training: normalisation that does something."""
    torch.manual_seed(seed)
    channels, height, width = shape
    made = models.build(name, classes=len(CLASSES), channels=channels, height=height, width=width).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            stir(module)
    return made


@torch.no_grad()
def stir(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    for tensor in (norm.running_mean, norm.bias):
        assert tensor is not None
        tensor.normal_()
    for tensor in (norm.running_var, norm.weight):
        assert tensor is not None
        tensor.uniform_(0.5, 2)
    return norm


def card(model: str = "edgenet", shape: tuple[int, int, int] = SHAPE, **more: Any) -> ModelCard:
    said: dict[str, Any] = {
        "model": model, "classes": CLASSES, "shape": shape, "mean": (0.5, 0.4, 0.3)[: shape[0]],
        "std": (0.2, 0.3, 0.25)[: shape[0]], "data": DataSpec(name="digits"), "data_sha256": "0" * 64,
        "job": "job", "namespace": "space",
    }  # fmt: skip
    return ModelCard(**(said | more))


def export_card(format: Format, network: ModelCard | None = None) -> ExportCard:
    return ExportCard(format=format, network=network or card(), run=RUN)


def restored(model: nn.Module, about: ModelCard) -> Restored:
    return Restored(model=model, card=about, run=RUN, path=Path("checkpoints/step-7"), fingerprint={})


def pixels(count: int, shape: tuple[int, int, int] = SHAPE, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def dataset(count: int = 40, shape: tuple[int, int, int] = SHAPE) -> Dataset:
    def images(seed: int) -> Images:
        labels = np.random.default_rng(seed).integers(0, len(CLASSES), count)
        return Images(pixels=pixels(count, shape, seed=seed), labels=labels.astype(np.int64))

    return Dataset(
        name="noise", train=images(1), validation=None, test=images(2), classes=CLASSES, mean=(0.5,) * shape[0],
        std=(0.25,) * shape[0], digest="0" * 64,
    )  # fmt: skip
