"""An appraisal's files in a folder. Each is written beside its place and renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from edgecloud_trainer import results
from edgecloud_trainer.appraisal import pictures
from edgecloud_trainer.appraisal.appraising import Appraisal, Comparison, comparison_to_json, to_json


def write_appraisal(one: Appraisal, folder: Path, *, suffix: str = "") -> list[Path]:
    """evaluation.json, confusion.png and worst.png.

    Args:
        one: what is written.
        folder: is there.
        suffix: of the files' names, for a second model.

    Raises:
        OSError: a file can't be written; nothing is left of that one.
    """
    split = "overall" if one.material.choice == "all" else one.material.choice
    name = f"{one.opened.card.model}, {one.opened.kind}"
    sheet = pictures.worst_sheet(one, f"Highest loss: {name} on {one.material.name} ({one.material.choice})")
    return [
        _put(folder / f"evaluation{suffix}.json", partial(results.write_json, value=to_json(one))),
        _put(folder / f"confusion{suffix}.png", lambda path: results.draw_confusion(one.evaluation, path, split=split)),
        _put(folder / f"worst{suffix}.png", lambda path: sheet.save(path, "PNG")),
    ]


def write_calibration(appraisals: Sequence[Appraisal], names: Sequence[str], folder: Path) -> Path:
    """calibration.png, of one model or two.

    Raises:
        OSError: it can't be written; nothing is left of it.
    """
    return _put(folder / "calibration.png", lambda path: pictures.draw_calibration(appraisals, names, path))


def write_comparison(one: Comparison, names: tuple[str, str], folder: Path) -> list[Path]:
    """comparison.json, and differences.png if there are any.

    Raises:
        OSError: a file can't be written; nothing is left of that one.
    """
    written = [_put(folder / "comparison.json", partial(results.write_json, value=comparison_to_json(one)))]
    count = len(one.differing)
    title = f"{count} images that one model alone is right on: green 1 ({names[0]}), red 2 ({names[1]})"
    if (sheet := pictures.differences_sheet(one, title)) is not None:
        written.append(_put(folder / "differences.png", lambda path: sheet.save(path, "PNG")))
    return written


def _put(path: Path, write: Callable[[Path], None]) -> Path:
    beside = path.with_name(f".{os.getpid()}.{path.name}")  # matplotlib goes by the suffix
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
