"""Converted models on real images: how right, how close to the original, how quick, and whether they may be used."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edgecloud.edge.card import Format
from edgecloud.edge.footprint import Footprint, FootprintError, footprint
from edgecloud.edge.latency import Budget, Times, by_turns, latency, ratio
from edgecloud.edge.layout import MODELS, REFERENCE
from edgecloud.edge.quality import accuracy, gate, parity
from edgecloud.edge.reference import Reference, ReferenceError, load_reference
from edgecloud.edge.report import Measured
from edgecloud.edge.runtime import Logits, ModelFileError, Pixels, Predictor, images_in_a_run, open_onnx
from edgecloud.launcher.machine import usable_cpus

Opener = Callable[[Path, int], Predictor]
"""A function of a module: (file, threads) -> model. Raises ModelFileError."""
OnProgress = Callable[[str, float], None]
"""Called with what is being done, and the part of all of it that is done, from 0 to 1."""

OPENERS: Final[Mapping[Format, Opener]] = {"onnx": open_onnx, "onnx-int8": open_onnx}
"""What can be opened without torch."""
BATCHES: Final = (1, 32)
LATENCY_SECONDS: Final = 20.0
_LATENCY_VARIABLE: Final = "EDGECLOUD_LATENCY_SECONDS"
AGAINST: Final[Format] = "onnx"
"""What the others are compared with."""
_PIECE: Final = 2**20


class MeasureError(ValueError):
    """A model can't be measured, or there is nothing to measure it with. The message says why, and what to do."""

    def __init__(self, message: str, *, format: Format | None = None) -> None:
        super().__init__(message)
        self.format = format
        """The model that it is about; None: all of them."""


def _silent(what: str, part: float) -> None:
    """Nobody wants to know."""


def measure(
    folder: Path,
    formats: Sequence[Format],
    *,
    max_accuracy_loss: float,
    openers: Mapping[Format, Opener] = OPENERS,
    seconds: float | None = None,
    threads: int = 0,
    on_progress: OnProgress = _silent,
    on_logits: Callable[[Format, Logits], None] = lambda _format, _logits: None,
) -> list[Measured]:
    """Measure the models of an export's folder against its reference images.

    Latency is taken of all of them by turns, so that they can be compared.

    Args:
        folder: holds the models, under the names of `layout`, and reference.npz.
        formats: which models, one or more.
        max_accuracy_loss: percentage points that a model may lose against the original and still pass.
        openers: how each format is opened.
        seconds: for latency, over all models, batches and threads; the least number of runs may take longer. None: as
            EDGECLOUD_LATENCY_SECONDS says, or 20.
        threads: the larger of the two numbers that latency is taken with; 0: the CPUs that there are.
        on_progress: see OnProgress.
        on_logits: called with what each model says of the reference images, float32 [N, classes].

    Raises:
        MeasureError: a model, the images or the variable can't be used.
    """
    seconds = latency_seconds() if seconds is None else seconds
    try:
        reference = load_reference(folder / REFERENCE)
    except ReferenceError as error:
        raise MeasureError(str(error)) from error
    subjects = [_Subject(format=one, path=folder / MODELS[one], opener=openers[one]) for one in formats]
    many = threads or max(1, int(usable_cpus()))
    found = []
    for place, subject in enumerate(subjects):
        on_progress(f"accuracy of {subject.format}", 0.5 * place / len(subjects))
        found.append(_found(subject, reference, many))
        on_logits(subject.format, found[-1].logits)
    timings = _timings(subjects, reference, many, seconds, on_progress)
    on_progress("done", 1.0)
    return [
        _measured(subject, place, formats, found[place], reference, timings, max_accuracy_loss)
        for place, subject in enumerate(subjects)
    ]


