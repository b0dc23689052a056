"""From a trained network to a folder with its converted models, their measures, and a report on them."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch

from edgecloud.edge.card import ExportCard, Format
from edgecloud.edge.layout import MODELS, PAGE, REFERENCE, REPORT, SCHEMA
from edgecloud.edge.machine import describe
from edgecloud.edge.measuring import OPENERS, MeasureError, latency_seconds, measure
from edgecloud.edge.reference import Reference, most_images, save_reference
from edgecloud.edge.report import Measured, Problem, Report
from edgecloud.edge.runtime import Logits, Pixels, images_in_a_run
from edgecloud.launcher.machine import usable_cpus
from edgecloud_trainer.cards import published
from edgecloud_trainer.checkpoints import files
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.export.choice import even_choice
from edgecloud_trainer.export.errors import ConversionError, ExportError, first_line
from edgecloud_trainer.export.folder import put_in_place, scratch_in
from edgecloud_trainer.export.folding import fold
from edgecloud_trainer.export.gates import Knobs, complaints
from edgecloud_trainer.export.int8 import to_int8
from edgecloud_trainer.export.macs import macs
from edgecloud_trainer.export.network import EdgeNetwork, captured
from edgecloud_trainer.export.onnx_file import save_onnx, to_onnx
from edgecloud_trainer.export.page import page
from edgecloud_trainer.export.pictures import draw_all
from edgecloud_trainer.export.pt2 import open_pt2, save_pt2
from edgecloud_trainer.restoring import Restored

log = logging.getLogger(__name__)

OnProgress = Callable[[str, float], None]
"""Called with what is being done, and the part of all of it that is done, from 0 to 1."""

_SHOWN: Final = 2000
"""Images whose logits are drawn."""
_OPENERS: Final = {**OPENERS, "pt2": open_pt2}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is wanted.

    max_accuracy_loss: percentage points against the original in torch and fp32.
    calibration_images: training images that the scales of int8 are fitted on.
    threads: the larger of the two numbers that latency is measured with; 0: the CPUs there are.
    seconds: for the latency of the formats that one runtime runs; None: as `measure` has it.
    """

    formats: tuple[Format, ...]
    max_accuracy_loss: float = 1.0
    calibration_images: int = 256
    mirror: bool = False
    threads: int = 0
    node: str = ""
    seconds: float | None = None


def export(
    restored: Restored, dataset: Dataset, out: Path, options: Options, *, knobs: Knobs, on_progress: OnProgress
) -> Report:
    """Convert, measure and report.

    Whatever was in the folder under the same names is replaced, each file in one step and report.json last: a folder
    that has a report is whole. What an earlier export has left there of its own goes, and nothing else. A format that
    can't be made or measured is a problem in the report; the others are made.

    Args:
        restored: the network. It stays as it is.
        dataset: the images: of `test` for parity and accuracy, of `train` for calibration.
        out: the folder; made if it isn't there.
        knobs: what the settings are called, for sentences.

    Raises:
        ExportError: the network fails on these images.
        OSError: the folder can't be written.
    """
    restored = replace(restored, card=published(restored.card))
    try:
        latency_seconds()
    except MeasureError as error:  # that is told before minutes of work
        raise ExportError(str(error)) from error
    files.make_folder(out)
    threads = options.threads or max(1, int(usable_cpus()))
    torch.set_num_threads(threads)
    with scratch_in(out) as scratch:
        network = EdgeNetwork(restored.model, restored.card, mirror=options.mirror)
        on_progress("test images through the original", 0.0)
        reference = _reference(network, dataset)
        save_reference(scratch / REFERENCE, reference)
        maker = _Maker(restored, network, dataset, options, scratch)
        for place, one in enumerate(options.formats):
            on_progress(f"writing {one}", 0.1 + 0.2 * place / len(options.formats))
            maker.make(one)
        measured = _measured(maker, options, threads, on_progress)
        on_progress("drawing the report", 0.95)
        report = _report(maker, measured, reference, options)
        _write_report(scratch, report, reference, {one: maker.said[one] for one in maker.made}, knobs)
        put_in_place(scratch, out, [MODELS[one] for one in maker.made])
    on_progress("done", 1.0)
    return report


