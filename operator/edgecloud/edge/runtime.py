"""A converted model in onnxruntime. The file may be anybody's: what it says of itself is held against its graph."""

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]
from pydantic import ValidationError

from edgecloud.edge.card import INPUT, METADATA_KEY, OUTPUT, ExportCard, Format
from edgecloud.launcher.machine import usable_cpus

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

MAX_MODEL_BYTES: Final = 2 * 1024**3
"""A protobuf message, and so an ONNX file, is never larger."""
MAX_CARD_BYTES: Final = 32 * 1024**2
MAX_THREADS: Final = 1024
_FORMATS: Final[tuple[Format, ...]] = ("onnx", "onnx-int8")
_ZIP: Final = b"PK\x03\x04"
_FATAL: Final = 4
"""What onnxruntime prints itself has names of the file's in it as they are, escape sequences and all, and is in the
exceptions as well."""
_EXPORT: Final = "export it with edgecloud export"

onnxruntime.set_default_logger_severity(_FATAL)  # for what is said where there is no session yet


class ModelFileError(ValueError):
    """The file is no converted model that can be used. The message names it, says why, and what to do."""


class Predictor(Protocol):
    """Whatever gives logits for pixels."""

    def logits(self, pixels: Pixels) -> Logits:
        """float32 [N, classes] for uint8 [N, C, H, W]."""


@dataclass(frozen=True, kw_only=True)
class EdgeModel:
    """A model that is ready to run."""

    path: Path
    card: ExportCard
    threads: int
    _session: Any

    def logits(self, pixels: Pixels) -> Logits:
        """Run the model once.

        Args:
            pixels: uint8 [N, C, H, W], N from 1; of the card's shape.

        Returns:
            float32 [N, classes].

        Raises:
            ValueError: the pixels are not such.
            ModelFileError: the model fails on them, or gives something else.
        """
        network = self.card.network
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != network.shape or not len(pixels):
            raise ValueError(
                f"pixels are {pixels.dtype} {list(pixels.shape)}: uint8 [N, {_listed(network.shape)}] is needed"
            )
        try:
            (logits,) = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(pixels)})
        except Exception as error:  # onnxruntime has errors of its own, which have no common base
            raise ModelFileError(f"{self.path} fails while it runs ({_first_line(error)}): {_EXPORT} again") from error
        wanted = (len(pixels), len(network.classes))
        if not isinstance(logits, np.ndarray) or logits.dtype != np.float32 or logits.shape != wanted:
            raise ModelFileError(f"{self.path} doesn't give a logit for each class its card names: {_EXPORT} again")
        if not np.isfinite(logits).all():
            raise ModelFileError(
                f"{self.path} gives logits that are no numbers (NaN or infinite): look at the training, and {_EXPORT}"
            )
        return logits


def open_model(path: Path, *, threads: int = 0) -> EdgeModel:
    """Open an ONNX file that EdgeCloud exported; on the CPU.

    Args:
        path: the file.
        threads: that a run may use; 0: as many as there are CPUs for this process.

    Raises:
        ModelFileError: it can't be opened, isn't such a file, or says of itself what is not so.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise ValueError(f"threads {threads}: 0 to {MAX_THREADS} are possible")
    _look(path)
    threads = threads or max(1, int(usable_cpus()))
    session = _session(path, threads)
    card = _card(path, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))
    _hold_against(path, card, session)
    return EdgeModel(path=path, card=card, threads=threads, _session=session)


def open_onnx(path: Path, threads: int) -> EdgeModel:
    """`open_model`, as `measuring` calls for it."""
    return open_model(path, threads=threads)


def _look(path: Path) -> None:
    """Refuse what can't be an ONNX file before onnxruntime reads it."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ModelFileError(f"{path} is a folder: name the file in it, such as {path / 'model.onnx'}")
        if not stat.S_ISREG(found.st_mode):
            raise ModelFileError(f"{path} is no regular file: name an .onnx file")
        if not 0 < found.st_size <= MAX_MODEL_BYTES:
            raise ModelFileError(
                f"{path} has {found.st_size} bytes, and a model 1 to {MAX_MODEL_BYTES}: copy it again, or {_EXPORT}"
            )
        with path.open("rb") as file:
            start = file.read(len(_ZIP))
    except OSError as error:
        raise ModelFileError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error
    if path.suffix == ".pt2":
        raise ModelFileError(
            f"{path} needs torch: use edgecloud evaluate, with the extra trainer installed, or the .onnx file beside it"
        )
    if start == _ZIP:
        raise ModelFileError(f"{path} is no ONNX model but an archive, such as torch.save writes: {_EXPORT}")


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL
    # Threads that wait for the next run by spinning would take the CPUs from whatever else runs then.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        # By its path, so that onnxruntime refuses tensors in files outside of its folder.
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has errors of its own, which have no common base
        raise ModelFileError(
            f"{path} is no ONNX model that onnxruntime {onnxruntime.__version__} can load ({_first_line(error)}): "
            f"{_EXPORT}"
        ) from error


def _card(path: Path, text: str | None) -> ExportCard:
    if text is None:
        raise ModelFileError(f"{path} doesn't say what its classes and images are (it has no card): {_EXPORT}")
    if len(text) > MAX_CARD_BYTES:
        raise ModelFileError(f"{path} has a card of {len(text)} characters: {_EXPORT}")
    try:
        card = ExportCard.model_validate_json(text, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise ModelFileError(f"{path} has a card that can't be used ({place}: {first['msg']}): {_EXPORT}") from None
    if card.format not in _FORMATS:
        raise ModelFileError(f"{path} is an ONNX file whose card says {card.format}: {_EXPORT}")
    return card


def _hold_against(path: Path, card: ExportCard, session: Any) -> None:
    """Refuse a card that tells of other images or classes than the graph has."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    classes = len(card.network.classes)
    for kind, found, name, type_, shape in (
        ("input", inputs, INPUT, "uint8", card.network.shape),
        ("output", outputs, OUTPUT, "float", (classes,)),
    ):
        if len(found) != 1 or found[0].name != name:
            names = ", ".join(repr(one.name)[:64] for one in found[:3])
            raise ModelFileError(f"{path} has the {kind}s {names}, and {name} alone is needed: {_EXPORT}")
        if found[0].type != f"tensor({type_})" or tuple(found[0].shape[1:]) != tuple(shape):
            raise ModelFileError(
                f"{path}: its card says {type_} [N, {_listed(shape)}] of its {kind} {name}, and its graph "
                f"{found[0].type} [{_listed(found[0].shape)}]: {_EXPORT}"
            )
        if isinstance(found[0].shape[0], int):
            raise ModelFileError(f"{path} takes {found[0].shape[0]} images at a time and no other number: {_EXPORT}")


def _listed(shape: Sequence[object]) -> str:
    return ", ".join(str(side)[:32] for side in shape[:8])


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Probabilities [N, classes], each row's sum 1."""
    values = logits.astype(np.float64)
    values = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def images_in_a_run(shape: tuple[int, int, int], most: int = 256) -> int:
    """How many images are given to a model at once where time doesn't matter: fewer the larger they are."""
    return max(1, min(most, 2**22 // math.prod(shape)))
