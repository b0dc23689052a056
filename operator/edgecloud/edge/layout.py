"""What the files in an export's folder are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgecloud.edge.card import Format

MODELS: Final[Mapping[Format, str]] = {"onnx": "model.onnx", "onnx-int8": "model-int8.onnx", "pt2": "model.pt2"}
REFERENCE: Final = "reference.npz"
REPORT: Final = "report.json"
SCHEMA: Final = "report.schema.json"
PAGE: Final = "report.html"
EDGE_REPORT: Final = "report-edge.json"
"""The same as it was measured on another machine."""
