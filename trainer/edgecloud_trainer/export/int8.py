"""From an ONNX file in fp32 to one in int8: static quantisation, with scales fitted on training images.

The settings, each tried on CIFAR-10 with EdgeNet (rms of the error of the logits; a gain of a hundredth is not worth
more):

- QDQ, per channel, weights int8, activations uint8: with one scale for a whole layer it loses seven times as much.
- Weights in 7 bits. Without VNNI, x86 adds products of 8 bits in 16, which overflow; in 7 bits they don't. It costs
  nothing that can be measured, and the file is as right on an old edge node as on the machine that it was made on.
- Normalisation and first layer in fp32: nearly half of the error came from there, and none of the time.
- The last layers' products come out as fp32: logits on 256 steps would tie.
- Smallest and largest value as the range of an activation: percentiles are no better, and need all activations at once.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]

from edgecloud.edge.card import INPUT
from edgecloud_trainer.export.errors import ConversionError, first_line

Pixels = npt.NDArray[np.uint8]

_WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
_QUANTISED: Final = (
    *_WEIGHTED, "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Relu", "Clip", "Concat", "Flatten", "Reshape",
    "Transpose", "Squeeze", "Unsqueeze",
)  # fmt: skip
"""What has a kernel for int8 that pays. Mul is none: what is left of it gates and scales, in a few numbers."""
_OPTIONS: Final = {
    "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
    "MatMulConstBOnly": True,
    "CalibMaxIntermediateOutputs": 8,
}
_BATCH_VALUES: Final = 2**21
_COPIES: Final = 4
"""Of the model that there must be room for: onnxruntime's tool writes as many on the way, and parts of others."""
_SPARE_BYTES: Final = 2**20


def to_int8(path: Path, pixels: Pixels, scratch: Path) -> onnx.ModelProto:
    """Quantise a model.

    Args:
        path: an ONNX file in fp32.
        pixels: uint8 [N, C, H, W], training images that the scales are fitted on.
        scratch: a folder for files on the way.

    Raises:
        ConversionError: onnxruntime can't, or nothing is there for it to quantise.
        OSError: there is no room for what it writes on the way.
    """
    prepared, quantised = scratch / "prepared.onnx", scratch / "quantised.onnx"
    try:
        with _quiet(), _temporary_files_in(scratch):
            quant_pre_process(path, prepared)
            quantize_static(
                prepared,
                quantised,
                _Images(pixels),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=front(onnx.load(prepared)),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=dict(_OPTIONS),
            )
        model: onnx.ModelProto = onnx.load(quantised)
    except OSError:
        raise
    except Exception as error:  # onnxruntime's tool fails in as many ways as there are operations
        _see_to_room(path, scratch, error)
        raise ConversionError(
            f"onnxruntime can't quantise this network ({first_line(error)}): leave onnx-int8 out"
        ) from error
    if not _has_weights(model):
        raise ConversionError("nothing in this network can be computed in int8: leave onnx-int8 out")
    return model


def _see_to_room(path: Path, scratch: Path, error: Exception) -> None:
    """Raise OSError if there may be none: on a full disk onnxruntime writes half a model, and fails to read it."""
    if shutil.disk_usage(scratch).free < _COPIES * path.stat().st_size + _SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch)) from error


def _has_weights(model: onnx.ModelProto) -> bool:
    """Whether any weights are in int8."""
    small = {one.name for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8}
    return any(node.op_type == "DequantizeLinear" and node.input[0] in small for node in model.graph.node)


def front(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes up to and with the first layer that has weights, in the graph's order."""
    names = []
    for node in model.graph.node:
        names.append(node.name)
        if node.op_type in _WEIGHTED:
            break
    return names


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Hands the images out in batches."""

    def __init__(self, pixels: Pixels) -> None:
        step = max(1, min(64, _BATCH_VALUES // math.prod(pixels.shape[1:])))
        self._batches: Iterator[Pixels] = (pixels[start : start + step] for start in range(0, len(pixels), step))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """The tool's own would go to $TMPDIR, which may be small."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def _quiet() -> Iterator[None]:
    """The tool advises on the root logger to do what has just been done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
