"""The network as an ONNX file in fp32."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx
import torch
import torch.fx.config

from edgecloud.edge.card import INPUT, METADATA_KEY, OUTPUT, ExportCard
from edgecloud_trainer.export.errors import ConversionError, first_line

OPSET: Final = 20
"""The first in which Gelu is one operation: in pieces it could neither be left in fp32 as a whole nor run as fast."""
MAX_BYTES: Final = 2**31 - 1
"""Of a protobuf message, and so of a file that holds all of a model."""


def to_onnx(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """The graph as ONNX, with input INPUT, output OUTPUT, and any number of images.

    Raises:
        ConversionError: there are no ONNX operations for it.
    """
    try:
        with _quiet(), _no_stacks():
            made: Any = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            model: onnx.ModelProto = made.model_proto
    except Exception as error:  # the exporter fails in as many ways as there are operations
        raise ConversionError(
            f"torch.onnx can't write this network ({first_line(error)}): leave the onnx formats out, or write the part"
            " that it names with other operations"
        ) from error
    _forget_origin(model)
    return model


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of each node: lines of source code and their paths, of no use on an edge node."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def save_onnx(model: onnx.ModelProto, path: Path, card: ExportCard) -> None:
    """Write the model as one file, with its card and no other metadata.

    Raises:
        ConversionError: it is too large for one.
        OSError: the file system can't hold it.
    """
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: card.model_dump_json(by_alias=True)})
    model.producer_name = "edgecloud"
    if (size := model.ByteSize()) > MAX_BYTES:
        raise ConversionError(f"it would have {size} bytes, and an ONNX file {MAX_BYTES} at most: leave the format out")
    path.write_bytes(model.SerializeToString())


@contextlib.contextmanager
def _no_stacks() -> Iterator[None]:
    """Of each number that depends on a size torch would note the lines of Python that it came from: a third of the
    time, and `_forget_origin` has no use for it."""
    before = torch.fx.config.do_not_emit_stack_traces
    torch.fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        torch.fx.config.do_not_emit_stack_traces = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stdout, which holds results, and no warnings about the exporter's own ways."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
