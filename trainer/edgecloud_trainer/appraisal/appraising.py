"""A model asked for every image, and what comes of it as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from edgecloud_trainer.appraisal import scores
from edgecloud_trainer.appraisal.material import Material, meaning
from edgecloud_trainer.appraisal.predictors import Opened, PredictorError
from edgecloud_trainer.confusion import Confusion
from edgecloud_trainer.evaluation import Evaluation, images_at_once

OnProgress = Callable[[int, int], None]
"""Called with (done, total) in images."""

WORST: Final = 40
"""Images that are shown and listed."""


def ask(opened: Opened, material: Material, on_progress: OnProgress) -> scores.Answers:
    """The model's answers to all images, in their order; labels are numbers of the model's own classes.

    Raises:
        MaterialError: data and model don't go together.
        PredictorError: the model gives something else than a logit for each class.
        ModelFileError: it fails.
    """
    numbers = meaning(material, opened.card)
    classes = len(opened.card.classes)
    pieces: list[scores.Answers] = []
    done = 0
    for pixels, labels in material.pieces(images_at_once(material.shape)):
        on_progress(done, len(material))
        logits = opened.predictor.logits(pixels)
        if logits.shape != (len(labels), classes) or not np.isfinite(logits).all():
            raise PredictorError(
                f"{opened.path} doesn't give {classes} numbers for an image, or some that are NaN or infinite: look at "
                "the training, or export it again"
            )
        pieces.append(scores.answers(logits, numbers[labels]))
        done += len(labels)
    return scores.joined(pieces)


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """A model, its answers, and what they come to."""

    opened: Opened
    material: Material
    answers: scores.Answers

    @property
    def accuracy(self) -> float:
        return float(self.answers.right.mean())

    @property
    def loss(self) -> float:
        return float(self.answers.losses.mean())

    @property
    def evaluation(self) -> Evaluation:
        """The same as the training would write at its end."""
        classes = self.opened.card.classes
        confusion = Confusion.counted(self.answers.labels, self.answers.predicted, len(classes))
        return Evaluation(classes=classes, confusion=confusion, loss=self.loss)

    @property
    def calibration(self) -> scores.Calibration:
        return scores.calibration(self.answers.confidence, self.answers.right)

    def name_of(self, number: int) -> str:
        """A class."""
        return self.opened.card.classes[number]


def to_json(one: Appraisal) -> dict[str, Any]:
    """evaluation.json: what a job's results hold under this name, and more."""
    opened, evaluation = one.opened, one.evaluation
    said = evaluation.to_json()
    for name, score in zip(evaluation.classes, scores.by_class(evaluation.confusion), strict=True):
        said["perClass"][name] |= {"precision": score.precision, "recall": score.recall, "f1": score.f1}
    return {
        "model": {
            "path": str(opened.path),
            "kind": opened.kind,
            "name": opened.card.model,
            "job": opened.card.job,
            "step": opened.run.step,
            "weightsSha256": opened.run.weights_sha256,
            "mirror": opened.mirror,
            "computes": opened.computes,
        },
        "data": {
            "name": one.material.name,
            "split": one.material.choice,
            "images": len(one.material),
            "sha256": one.material.digest,
        },
        **said,
        "calibration": asdict(one.calibration),
        "worst": [_image(one, int(number)) for number in scores.worst(one.answers, WORST)],
    }


def _image(one: Appraisal, number: int) -> dict[str, Any]:
    found = one.answers
    return {
        "image": one.material.image(number)[0],
        "true": one.name_of(int(found.labels[number])),
        "predicted": one.name_of(int(found.predicted[number])),
        "confidence": float(found.confidence[number]),
        "loss": float(found.losses[number]),
    }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same images."""

    first: Appraisal
    second: Appraisal

    @property
    def paired(self) -> scores.Paired:
        return scores.paired(self.first.answers.right, self.second.answers.right)

    @property
    def differing(self) -> np.ndarray:
        """Numbers of the images that one model alone is right on: the surest mistakes of either by turns."""
        first, second = self.first.answers, self.second.answers
        sides = []
        for right, wrong in ((first, second), (second, first)):
            numbers = np.flatnonzero(right.right & ~wrong.right)
            sides.append(numbers[np.argsort(-wrong.confidence[numbers], kind="stable")])
        turns = np.concatenate([2 * np.arange(len(side)) + place for place, side in enumerate(sides)])
        return np.asarray(np.concatenate(sides)[np.argsort(turns)])


def comparison_to_json(one: Comparison) -> dict[str, Any]:
    """comparison.json."""
    found = one.paired
    return {
        "bothRight": found.both,
        "onlyFirstRight": found.only_first,
        "onlySecondRight": found.only_second,
        "noneRight": found.none,
        "accuracyDifference": found.difference,
        "interval95": list(found.interval),
        "mcnemarP": found.p,
        "differing": [
            {"image": one.first.material.image(int(number))[0]}
            | {
                name: _answer(appraisal, int(number))
                for name, appraisal in (("first", one.first), ("second", one.second))
            }
            | {"true": one.first.name_of(int(one.first.answers.labels[number]))}
            for number in one.differing[:WORST]
        ],
    }


def _answer(one: Appraisal, number: int) -> dict[str, Any]:
    return {
        "predicted": one.name_of(int(one.answers.predicted[number])),
        "confidence": float(one.answers.confidence[number]),
    }
