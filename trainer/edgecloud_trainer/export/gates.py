"""What a report comes to: whether every format may be used, and else what to do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgecloud.edge.report import Measured, Report


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """What the settings are called where the export was asked for."""

    max_accuracy_loss: str
    calibration_images: str
    formats: str


COMMAND: Final = Knobs(
    max_accuracy_loss="--max-accuracy-loss", calibration_images="--calibration-images", formats="--formats"
)
JOB: Final = Knobs(
    max_accuracy_loss="spec.export.maxAccuracyLoss",
    calibration_images="spec.export.calibrationImages",
    formats="spec.export.formats",
)


def complaints(report: Report, knobs: Knobs) -> list[str]:
    """A sentence for each format that must not be used or is not there; none if all is well."""
    failed = [_lost(one, report, knobs) for one in report.exports if not one.gate.passed]
    return failed + [f"{one.format} could not be made: {one.message}" for one in report.problems]


def _lost(one: Measured, report: Report, knobs: Knobs) -> str:
    remedy = f"allow more ({knobs.max_accuracy_loss}), or leave the format out ({knobs.formats})"
    if one.format == "onnx-int8":
        images = f"calibrate on more images ({knobs.calibration_images}, now {report.calibration_images})"
        remedy = f"{images}, {remedy}"
    return (
        f"{one.format} has lost {one.gate.points} points of accuracy against the original"
        f" ({100 * one.accuracy:.2f} % of {report.images} images, not {100 * report.original_accuracy:.2f} %), and"
        f" {one.gate.max_accuracy_loss:g} are allowed: {remedy}"
    )
