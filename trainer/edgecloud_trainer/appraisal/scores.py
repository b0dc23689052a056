"""From logits and labels to what is said of a model, and of two models on the same images. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgecloud.edge.intervals import Z95, wilson
from edgecloud_trainer.confusion import Confusion

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BINS: Final = 15
"""Of the confidence, for calibration: as in Guo et al., "On calibration of modern neural networks", 2017."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is kept of each image, so that a set of any size can be gone through in pieces. All [N]."""

    labels: Whole
    predicted: Whole
    confidence: Floats
    """Probability of the predicted class."""
    losses: Floats
    """Negative logarithm of the true class's probability."""

    @property
    def right(self) -> Flags:
        return np.asarray(self.labels == self.predicted)

    def __len__(self) -> int:
        return len(self.labels)


def answers(logits: npt.NDArray[np.float32], labels: Whole) -> Answers:
    """The answers in a piece of the images.

    Args:
        logits: [N, classes], finite.
        labels: [N], each from 0 to the number of classes - 1.
    """
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(values).sum(axis=1))
    rows = np.arange(len(labels))
    predicted = logits.argmax(axis=1)
    return Answers(
        labels=labels,
        predicted=predicted,
        confidence=np.exp(values[rows, predicted] - log_sums),
        losses=log_sums - values[rows, labels],
    )


def joined(pieces: Sequence[Answers]) -> Answers:
    """The answers of all pieces, in their order."""
    return Answers(
        labels=np.concatenate([one.labels for one in pieces]),
        predicted=np.concatenate([one.predicted for one in pieces]),
        confidence=np.concatenate([one.confidence for one in pieces]),
        losses=np.concatenate([one.losses for one in pieces]),
    )


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class. Each figure is None where there is nothing to take it of."""

    total: int
    """Its images."""
    correct: int
    recall: float | None
    """Part of its images that were found; this is the accuracy within the class."""
    precision: float | None
    """Part of what was taken for it that is of it."""
    f1: float | None
    """Harmonic mean of both."""


def by_class(confusion: Confusion) -> list[ClassScore]:
    """The score of each class."""
    return [
        ClassScore(
            total=total,
            correct=correct,
            recall=correct / total if total else None,
            precision=correct / taken if taken else None,
            f1=2 * correct / (total + taken) if total + taken else None,
        )
        for total, taken, correct in confusion.by_class.T.tolist()
    ]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The images whose confidence lies above `low` and up to `high`. Means are None without images."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How well confidence and accuracy go together.

    ece: expected calibration error, the mean distance of the two over the bins, weighted by their images; 0 to 1.
    """

    ece: float
    bins: tuple[Bin, ...]


def calibration(confidence: Floats, right: Flags, bins: int = BINS) -> Calibration:
    """Reliability by bins of equal width.

    Args:
        confidence: [N], above 0 and up to 1; N from 1.
        right: [N].
        bins: how many.
    """
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sure = np.bincount(places, weights=confidence, minlength=bins)
    correct = np.bincount(places, weights=right.astype(np.float64), minlength=bins)
    return Calibration(
        ece=float(np.abs(sure - correct).sum() / len(confidence)),
        bins=tuple(
            Bin(
                low=place / bins,
                high=(place + 1) / bins,
                count=int(count),
                confidence=float(sure[place] / count) if count else None,
                accuracy=float(correct[place] / count) if count else None,
            )
            for place, count in enumerate(counts)
        ),
    )


def worst(found: Answers, count: int) -> Whole:
    """Numbers of the images with the highest loss, the highest first."""
    return np.asarray(np.argsort(-found.losses, kind="stable")[:count])


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two models on the same images."""

    both: int
    only_first: int
    only_second: int
    none: int
    difference: float
    """Accuracy of the first less that of the second."""
    interval: tuple[float, float]
    """95 % interval of it."""
    p: float
    """McNemar's exact test: how likely at least such a difference is where the two are equally good."""

    @property
    def total(self) -> int:
        return self.both + self.only_first + self.only_second + self.none


def paired(first: Flags, second: Flags) -> Paired:
    """Compare which images each model is right on; [N] each, N from 1."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = len(first)
    return Paired(
        both=int((first & second).sum()),
        only_first=only_first,
        only_second=only_second,
        none=int((~first & ~second).sum()),
        difference=(only_first - only_second) / total,
        interval=difference_interval(only_first, only_second, total),
        p=mcnemar(only_first, only_second),
    )


def difference_interval(only_first: int, only_second: int, total: int) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies on the same images.

    Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data",
    2012: unlike the textbook one it holds what it promises where few images differ.
    """
    one, two = (only_first + 1) / (total + 2), (only_second + 1) / (total + 2)
    half = Z95 * math.sqrt((one + two - (one - two) ** 2) / (total + 2))
    found = (only_first - only_second) / total
    return max(-1.0, min(found, one - two - half)), min(1.0, max(found, one - two + half))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test: a fair coin thrown for each image on which one model alone is right."""
    total, fewer = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0
    # The logarithms of binomial(total, k) / 2^total for k from 0 to `fewer`, each from the one before.
    steps = np.log((total - np.arange(fewer)) / (np.arange(fewer) + 1.0))
    logs = np.concatenate(([0.0], np.cumsum(steps))) - total * math.log(2)
    highest = logs.max()
    return float(min(1.0, 2 * math.exp(highest) * np.exp(logs - highest).sum()))


def interval_of(found: Answers) -> tuple[float, float]:
    """95 % interval of the accuracy."""
    return wilson(int(found.right.sum()), len(found))
