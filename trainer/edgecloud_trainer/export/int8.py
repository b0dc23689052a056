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

import logging
import math
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


def to_int8(path: Path, pixels: Pixels, scratch: Path) -> onnx.ModelProto:
    """Quantise a model.

    Args:
        path: an ONNX file in fp32.
        pixels: uint8 [N, C, H, W], training images that the scales are fitted on.
        scratch: a folder for files on the way.

    Raises:
        ConversionError: onnxruntime can't.
        OSError: there is no room for what it writes on the way.
    """
    prepared, quantised = scratch / "prepared.onnx", scratch / "quantised.onnx"
    try:
        with _quiet():
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
        raise ConversionError(
            f"onnxruntime can't quantise this network ({first_line(error)}): leave onnx-int8 out"
        ) from error
    return model


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
def _quiet() -> Iterator[None]:
    """The tool advises on the root logger to do what has just been done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
