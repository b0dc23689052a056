"""The pictures of a report: latency, accuracy, size, and how the logits compare. PNG, as bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgecloud.edge.card import Format
from edgecloud.edge.intervals import wilson
from edgecloud.edge.reference import Reference
from edgecloud.edge.report import Latency, Measured, Report
from edgecloud_trainer.sheets import Cell, contact_sheet

Logits = npt.NDArray[np.float32]

COLOURS: Final[Mapping[Format, str]] = {"onnx": "#3b6fb6", "onnx-int8": "#e08214", "pt2": "#4d9a6a"}
_ORIGINAL: Final = "#666666"
_DPI: Final = 130
_BINS: Final = 120
_SHEET: Final = 20
"""Images on a sheet."""


def draw_all(report: Report, reference: Reference, converted: Mapping[Format, Logits]) -> dict[str, bytes]:
    """All pictures of a report, under their headings.

    Args:
        report: what was measured.
        reference: some of its images.
        converted: what the converted models say of those; float32 [N, classes] each.
    """
    if not report.exports:
        return {}
    drawn = {
        "Latency, drawn": draw_latency(report.exports),
        "Accuracy and size": draw_accuracy(report),
        f"Logits of {len(reference)} test images": draw_parity(reference.logits, converted),
    }
    for name, logits in converted.items():
        if (sheet := draw_disagreement(report.network.classes, reference, logits, name)) is not None:
            drawn[f"Where {name} names another class than the original"] = sheet
    return drawn


def draw_latency(exports: Sequence[Measured]) -> bytes:
    """p50 with its 95 % interval, and p90 and p99 as marks above, for each batch and number of threads."""
    plt = _pyplot()
    batches = sorted({one.batch for export in exports for one in export.latencies})
    figure, axes = plt.subplots(1, max(1, len(batches)), figsize=(10, 3.4), layout="constrained", squeeze=False)
    for axis, batch in zip(axes[0], batches, strict=False):
        threads = sorted({one.threads for export in exports for one in export.latencies if one.batch == batch})
        width = 0.8 / len(exports)
        for place, export in enumerate(exports):
            found = {one.threads: one for one in export.latencies if one.batch == batch}
            at = [
                group + (place - (len(exports) - 1) / 2) * width for group, many in enumerate(threads) if many in found
            ]
            _bars(axis, at, [found[many] for many in threads if many in found], width, export.format)
        axis.set_xticks(range(len(threads)), [f"{many} thread{'s' if many != 1 else ''}" for many in threads])
        axis.set_title(f"batch {batch}", fontsize=10)
        axis.set_ylabel("ms for a run")
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].legend(fontsize=8)
    return _png(figure)


def _bars(axis: Any, at: Sequence[float], found: Sequence[Latency], width: float, name: Format) -> None:
    heights = [one.p50 for one in found]
    axis.bar(at, heights, width * 0.92, color=COLOURS[name], label=name)
    for x, one in zip(at, found, strict=True):
        if one.p50_interval is not None:
            axis.plot([x, x], [one.p50_interval.low, one.p50_interval.high], color="black", linewidth=2)
        axis.plot([x, x], [one.p90, one.p99], color=COLOURS[name], marker="_", markersize=7, linewidth=0.8)


def draw_accuracy(report: Report) -> bytes:
    """Accuracy with 95 % intervals, of the original too, and the size of the files."""
    plt = _pyplot()
    rows = len(report.exports) + 1
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 1.3 + 0.45 * rows), layout="constrained")
    low, high = wilson(round(report.original_accuracy * report.images), report.images)
    spans = [(report.original_accuracy, low, high)]
    spans += [(one.accuracy, one.accuracy_interval.low, one.accuracy_interval.high) for one in report.exports]
    colours = [_ORIGINAL, *(COLOURS[one.format] for one in report.exports)]
    names = ["original (torch, fp32)", *(one.format for one in report.exports)]
    for row, ((value, low, high), colour) in enumerate(zip(spans, colours, strict=True)):
        left.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=2)
        left.plot([100 * value], [row], "o", color=colour)
    gates = {one.gate.max_accuracy_loss for one in report.exports}
    for allowed in gates:
        left.axvline(100 * report.original_accuracy - allowed, color="tab:red", linestyle="--", linewidth=1)
    left.set_yticks(range(rows), names)
    left.invert_yaxis()
    left.set_xlabel(f"accuracy on {report.images} test images, %" + ("   (dashed: the gate)" if gates else ""))
    left.grid(axis="x", alpha=0.3)
    sizes = [one.bytes / 1e6 for one in report.exports]
    right.barh(range(len(sizes)), sizes, color=[COLOURS[one.format] for one in report.exports], height=0.6)
    for row, size in enumerate(sizes):
        right.text(size, row, f" {size:.2f} MB", va="center", fontsize=9)
    right.set_yticks(range(len(sizes)), [one.format for one in report.exports])
    right.set_xlim(right=1.25 * max(sizes, default=1))
    right.invert_yaxis()
    right.set_xlabel("size of the file, MB")
    return _png(figure)


def draw_parity(original: Logits, converted: Mapping[Format, Logits]) -> bytes:
    """Each logit of the converted model over the original's: on the diagonal where they are equal.

    original: float32 [N, classes]; so are the others.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(
        1, len(converted), figsize=(3.4 * len(converted), 3.4), layout="constrained", squeeze=False
    )
    low, high = float(original.min()), float(original.max())
    low, high = (low, high) if high > low else (low - 1, high + 1)
    for axis, (name, logits) in zip(axes[0], converted.items(), strict=True):
        edges = np.linspace(low, high, _BINS)
        counts, _, _ = np.histogram2d(original.ravel(), np.clip(logits, low, high).ravel(), bins=[edges, edges])
        shade = np.log1p(counts.T)
        axis.imshow(np.ma.masked_equal(shade, 0), origin="lower", extent=(low, high, low, high), cmap="viridis_r")
        axis.plot([low, high], [low, high], color="tab:red", linewidth=0.7, alpha=0.7)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("original's logit")
        axis.grid(alpha=0.2)
    axes[0][0].set_ylabel("converted model's logit")
    return _png(figure)


def draw_disagreement(classes: Sequence[str], reference: Reference, logits: Logits, name: Format) -> bytes | None:
    """The images on which a converted model names another class, the surest first; None: there are none.

    logits: float32 [N, classes].
    """
    before, after = reference.logits.argmax(1), logits.argmax(1)
    differing = np.flatnonzero(before != after)
    if not len(differing):
        return None
    lead = logits[differing, after[differing]] - logits[differing, before[differing]]
    ordered = differing[np.argsort(-lead, kind="stable")][:_SHEET]
    cells = [
        Cell(
            pixels=reference.pixels[place],
            lines=(
                f"is {classes[reference.labels[place]]}",
                f"was {classes[before[place]]}",
                f"now {classes[after[place]]}",
            ),
        )
        for place in ordered
    ]
    title = f"{name}: {len(differing)} of {len(logits)} images"
    out = io.BytesIO()
    contact_sheet(cells, title=title).save(out, format="png")
    return out.getvalue()


def _png(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI)
    plt.close(figure)
    return out.getvalue()


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt
