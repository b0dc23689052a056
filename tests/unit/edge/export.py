"""An export's folder as `edgecloud export` leaves it, of linear models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgecloud.edge import footprint
from edgecloud.edge.card import Format
from edgecloud.edge.intervals import wilson
from edgecloud.edge.layout import MODELS, REFERENCE, REPORT
from edgecloud.edge.measuring import digest
from edgecloud.edge.quality import gate, parity
from edgecloud.edge.reference import Reference, save_reference
from edgecloud.edge.report import Interval, Latency, Machine, Measured, Report
from tests.unit.edge.made import expected, export_card, images, linear, weights, write

IMAGES = 60


@pytest.fixture
def one_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model is loaded by one process and not by several: for tests of anything but that."""
    monkeypatch.setattr(footprint, "REPEATS", 1)


def folder(path: Path, formats: Sequence[Format] = ("onnx", "onnx-int8"), *, off: float = 0.0) -> Path:
    """Two models, images with labels that the original gets right for the most part, and the report.

    off: what the int8 model's first class is raised by, so that it is wrong the more often.
    """
    path.mkdir(parents=True, exist_ok=True)
    matrix, bias = weights()
    pixels = images(IMAGES)
    logits = expected(pixels, matrix, bias).astype(np.float32)
    labels = logits.argmax(axis=1).astype(np.int64)
    labels[:6] = (labels[:6] + 1) % 3
    save_reference(path / REFERENCE, Reference(pixels=pixels, labels=labels, logits=logits))
    raised = bias + np.array([off, 0, 0], np.float32)
    for format in formats:
        write(path / MODELS[format], linear(matrix, raised if format == "onnx-int8" else bias), export_card(format))
    low, high = wilson(54, IMAGES)
    card = export_card()
    exports = []
    for format in formats:
        size, sha256 = digest(path / MODELS[format])
        exports.append(
            Measured(
                format=format, path=MODELS[format], bytes=size, sha256=sha256, accuracy=0.9,
                accuracy_interval=Interval(low=low, high=high), parity=parity(logits, logits),
                latency=Latency(p50=1.0, p90=1.0, p99=1.0), macs=180, gate=gate(0.9, 0.9, 1.0, file=MODELS[format]),
            )
        )  # fmt: skip
    report = Report(
        network=card.network, run=card.run, original_accuracy=0.9, images=IMAGES, machine=Machine(node="cloud"),
        exports=tuple(exports),
    )  # fmt: skip
    (path / REPORT).write_text(json.dumps(report.dump()))
    return path
