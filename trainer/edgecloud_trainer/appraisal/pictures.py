"""The appraisal as pictures: reliability, the worst images, and those that two models differ on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from edgecloud_trainer.appraisal import scores
from edgecloud_trainer.appraisal.appraising import WORST, Appraisal, Comparison
from edgecloud_trainer.sheets import Cell, contact_sheet

_RIGHT: Final = (20, 120, 50)
_WRONG: Final = (180, 30, 30)
_PER_ROW: Final = 8
_SIDE: Final = 112


def draw_calibration(appraisals: Sequence[Appraisal], names: Sequence[str], path: Path) -> None:
    """Accuracy over confidence, and below it how many images there are at each confidence; a column for each model."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(appraisals), figsize=(5.2 * len(appraisals), 6.4), layout="constrained", squeeze=False,
        height_ratios=(3, 1), sharex=True, sharey="row",
    )  # fmt: skip
    for column, (one, name) in enumerate(zip(appraisals, names, strict=True)):
        _reliability(
            axes[0][column], axes[1][column], one.calibration, f"{name}: ECE {100 * one.calibration.ece:.2f} %"
        )
    axes[0][0].set_ylabel("accuracy")
    axes[1][0].set_ylabel("images")
    axes[0][0].legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _reliability(upper: Any, lower: Any, found: scores.Calibration, title: str) -> None:
    bins = [one for one in found.bins if one.count]
    middles = [(one.low + one.high) / 2 for one in bins]
    width = 1 / len(found.bins)
    accuracy = [one.accuracy or 0.0 for one in bins]
    confidence = [one.confidence or 0.0 for one in bins]
    upper.bar(middles, accuracy, width, color="tab:blue", edgecolor="white", label="accuracy")
    gaps = [sure - right for sure, right in zip(confidence, accuracy, strict=True)]
    upper.bar(
        middles, gaps, width, bottom=accuracy, facecolor=(0.84, 0.15, 0.16, 0.2), edgecolor="tab:red", hatch="///",
        linewidth=0.5, label="distance to the confidence",
    )  # fmt: skip
    upper.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="if it were as right as it is sure")
    upper.set_title(title)
    upper.set_ylim(0, 1)
    upper.grid(alpha=0.3)
    lower.bar(middles, [one.count for one in bins], width, color="tab:grey", edgecolor="white")
    lower.set_yscale("log")
    lower.set_xlim(0, 1)
    lower.set_xlabel("confidence")
    lower.grid(alpha=0.3)


def worst_sheet(one: Appraisal, title: str) -> Image.Image:
    """The images with the highest loss, and what the model takes them for."""
    cells = []
    for place in scores.worst(one.answers, WORST):
        number, found = int(place), one.answers
        name, pixels = one.material.image(number)
        right = bool(found.right[number])
        cells.append(
            Cell(
                pixels=pixels,
                lines=(
                    one.name_of(int(found.labels[number])),
                    f"→ {one.name_of(int(found.predicted[number]))} {100 * found.confidence[number]:.0f} %",
                    name,
                ),
                colour=_RIGHT if right else _WRONG,
            )
        )
    return contact_sheet(cells, title=title, columns=_PER_ROW, side=_SIDE)


def differences_sheet(one: Comparison, names: tuple[str, str], title: str) -> Image.Image | None:
    """The images that one model alone is right on, green if it is the first; None if there are none."""
    cells = []
    for place in one.differing[:WORST]:
        number = int(place)
        name, pixels = one.first.material.image(number)
        first_right = bool(one.first.answers.right[number])
        cells.append(
            Cell(
                pixels=pixels,
                lines=(
                    f"{one.first.name_of(int(one.first.answers.labels[number]))}  ({name})",
                    *(
                        _line(appraisal, label, number)
                        for appraisal, label in zip((one.first, one.second), names, strict=True)
                    ),
                ),
                colour=_RIGHT if first_right else _WRONG,
            )
        )
    return contact_sheet(cells, title=title, columns=_PER_ROW, side=_SIDE) if cells else None


def _line(one: Appraisal, label: str, number: int) -> str:
    found = one.answers
    return f"{label}: {one.name_of(int(found.predicted[number]))} {100 * found.confidence[number]:.0f} %"