class _Maker:
    """Makes the formats, one after the other, and notes which could not be made."""

    def __init__(
        self, restored: Restored, network: EdgeNetwork, dataset: Dataset, options: Options, scratch: Path
    ) -> None:
        self.made: list[Format] = []
        self.said: dict[Format, Logits] = {}
        """By a format that was measured, of the reference images."""
        self.problems: list[Problem] = []
        self.network = network
        self.restored = restored
        self._options = options
        self.scratch = scratch
        chosen = even_choice(dataset.train.labels, options.calibration_images)
        self.calibration: Pixels = np.ascontiguousarray(dataset.train.pixels[chosen])
        self._program: torch.export.ExportedProgram | ConversionError | None = None
        self._plain: onnx.ModelProto | None = None

    def make(self, one: Format) -> None:
        try:
            {"onnx": self._onnx, "onnx-int8": self._int8, "pt2": self._pt2}[one](self.scratch / MODELS[one], one)
        except ConversionError as error:
            self.fail(one, str(error))
        else:
            self.made.append(one)

    def fail(self, one: Format, message: str) -> None:
        """Note that a format can't be made, or not be used."""
        self.made = [other for other in self.made if other != one]
        log.warning("%s: %s", one, message)
        self.problems.append(Problem(format=one, message=message[:2048]))

    def macs(self) -> int | None:
        try:
            return macs(self.network, self.restored.card.shape)
        except Exception as error:  # the count is a courtesy: a network that can't be counted can be used
            log.warning("multiplications are not counted: %s", first_line(error))
            return None

    def _card(self, one: Format) -> ExportCard:
        restored = self.restored
        return ExportCard(format=one, mirror=self._options.mirror, network=restored.card, run=restored.run)

    def _onnx(self, path: Path, one: Format) -> None:
        save_onnx(self._fp32(), path, self._card(one))

    def _int8(self, path: Path, one: Format) -> None:
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            plain = Path(folder) / "plain.onnx"
            save_onnx(self._fp32(), plain, self._card("onnx"))
            save_onnx(to_int8(plain, self.calibration, Path(folder)), path, self._card(one))

    def _pt2(self, path: Path, one: Format) -> None:
        save_pt2(self._captured(), path, self._card(one))

    def _fp32(self) -> onnx.ModelProto:
        if self._plain is None:
            self._plain = to_onnx(self._captured())
        return self._plain

    def _captured(self) -> torch.export.ExportedProgram:
        """The network's graph, folded; the same error each time if it can't be had."""
        if self._program is None:
            try:
                self._program = self._folded()
            except ConversionError as error:
                self._program = error
        if isinstance(self._program, ConversionError):
            raise self._program
        return self._program

    def _folded(self) -> torch.export.ExportedProgram:
        shape = self.restored.card.shape
        program = captured(self.network, shape)
        graph_module = program.module()
        return captured(graph_module, shape) if fold(graph_module) else program


def _reference(network: EdgeNetwork, dataset: Dataset) -> Reference:
    """Test images with what the original says of them: all, or as many as a reference may hold."""
    chosen = even_choice(dataset.test.labels, most_images(dataset.shape, network.classes))
    pixels = np.ascontiguousarray(dataset.test.pixels[chosen])
    try:
        logits = _logits(network, pixels)
    except Exception as error:  # the network's code may be anybody's
        raise ExportError(
            f"{network.network.__class__.__name__} fails on the test images: {first_line(error)}"
        ) from error
    if logits.shape != (len(pixels), network.classes) or not np.isfinite(logits).all():
        raise ExportError(
            f"the network doesn't give {network.classes} numbers for each image: look at the training, whose loss may"
            " have become NaN or infinite"
        )
    return Reference(pixels=pixels, labels=np.array(dataset.test.labels[chosen], np.int64), logits=logits)


@torch.inference_mode()
def _logits(network: EdgeNetwork, pixels: Pixels) -> Logits:
    _, channels, height, width = pixels.shape
    step = images_in_a_run((channels, height, width))
    pieces = [network(torch.from_numpy(pixels[start : start + step])).numpy() for start in range(0, len(pixels), step)]
    return np.concatenate(pieces).astype(np.float32, copy=False)


def _measured(maker: _Maker, options: Options, threads: int, on_progress: OnProgress) -> list[Measured]:
    """What was made, measured; a model that can't be is a problem, and the others are measured without it.

    Those that onnxruntime runs by turns, then torch's alone: its threads spin for a while after each run, and would
    slow down whatever runs next.
    """
    light = [one for one in maker.made if one in OPENERS]
    groups = [group for group in (light, [one for one in maker.made if one not in OPENERS]) if group]
    found: list[Measured] = []
    for place, group in enumerate(groups):
        first, last = 0.3 + 0.65 * place / len(groups), 0.3 + 0.65 * (place + 1) / len(groups)

        def show(what: str, part: float, first: float = first, last: float = last) -> None:
            if part < 1:
                on_progress(what, first + (last - first) * part)

        found += _measured_together(maker, group, options, threads, show)
    return found


def _measured_together(
    maker: _Maker, group: list[Format], options: Options, threads: int, on_progress: OnProgress
) -> list[Measured]:
    while group:
        try:
            return measure(
                maker.scratch,
                group,
                max_accuracy_loss=options.max_accuracy_loss,
                openers=_OPENERS,
                seconds=options.seconds,
                threads=threads,
                on_progress=on_progress,
                on_logits=maker.said.__setitem__,
            )
        except MeasureError as error:
            if error.format is None:
                raise ExportError(str(error)) from error
            maker.fail(error.format, str(error))
            group = [one for one in group if one != error.format]
    return []


def _report(maker: _Maker, measured: Sequence[Measured], reference: Reference, options: Options) -> Report:
    correct = int((reference.logits.argmax(1) == reference.labels).sum())
    work = maker.macs()
    return Report(
        network=maker.restored.card,
        run=maker.restored.run,
        mirror=options.mirror,
        original_accuracy=correct / len(reference),
        images=len(reference),
        calibration_images=len(maker.calibration) if "onnx-int8" in options.formats else 0,
        machine=describe(options.node),
        exports=tuple(one.model_copy(update={"macs": work}) for one in measured),
        problems=tuple(maker.problems),
    )


def _write_report(
    scratch: Path, report: Report, reference: Reference, said: Mapping[Format, Logits], knobs: Knobs
) -> None:
    (scratch / REPORT).write_text(json.dumps(report.dump(), indent=2) + "\n", encoding="utf-8")
    schema = Report.model_json_schema(by_alias=True, mode="serialization")
    (scratch / SCHEMA).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
    shown = even_choice(reference.labels, _SHOWN)
    some = Reference(pixels=reference.pixels[shown], labels=reference.labels[shown], logits=reference.logits[shown])
    converted = {one: logits[shown] for one, logits in said.items()}
    text = page(report, draw_all(report, some, converted), complaints(report, knobs))
    (scratch / PAGE).write_text(text, encoding="utf-8")
