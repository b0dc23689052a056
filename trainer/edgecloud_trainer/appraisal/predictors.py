"""Whatever a user may name as a model, opened: a checkpoint, a workdir, an exported file or an export's folder."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from edgecloud.edge.card import Format, ModelCard, RunCard
from edgecloud.edge.finding import hold_against_format, model_file
from edgecloud.edge.layout import MODELS, REPORT
from edgecloud.edge.looking import is_file, is_folder, is_there
from edgecloud.edge.runtime import Predictor, images_in_a_run, open_model
from edgecloud_trainer.devices import Device
from edgecloud_trainer.evaluation import images_at_once, logits_of
from edgecloud_trainer.restoring import MANIFEST, Restored, restore, run_of

Kind = Literal["checkpoint"] | Format
Where = Literal["auto", "cpu", "cuda"]

_PRECISIONS: Final = {"torch.bfloat16": torch.bfloat16, "torch.float16": torch.float16}


class PredictorError(ValueError):
    """The model can't be run as it is asked to. The message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model that is ready to be asked."""

    path: Path
    kind: Kind
    card: ModelCard
    run: RunCard
    predictor: Predictor
    mirror: bool
    """Whether its logits are the mean of those of each image and its mirror image."""
    computes: str
    """Where and how, such as `cpu, bfloat16`."""
    notes: tuple[str, ...] = field(default=())
    """What the user should know of it: a newer checkpoint that could not be used."""

    @property
    def workdir(self) -> Path | None:
        """The folder of the run that it lies in, if it does."""
        return run_of(self.path)


def open_any(path: Path, *, format: Format | None = None, device: Where = "auto") -> Opened:
    """Open a model.

    Args:
        path: a checkpoint, a workdir, an .onnx or .pt2 file, or an export's folder.
        format: which file of an export; None: a workdir's newest checkpoint, an export's fp32 ONNX.
        device: for a checkpoint; auto: a GPU if it was trained on one and there is one, else the CPU.

    Raises:
        RestoreError, CheckpointError, ModelError: it is no checkpoint that can be used.
        ModelFileError: it is no converted model that can be used, or of another format.
        PredictorError: there is no such device.
    """
    if is_folder(path) and format is None and not _is_export(path):
        return _of_checkpoint(restore(path), device)
    file = model_file(path, format)
    if file.suffix == ".pt2" and is_file(file):
        hold_against_format(file, "pt2", format)
        return _of_pt2(file)
    model = open_model(file)
    hold_against_format(file, model.card.format, format)
    threads = f"{model.threads} thread" + ("s" if model.threads > 1 else "")
    return Opened(
        path=file,
        kind=model.card.format,
        card=model.card.network,
        run=model.card.run,
        predictor=_InPieces(model, images_in_a_run(model.card.network.shape)),
        mirror=model.card.mirror,
        computes=f"onnxruntime, {threads}",
    )


def _is_export(path: Path) -> bool:
    if is_there(path / MANIFEST) or is_folder(path / "checkpoints"):
        return False
    return any(is_there(path / name) for name in (REPORT, *MODELS.values()))


def _of_checkpoint(found: Restored, where: Where) -> Opened:
    device = _device(found, where)
    computes = f"{device.device}, {str(device.autocast or torch.float32).removeprefix('torch.')}"
    return Opened(
        path=found.path,
        kind="checkpoint",
        card=found.card,
        run=found.run,
        predictor=_Network(found, device),
        mirror=found.card.mirror,
        computes=computes,
        notes=found.rejected,
    )


def _device(found: Restored, where: Where) -> Device:
    """Where the training would have evaluated it, as far as this machine can."""
    cuda_there = torch.cuda.is_available()
    if where == "cuda" and not cuda_there:
        raise PredictorError("--device cuda: there is no GPU to be seen: look at the driver, or write --device cpu")
    trained_on_cuda = found.fingerprint.get("device", "cpu") != "cpu"
    cuda = where == "cuda" or (where == "auto" and trained_on_cuda and cuda_there)
    # A GPU's bfloat16 would be emulated on a CPU, and wouldn't give the same bits anyway.
    as_trained = cuda == trained_on_cuda
    return Device(
        device=torch.device("cuda", 0) if cuda else torch.device("cpu"),
        autocast=_PRECISIONS.get(found.fingerprint.get("precision", "")) if as_trained else None,
        memory_format=torch.channels_last,
        backend="",
    )


class _Network:
    """A network in torch, asked as the training's evaluation asks it."""

    def __init__(self, found: Restored, device: Device) -> None:
        self._card = found.card
        self._device = device
        self._model = found.model.to(device.device)

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        precision: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self._device.autocast is not None:
            precision = torch.autocast(self._device.device.type, dtype=self._device.autocast)
        card = self._card
        with torch.no_grad(), precision:
            found = logits_of(
                self._model, pixels, mean=card.mean, std=card.std, device=self._device, mirror=card.mirror
            )
        logits: npt.NDArray[np.float32] = found.numpy()
        return logits


@dataclass(frozen=True)
class _InPieces:
    """A model that is given no more than so many images at once."""

    model: Predictor
    most: int

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        starts = range(0, len(pixels), self.most)
        return np.concatenate([self.model.logits(pixels[start : start + self.most]) for start in starts])


def _of_pt2(path: Path) -> Opened:
    from edgecloud_trainer.export.pt2 import open_pt2

    logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # it would say with a traceback what is raised anyway
    model = open_pt2(path, 0)
    return Opened(
        path=path,
        kind="pt2",
        card=model.card.network,
        run=model.card.run,
        predictor=_InPieces(model, images_at_once(model.card.network.shape)),
        mirror=model.card.mirror,
        computes="cpu, float32",
    )