def latency_seconds() -> float:
    """For how long latency is measured, as EDGECLOUD_LATENCY_SECONDS says.

    Raises:
        MeasureError: it says no such number.
    """
    text = os.environ.get(_LATENCY_VARIABLE) or str(LATENCY_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise MeasureError(f"{_LATENCY_VARIABLE} is {text[:64]!r}: a number of seconds above 0 is needed")
    return seconds


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A model to be measured."""

    format: Format
    path: Path
    opener: Opener

    def open(self, threads: int) -> Predictor:
        try:
            return self.opener(self.path, threads)
        except ModelFileError as error:
            raise MeasureError(str(error), format=self.format) from error

    def logits(self, model: Predictor, pixels: Pixels, classes: int) -> Logits:
        """What the model says; of the reference's form, and numbers."""
        try:
            logits = model.logits(pixels)
        except (ModelFileError, ValueError) as error:
            raise MeasureError(f"{self.path.name}: {error}", format=self.format) from error
        if logits.shape != (len(pixels), classes) or not np.isfinite(logits).all():
            raise MeasureError(
                f"{self.path.name} doesn't give {classes} numbers for an image, as {REFERENCE} has them: export again",
                format=self.format,
            )
        return logits


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What doesn't depend on the other models."""

    logits: Logits
    bytes: int
    sha256: str
    cost: Footprint


def _found(subject: _Subject, reference: Reference, threads: int) -> _Found:
    try:
        size, sha256 = digest(subject.path)
    except MeasureError as error:
        raise MeasureError(str(error), format=subject.format) from error
    model = subject.open(threads)
    _, channels, height, width = reference.pixels.shape
    step = images_in_a_run((channels, height, width))
    pieces = [
        subject.logits(model, reference.pixels[start : start + step], reference.logits.shape[1])
        for start in range(0, len(reference), step)
    ]
    try:
        cost = footprint(subject.path, subject.opener)
    except FootprintError as error:
        raise MeasureError(str(error), format=subject.format) from error
    return _Found(logits=np.concatenate(pieces), bytes=size, sha256=sha256, cost=cost)


def digest(path: Path) -> tuple[int, str]:
    """Size and sha256 of a model's file.

    Raises:
        MeasureError: it can't be read.
    """
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                found.update(piece)
                size += len(piece)
    except OSError as error:
        raise MeasureError(f"{path} can't be read ({error.strerror or error}): check it and its rights") from error
    return size, found.hexdigest()


@dataclass(frozen=True)
class _Setting:
    """How the models are run for their latency."""

    batch: int
    threads: int


def _timings(
    subjects: Sequence[_Subject], reference: Reference, many: int, seconds: float, on_progress: OnProgress
) -> dict[_Setting, list[Times]]:
    """In each setting the times of each model."""
    settings = [_Setting(batch, threads) for threads in dict.fromkeys((1, many)) for batch in BATCHES]
    timings: dict[_Setting, list[Times]] = {}
    for place, setting in enumerate(settings):
        images = "image" if setting.batch == 1 else "images"
        threads = "thread" if setting.threads == 1 else "threads"
        on_progress(
            f"latency, {setting.batch} {images}, {setting.threads} {threads}", 0.5 + 0.5 * place / len(settings)
        )
        chosen = np.arange(setting.batch) % len(reference)
        pixels = np.ascontiguousarray(reference.pixels[chosen])
        runs = [partial(subject.open(setting.threads).logits, pixels) for subject in subjects]
        timings[setting] = by_turns(runs, Budget(seconds=seconds / len(settings)))
    return timings


def _measured(
    subject: _Subject,
    place: int,
    formats: Sequence[Format],
    found: _Found,
    reference: Reference,
    timings: Mapping[_Setting, Sequence[Times]],
    max_accuracy_loss: float,
) -> Measured:
    right, interval = accuracy(found.logits, reference.labels)
    original, _ = accuracy(reference.logits, reference.labels)
    latencies = tuple(
        latency(times[place], batch=setting.batch, threads=setting.threads) for setting, times in timings.items()
    )
    ratios = tuple(
        ratio(
            times[place],
            times[formats.index(AGAINST)],
            against=AGAINST,
            batch=setting.batch,
            threads=setting.threads,
        )
        for setting, times in timings.items()
        if AGAINST in formats and subject.format != AGAINST
    )
    return Measured(
        format=subject.format,
        path=subject.path.name,
        bytes=found.bytes,
        sha256=found.sha256,
        accuracy=right,
        accuracy_interval=interval,
        parity=parity(found.logits, reference.logits),
        latency=latencies[0],
        latencies=latencies,
        ratios=ratios,
        load_milliseconds=found.cost.load_milliseconds,
        memory=found.cost.memory,
        gate=gate(right, original, max_accuracy_loss, file=subject.path.name),
    )
