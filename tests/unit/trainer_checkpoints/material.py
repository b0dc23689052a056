"""Checkpoints whose contents follow from (round, step), so that what is read back can be told right from wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from edgecloud_trainer.checkpoints import CheckpointStore, Loaded, Saved, digest

DIGEST: Final = digest({"model": "article-cnn", "epochs": 3})
WEIGHTS: Final = ("model.conv", "model.bias", "model.half", "model.brain")
SHARED_MEMORY: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""For tests that make thousands of files: an fsync costs nothing there."""


def store(folder: Path, round: int = 1, keep: int = 3, digest: str = DIGEST) -> CheckpointStore:
    return CheckpointStore(folder, round=round, keep=keep, digest=digest)


def tensors_of(step: int, round: int = 1) -> dict[str, torch.Tensor]:
    """All types that a training has, one of them laid out channels last, one empty, one without dimensions."""
    generator = torch.Generator().manual_seed(1000 * round + step)
    conv = torch.randn(4, 3, 3, 3, generator=generator)
    return {
        "model.conv": conv.contiguous(memory_format=torch.channels_last),
        "model.bias": torch.randn(5, generator=generator),
        "model.half": torch.randn(2, 3, generator=generator).half(),
        "model.brain": torch.randn(3, 2, generator=generator).bfloat16(),
        "optimizer.step": torch.tensor(step, dtype=torch.int64),
        "optimizer.mask": torch.rand(7, generator=generator) > 0.5,
        "optimizer.nothing": torch.empty(0, 4),
    }


def state_of(step: int, round: int = 1) -> dict[str, Any]:
    return {"step": step, "written_in": round, "best": None, "losses": [0.5, 1e-30]}


def save(to: CheckpointStore, step: int) -> Saved:
    return to.save(step, tensors_of(step, to.round), state_of(step, to.round), weights=WEIGHTS)


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(
        a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and bool(torch.equal(a[name], b[name]))
        for name in a
    )


def is_genuine(loaded: Loaded) -> bool:
    """Whether it is exactly what `save` wrote for its round and step."""
    step, round = loaded.step, loaded.round
    return same(loaded.tensors, tensors_of(step, round)) and loaded.state == state_of(step, round)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
