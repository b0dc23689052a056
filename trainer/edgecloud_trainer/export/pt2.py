"""The network as torch.export saves it (.pt2), and opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgecloud.edge.card import PT2_FILE, ExportCard
from edgecloud_trainer.export.errors import ConversionError, first_line



def save_pt2(program: torch.export.ExportedProgram, path: Path, card: ExportCard) -> None:
    """Write the graph with its card.

    Raises:
        ConversionError: torch can't write it.
        OSError: the file system can't.
    """
    extra = {PT2_FILE: card.model_dump_json(by_alias=True)}
    try:
        torch.export.save(program, path, extra_files=extra)
    except OSError:
        raise
    except Exception as error:  # whatever a network's graph may hold that torch has no words for
        raise ConversionError(
            f"torch.export.save can't write this network ({first_line(error)}): leave pt2 out"
        ) from error


class Pt2Model:
    """A .pt2 file, ready to run on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        """threads: that a run may use; 0: as many as torch uses anyway.

        Raises:
            ConversionError: it can't be opened, or has no card.
        """
        extra = {PT2_FILE: ""}
        try:
            program = torch.export.load(path, extra_files=extra)
            self.card = ExportCard.model_validate_json(extra[PT2_FILE], by_alias=True, by_name=False)
            self._network = program.module()
        except OSError:
            raise
        except Exception as error:
            raise ConversionError(f"{path} can't be opened again ({first_line(error)}): leave pt2 out") from error
        self.threads = threads or torch.get_num_threads()

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """float32 [N, classes] for uint8 [N, C, H, W]."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)  # of the whole process: models of other numbers may run by turns
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = self._network(torch.from_numpy(np.array(pixels))).numpy()
        return logits
