"""`edgecloud export`: a trained network as files for an edge node, measured on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from rich.console import Console
from rich.table import Table

from edgecloud.cli.display import printable
from edgecloud.cli.images import NameOrPath
from edgecloud.cli.needing import needs, refuse, require
from edgecloud.cli.output import print_json
from edgecloud.cli.progress import progress
from edgecloud.cli.tables import needed_width, print_whole

if TYPE_CHECKING:
    from edgecloud.edge.card import Format
    from edgecloud.edge.report import Measured, Report
    from edgecloud_trainer.data import Dataset
    from edgecloud_trainer.restoring import Restored

_FORMATS: Final[tuple[Format, ...]] = ("onnx", "onnx-int8", "pt2")
_NEEDED: Final = ("torch", "torchvision", "matplotlib", "onnx", "onnxscript", "onnxruntime", "edgecloud_trainer")
_COLUMNS: Final = ("file", "MB", "size", "accuracy", "lost", "same class", "p50, ms", "p99, ms", "speed", "gate")


class _Formats(click.ParamType["tuple[Format, ...]"]):
    """Formats separated by commas."""

    name = "FORMAT,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Format, ...]:
        if isinstance(value, tuple):
            return value
        found = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        unknown = [part for part in found if part not in _FORMATS]
        if unknown:
            self.fail(f"{unknown[0]!r} is no format: write some of {','.join(_FORMATS)}", param, ctx)
        return tuple(one for one in _FORMATS if one in found)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        left = [one for one in _FORMATS if one not in before.split(",") and one.startswith(last)]
        return [click.shell_completion.CompletionItem(f"{before}{comma}{one}") for one in left]


@click.command(short_help="Convert a trained network for the edge.")
@click.argument("model", metavar="WORKDIR_OR_CHECKPOINT", type=click.Path(path_type=Path))
@click.option(
    "--formats",
    type=_Formats(),
    default="onnx,onnx-int8",
    show_default=True,
    help="What to write: onnx (fp32), onnx-int8 (static quantisation), pt2 (torch.export).",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files; those of an earlier export are replaced, no others.  [default: results/export of the"
    " workdir]",
)
@click.option(
    "--data", metavar="NAME_OR_PATH", type=NameOrPath(), help="Images to use.  [default: those of the training]"
)
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="The gate: percentage points of accuracy that a format may lose.",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(1, 100_000),
    default=256,
    show_default=True,
    help="Training images that the scales of int8 are fitted on.",
)
@click.option(
    "--mirror",
    is_flag=True,
    help="Have the model look at the mirror image too: somewhat more accurate, half as fast.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads to measure with, beside one.  [default: the CPUs there are]",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How the result is printed; json has standard output to itself.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@needs("trainer")
def export(
    model: Path,
    formats: tuple[Format, ...],
    out: Path | None,
    data: str | None,
    max_accuracy_loss: float,
    calibration_images: int,
    mirror: bool,
    threads: int | None,
    output: Literal["table", "json"],
    quiet: bool,
) -> None:
    """Convert a trained network for the edge, and measure what became of it.

    WORKDIR_OR_CHECKPOINT is the folder of a run (its newest checkpoint), or one checkpoint. Use only checkpoints that
    you trust: one imports the module:function that it names, from the folder that you stand in or from PYTHONPATH, and
    reads the images that it names. Each file takes pixels as they are decoded, normalises them itself, and says what it
    is: classes, size of its images, job, step, digests. It is held against the original on the test images, and its
    latency is measured beside the other formats'.

    \b
    Files:
      model.onnx, model-int8.onnx, model.pt2   the formats
      report.json, report.schema.json          all figures, and what they mean
      report.html                              the same to look at, with pictures
      reference.npz                            test images, to measure on another machine

    \b
    Exit code:
      0  all formats are made and within the gate
      1  one lost more accuracy than allowed, or could not be made; the files stay
      2  the model, the data or the command line is wrong

    \b
      edgecloud export runs/cifar10
      edgecloud export runs/cifar10 --formats onnx,onnx-int8,pt2 --out edge -o json
      edgecloud export runs/cifar10/checkpoints/step-980 --data photos/ --calibration-images 1024
    """
    require(_NEEDED, "trainer")
    from edgecloud_trainer.export.folder import check_free
    from edgecloud_trainer.export.gates import COMMAND, complaints

    with _wrong_input(), progress(quiet=quiet) as shown:
        shown.show("reading the checkpoint")
        restored = _restored(model, shown.warn)
        folder = out or _default_folder(restored.path)
        check_free(folder, formats)
        images = _images(restored, data, lambda part: shown.show("reading the images", part))
        report = _export(restored, images, folder, formats, max_accuracy_loss, calibration_images, mirror, threads or 0,
                         shown.show)  # fmt: skip
    failed = complaints(report, COMMAND)
    if output == "json":
        _print_json(report)
    else:
        _print_table(report)
    for sentence in failed:
        click.echo(f"edgecloud: {printable(sentence)}", err=True)
    click.echo(f"report: {printable(str(folder / 'report.html'))}", err=True)
    sys.exit(1 if failed else 0)


@contextmanager
def _wrong_input() -> Iterator[None]:
    """Errors that have a sentence for the user end the command with it."""
    from edgecloud_trainer.appraisal.material import MaterialError
    from edgecloud_trainer.checkpoints import CheckpointError
    from edgecloud_trainer.data import DataError
    from edgecloud_trainer.export.errors import ExportError
    from edgecloud_trainer.models import ModelError
    from edgecloud_trainer.restoring import RestoreError

    try:
        yield
    except (ExportError, RestoreError, ModelError, DataError, MaterialError, CheckpointError) as error:
        problem = str(error)
    except OSError as error:
        problem = f"{error.filename or 'the export'} can't be written ({error.strerror or error}): name another --out"
    else:
        return
    refuse(problem)  # out here, where the progress bar is gone


def _restored(path: Path, warn: Callable[[str], None]) -> Restored:
    from edgecloud_trainer.restoring import restore

    restored = restore(path)
    for line in restored.rejected:
        warn(f"note: {line}")
    return restored


def _images(restored: Restored, place: str | None, show: Callable[[float | None], None]) -> Dataset:
    """Those that are named, else those of the training, which its workdir keeps decoded."""
    from edgecloud_trainer.appraisal.material import cache_folder, still_there
    from edgecloud_trainer.export.material import other_images, own_images

    def say(done: int, total: int) -> None:
        show(done / total if total else None)

    if place is not None:
        return other_images(restored.card, place, cache_folder(None), say)
    still_there(restored.card.data)
    return own_images(restored.card, cache_folder(_workdir(restored.path)), say)


def _workdir(checkpoint: Path) -> Path | None:
    """The folder of the run whose checkpoint it is, if it lies among that one's."""
    from edgecloud_trainer.restoring import run_of

    run = run_of(checkpoint)
    return run if run is not None and (run / "checkpoints").resolve() == checkpoint.resolve().parent else None


