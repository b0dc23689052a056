"""The network as torch.export saves it (.pt2), and opened again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgecloud.edge.card import PT2_FILE, ExportCard
from edgecloud.edge.runtime import ModelFileError
from edgecloud_trainer.export.errors import ConversionError, first_line


def save_pt2(program: torch.export.ExportedProgram, path: Path, card: ExportCard) -> None:
    """Write the graph with its card.

    Raises:
        ConversionError: torch can't write it.
        OSError: the file system can't.
    """
    extra = {PT2_FILE: card.model_dump_json(by_alias=True)}
    data = io.BytesIO()  # torch's own writer doesn't say that a disk is full
    try:
        torch.export.save(program, data, extra_files=extra)
    except Exception as error:  # whatever a network's graph may hold that torch has no words for
        raise ConversionError(
            f"torch.export.save can't write this network ({first_line(error)}): leave pt2 out"
        ) from error
    path.write_bytes(data.getbuffer())


class Pt2Model:
    """A .pt2 file that is ready to run, on the CPU."""

    def __init__(self, card: ExportCard, network: Any, threads: int) -> None:
        self.card = card
        self._network = network
        self._threads = threads

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """float32 [N, classes] for uint8 [N, C, H, W]."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)  # of the whole process: models with other numbers run by turns
        images = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = self._network(images).numpy()
        return logits


def open_pt2(path: Path, threads: int) -> Pt2Model:
    """Open a .pt2 file that EdgeCloud exported.

    Args:
        path: the file.
        threads: that a run may use; 0: as many as torch uses anyway.

    Raises:
        ModelFileError: it can't be opened, or has no card.
    """
    extra = {PT2_FILE: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
        card = ExportCard.model_validate_json(extra[PT2_FILE], by_alias=True, by_name=False)
        network = program.module()
    except Exception as error:  # a damaged archive fails in many ways
        raise ModelFileError(
            f"{path} can't be opened ({first_line(error)}): export it with edgecloud export"
        ) from error
    return Pt2Model(card, network, threads or torch.get_num_threads())
