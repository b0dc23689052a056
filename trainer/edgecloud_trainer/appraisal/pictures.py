"""The appraisal as pictures: reliability, the worst images, and those that two models differ on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from edgecloud_trainer.appraisal import scores
from edgecloud_trainer.appraisal.appraising import WORST, Appraisal, Comparison
from edgecloud_trainer.labels import caption
from edgecloud_trainer.sheets import Cell, contact_sheet

_RIGHT: Final = (20, 120, 50)
_WRONG: Final = (180, 30, 30)
_TITLE: Final = 60
_PER_ROW: Final = 8
_SIDE: Final = 128


def draw_calibration(appraisals: Sequence[Appraisal], names: Sequence[str], path: Path) -> None:
    """Accuracy over confidence, and below it how many images there are at each confidence; a column for each model."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(appraisals), figsize=(max(6.0, 4.6 * len(appraisals)), 6.4), layout="constrained", squeeze=False,
        height_ratios=(3, 1), sharex=True, sharey="row",
    )  # fmt: skip
    for column, (one, name) in enumerate(zip(appraisals, names, strict=True)):
        found = one.calibration
        _reliability(axes[0][column], found)
        _counts(axes[1][column], found)
        axes[0][column].set_title(
            f"{caption(name, _TITLE)}\ncalibration error {100 * found.ece:.2f} %, accuracy {100 * one.accuracy:.2f} %"
        )
    axes[0][0].set_ylabel("accuracy")
    axes[1][0].set_ylabel("images")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _reliability(axis: Any, found: scores.Calibration) -> None:
    """A bar up to the accuracy, a mark at the confidence, and red between them."""
    bins = [one for one in found.bins if one.count]
    middles, width = [(one.low + one.high) / 2 for one in bins], 1 / len(found.bins)
    accuracy = [one.accuracy or 0.0 for one in bins]
    confidence = [one.confidence or 0.0 for one in bins]
    axis.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="as right as it is sure")
    axis.bar(middles, accuracy, width, color="#9ecae1", edgecolor="white", label="accuracy")
    gaps = [sure - right for sure, right in zip(confidence, accuracy, strict=True)]
    axis.bar(
        middles, gaps, 0.6 * width, bottom=accuracy, color=(0.84, 0.15, 0.16, 0.35), label="distance to the confidence"
    )
    axis.hlines(confidence, [at - width / 2 for at in middles], [at + width / 2 for at in middles], color="tab:red")
    axis.set_ylim(0, 1.02)
    axis.grid(alpha=0.3)


def _counts(axis: Any, found: scores.Calibration) -> None:
    """How many images there are at each confidence."""
    middles = [(one.low + one.high) / 2 for one in found.bins]
    axis.bar(middles, [one.count for one in found.bins], 1 / len(found.bins), color="tab:grey", edgecolor="white")
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.7)
    axis.set_xlim(0, 1)
    axis.set_xlabel("confidence")
    axis.grid(alpha=0.3)


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
                    f"is {one.name_of(int(found.labels[number]))}",
                    f"said {_answer(one, number)}",
                    _short(name),
                ),
                colour=_RIGHT if right else _WRONG,
            )
        )
    return contact_sheet(cells, title=title, columns=_PER_ROW, side=_SIDE)


def differences_sheet(one: Comparison, title: str) -> Image.Image | None:
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
                    f"is {one.first.name_of(int(one.first.answers.labels[number]))}  ({_short(name)})",
                    f"1: {_answer(one.first, number)}",
                    f"2: {_answer(one.second, number)}",
                ),
                colour=_RIGHT if first_right else _WRONG,
            )
        )
    return contact_sheet(cells, title=title, columns=_PER_ROW, side=_SIDE) if cells else None


def _short(name: str) -> str:
    """A file without its folders, for there is little room; a place in a split as it is."""
    return name.rpartition("/")[2] if "." in name else name


def _answer(one: Appraisal, number: int) -> str:
    return f"{one.name_of(int(one.answers.predicted[number]))} {100 * one.answers.confidence[number]:.0f} %"
