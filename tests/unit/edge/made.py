"""Small ONNX files made node by node: right ones, and ones that lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecloud.api.trainer import DataSpec
from edgecloud.edge.card import INPUT, METADATA_KEY, OUTPUT, ExportCard, Format, ModelCard, RunCard

CLASSES = ("cat", "dog", "eel")
SHAPE = (3, 4, 5)
OPSET = 20


def network_card(classes: Sequence[str] = CLASSES, shape: tuple[int, int, int] = SHAPE, **more: Any) -> ModelCard:
    said: dict[str, Any] = {
        "model": "edgenet", "classes": tuple(classes), "shape": shape, "mean": (0.0,) * shape[0],
        "std": (1.0,) * shape[0], "data": DataSpec(name="digits"), "data_sha256": "0" * 64,
    }  # fmt: skip
    return ModelCard(**(said | more))


def export_card(format: Format = "onnx", **network: Any) -> ExportCard:
    run = RunCard(step=7, round=1, weights_sha256="1" * 64, torch="2.15.0")
    return ExportCard(format=format, network=network_card(**network), run=run)


def weights(
    classes: int = len(CLASSES), shape: tuple[int, int, int] = SHAPE, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """float32 [pixels, classes] and [classes]."""
    random = np.random.default_rng(seed)
    count = int(np.prod(shape))
    return random.normal(0, 1, (count, classes)).astype(np.float32), random.normal(0, 1, classes).astype(np.float32)


def expected(pixels: np.ndarray, matrix: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What the linear model says."""
    return (pixels.reshape(len(pixels), -1).astype(np.float32) / 255) @ matrix + bias


def linear(
    matrix: np.ndarray,
    bias: np.ndarray,
    shape: tuple[int, int, int] = SHAPE,
    *,
    input_type: int = TensorProto.UINT8,
    input_shape: Sequence[int | str] | None = None,
    input_name: str = INPUT,
    output_name: str = OUTPUT,
    outputs: int = 1,
) -> onnx.ModelProto:
    """A graph that scales pixels to 0..1 and multiplies them by a matrix."""
    nodes = [
        helper.make_node("Cast", [input_name], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], [output_name]),
    ]
    names = [output_name]
    for number in range(1, outputs):
        nodes.append(helper.make_node("Identity", [output_name], [f"more{number}"]))
        names.append(f"more{number}")
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(input_name, input_type, list(input_shape or ("n", *shape)))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", matrix.shape[1]]) for name in names],
        [
            numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def with_card(model: onnx.ModelProto, card: ExportCard | str | dict[str, Any] | None) -> onnx.ModelProto:
    """The model with a card, or with what stands in a card's place."""
    del model.metadata_props[:]
    if card is not None:
        text = card.model_dump_json(by_alias=True) if isinstance(card, ExportCard) else card
        text = text if isinstance(text, str) else json.dumps(text)
        helper.set_model_props(model, {METADATA_KEY: text})
    return model


def write(
    path: Path, model: onnx.ModelProto | None = None, card: ExportCard | str | dict[str, Any] | None = None
) -> Path:
    """A file; without more said the linear model with its right card."""
    made = with_card(model or linear(*weights()), export_card() if model is None and card is None else card)
    path.write_bytes(made.SerializeToString())
    return path


def images(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