def _default_folder(checkpoint: Path) -> Path:
    workdir = _workdir(checkpoint)
    if workdir is None:
        refuse(f"{checkpoint} lies in no run's folder: say with --out where the files shall go")
    return workdir / "results" / "export"


def _export(
    restored: Restored,
    images: Dataset,
    folder: Path,
    formats: tuple[Format, ...],
    max_accuracy_loss: float,
    calibration_images: int,
    mirror: bool,
    threads: int,
    show: Callable[[str, float], None],
) -> Report:
    from edgecloud_trainer.export.gates import COMMAND
    from edgecloud_trainer.export.making import Options
    from edgecloud_trainer.export.making import export as make

    options = Options(
        formats=formats,
        max_accuracy_loss=max_accuracy_loss,
        calibration_images=calibration_images,
        mirror=mirror,
        threads=threads,
    )
    return make(restored, images, folder, options, knobs=COMMAND, on_progress=show)


def _print_json(report: Report) -> None:
    from edgecloud.edge.report import summary

    said: dict[str, Any] = {"exports": [summary(one) for one in report.exports]}
    if report.problems:
        said["problems"] = [one.dump() for one in report.problems]
    print_json(said)


def _print_table(report: Report) -> None:
    if report.exports:
        console = Console()
        print_whole(_table(report, console.width if console.is_terminal else None), console)
        click.echo("p50, p99, speed: one image, one thread; size and speed against model.onnx", err=True)


def _table(report: Report, width: int | None) -> Table:
    """A row for each file; where that is wider than the terminal, a column for each. width: None: none is too wide."""
    rows = [_COLUMNS, *_figures(report)]
    if width is not None and needed_width(_laid_out(report, rows)) > width:
        rows = list(zip(*rows, strict=True))
    return _laid_out(report, rows)


def _laid_out(report: Report, rows: Sequence[Sequence[str]]) -> Table:
    original = f"original in torch, fp32: {100 * report.original_accuracy:.2f} % of {report.images:,} test images"
    table = Table(title=original, title_justify="left")
    for place, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _figures(report: Report) -> Iterator[tuple[str, ...]]:
    plain = next((one.bytes for one in report.exports if one.format == "onnx"), None)
    for one in report.exports:
        yield (
            one.path,
            f"{one.bytes / 1e6:.2f}",
            "" if plain is None or one.format == "onnx" else f"1/{plain / one.bytes:.2f}",
            f"{100 * one.accuracy:.2f} %",
            one.gate.points,
            f"{100 * one.parity.agreement:.2f} %",
            f"{one.latency.p50:.2f}",
            f"{one.latency.p99:.2f}",
            _speed(one),
            "passed" if one.gate.passed else "failed",
        )


def _speed(one: Measured) -> str:
    """Against fp32 in one thread with one image; nothing is claimed that the measurement doesn't show."""
    ratio = next((ratio for ratio in one.ratios if (ratio.batch, ratio.threads) == (1, 1)), None)
    if ratio is None:
        return ""
    if ratio.interval.low <= 1 <= ratio.interval.high:
        return "not different"
    return f"x{1 / ratio.p50:.2f} [{1 / ratio.interval.high:.2f}, {1 / ratio.interval.low:.2f}]"
