"""What an export's folder holds already: in a job nothing is converted and measured twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from edgecloud.edge.card import Format, RunCard
from edgecloud.edge.layout import PAGE, REFERENCE, REPORT, SCHEMA
from edgecloud.edge.report import Report

MAX_REPORT: Final = 64 * 1024**2
"""Bytes."""


def read_report(folder: Path) -> Report | None:
    """The folder's report; None if there is none that can be read."""
    try:
        with (folder / REPORT).open("rb") as file:
            return parsed(file.read(MAX_REPORT + 1))
    except OSError:
        return None


def parsed(data: bytes) -> Report | None:
    """A report from its file's bytes; None if they are none, or too many."""
    try:
        return None if len(data) > MAX_REPORT else Report.model_validate_json(data, by_alias=True, by_name=False)
    except (ValidationError, ValueError):
        return None


def answers(
    report: Report,
    *,
    run: RunCard,
    formats: Sequence[Format],
    max_accuracy_loss: float,
    calibration_images: int,
    mirror: bool,
) -> bool:
    """Whether a report is of these weights, and of what is asked for now. Pure.

    calibration_images: that there are for it, of those asked for.
    """
    there = {one.format for one in report.exports} | {one.format for one in report.problems}
    return (
        report.run == run
        and there == set(formats)
        and report.mirror == mirror
        and all(one.gate.max_accuracy_loss == max_accuracy_loss for one in report.exports)
        and ("onnx-int8" not in formats or report.calibration_images == calibration_images)
    )


def whole(folder: Path, report: Report) -> bool:
    """Whether the files that a report tells of are there as it tells of them."""
    try:
        return all((folder / name).is_file() for name in (REFERENCE, PAGE, SCHEMA)) and all(
            _digest(folder / Path(one.path).name) == one.sha256 for one in report.exports
        )
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
