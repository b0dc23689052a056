"""What a training leaves in results/: numbers for programs, pictures for people."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgecloud_trainer.evaluation import Evaluation
from edgecloud_trainer.labels import caption
from edgecloud_trainer.lines import LineLog

METRICS: Final = "metrics.jsonl"
_MINUTES_FROM: Final = 300.0
_NAMED_CLASSES: Final = 30
"""With more classes than this the confusion matrix has no room for their names."""


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write beside and rename: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


class MetricsLog:
    """metrics.jsonl: a line a step. A training that goes on from a checkpoint first drops the lines after it."""

    def __init__(self, folder: Path, *, start: int) -> None:
        path = self._path = folder / METRICS
        self._log = LineLog(path)
        with contextlib.suppress(FileNotFoundError):
            _cut(path, start)
        self._seconds_before = max((line.get("seconds", 0.0) for line in _lines(path)), default=0.0)

    def write(self, *, step: int, seconds: float, **values: float) -> None:
        """A line. seconds: of training in this process; those of the processes before it are added."""
        line = {"step": step, "seconds": round(self._seconds_before + seconds, 3), **values}
        self._log.write(line)

    def holds(self, *, step: int, name: str) -> bool:
        """Whether a line of this step has a value of this name."""
        return any(line["step"] == step and name in line for line in _lines(self._path))

    def close(self) -> None:
        self._log.close()


def _cut(path: Path, start: int) -> None:
    """Cut the file off before the first line of a step after `start`, or that is not whole.

    In place, for a disk that is full has no room for a second file; what is to stay is the beginning of it anyway.
    """
    kept = 0
    with path.open("r+b") as file:
        for data in file:
            step = _step(data)
            if not data.endswith(b"\n") or (step is not None and step > start):
                break
            kept += len(data)
        file.truncate(kept)


def _step(data: bytes) -> int | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if isinstance(step, int) else None


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl; a last line that was cut off by a crash is left out."""
    return list(_lines(folder / METRICS))


def _lines(path: Path) -> Iterator[dict[str, float]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            yield value


def draw_curves(metrics: list[dict[str, float]], path: Path) -> None:
    """Loss and accuracy over the steps, with the time of training on top."""
    plt = _pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    steps = [line["step"] for line in metrics]
    for axis, name, label in ((left, "loss", "training loss"), (right, "accuracy", "training accuracy")):
        values = [line.get(name, float("nan")) for line in metrics]
        axis.plot(steps, values, color="tab:blue", alpha=0.25, linewidth=0.8)
        axis.plot(steps, _smoothed(values), color="tab:blue", label=label)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        _time_on_top(axis, metrics)
    validation = [(line["step"], line["validationAccuracy"]) for line in metrics if "validationAccuracy" in line]
    if validation:
        right.plot(*zip(*validation, strict=True), "o-", color="tab:orange", label="validation accuracy")
    right.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _time_on_top(axis: Any, metrics: list[dict[str, float]]) -> None:
    """A second scale: the seconds (or minutes) of training at the steps below."""
    seconds = np.maximum.accumulate([0.0, *(line.get("seconds", 0.0) for line in metrics)])
    if seconds[-1] <= 0:
        return
    steps = np.array([0.0, *(line["step"] for line in metrics)], float)
    # The axes reach a little beyond the data; there the scale goes on at the mean speed, or its ticks would pile up.
    steps = np.concatenate(([-steps[-1]], steps, [2 * steps[-1]]))
    seconds = np.concatenate(([-seconds[-1]], seconds, [2 * seconds[-1]]))
    unit, name = (60.0, "minutes") if seconds[-1] > _MINUTES_FROM else (1.0, "seconds")
    top = axis.secondary_xaxis(
        "top",
        functions=(lambda x: np.interp(x, steps, seconds / unit), lambda x: np.interp(x, seconds / unit, steps)),
    )
    top.set_xlabel(f"{name} of training")


def draw_confusion(evaluation: Evaluation, path: Path, *, split: str = "test") -> None:
    """The confusion matrix: rows are the true classes, and a row's shade is its part of them.

    Of many classes some neighbours are a row together.

    split: of the images, for the title.
    """
    plt = _pyplot()
    count = len(evaluation.classes)
    size = min(14.0, 3.0 + 0.45 * count)
    figure, axis = plt.subplots(figsize=(size, size), layout="constrained")
    matrix = evaluation.confusion.matrix()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    end = -(-count // len(matrix)) * len(matrix) - 0.5
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1, extent=(-0.5, end, end, -0.5))
    axis.set_title(f"{split} accuracy {100 * evaluation.accuracy:.2f} % of {evaluation.total} images")
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if count <= _NAMED_CLASSES:
        names = [caption(name) for name in evaluation.classes]
        axis.set_xticks(range(count), names, rotation=45, ha="right")
        axis.set_yticks(range(count), names)
        for row, column in np.argwhere(matrix > 0):
            dark = share[row, column] > 0.5
            axis.text(
                column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8,
                color="white" if dark else "black",
            )  # fmt: skip
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _smoothed(values: list[float], part: float = 0.02) -> list[float]:
    """A running mean over about a fiftieth of the run, and over what there is before that."""
    span, count = max(1.0, part * len(values)), 0
    out: list[float] = []
    for value in values:
        last = out[-1] if out else value
        if value == value:  # noqa: PLR0124 - no NaN
            count += 1
            last = last + (value - last) / min(span, count) if count > 1 else value
        out.append(last)
    return out


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt
