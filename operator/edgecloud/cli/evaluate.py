"""`edgecloud evaluate`: a model held against labelled images, or two models against the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from edgecloud.cli.display import printable
from edgecloud.cli.images import NameOrPath
from edgecloud.cli.needing import needs, refuse, require
from edgecloud.cli.output import print_json
from edgecloud.cli.progress import Silent, progress

if TYPE_CHECKING:
    from rich.table import Table

    from edgecloud.edge.card import Format
    from edgecloud_trainer.appraisal.appraising import Appraisal, Comparison
    from edgecloud_trainer.appraisal.material import Choice, Material
    from edgecloud_trainer.appraisal.predictors import Opened, Where

_LISTED_CLASSES: Final = 30
_CONFUSED: Final = 5
_SIGNIFICANT: Final = 0.05
_NEEDED: Final = ("torch", "torchvision", "matplotlib", "edgecloud_trainer")


@click.command(short_help="Measure a model, or compare two on the same images.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("other", metavar="[MODEL2]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="NAME_OR_PATH",
    type=NameOrPath(),
    help="Images to use.  [default: those that MODEL was trained with]",
)
@click.option(
    "--split",
    "choice",
    type=click.Choice(["test", "validation", "train", "all"]),
    default="test",
    show_default=True,
    help="Part of the images; where the data has no test images of its own, test is a tenth that is held back.",
)
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["onnx", "onnx-int8", "pt2"]),
    help="Which model of an export's folder, or of a workdir's.  [default: onnx; of a workdir the checkpoint]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="For checkpoints; auto: what they were trained on, if it is here.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for JSON and pictures.  [default: none]"
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
def evaluate(
    model: Path,
    other: Path | None,
    data: str | None,
    choice: Choice,
    wanted: Format | None,
    device: Where,
    out: Path | None,
    output: Literal["table", "json"],
    quiet: bool,
) -> None:
    """Measure how often MODEL is right, how sure it is, and where it errs; with MODEL2, which of the two is better.

    A model is a workdir (its newest checkpoint), a checkpoint, an .onnx or .pt2 file, or an export's folder. Open only
    .pt2 files and checkpoints that you trust: a checkpoint imports the module:function that it names, from the folder
    that you stand in or from PYTHONPATH. A checkpoint is evaluated as at the end of its training, a converted model as
    it runs on the edge. Classes of other data are those of the model that have the same names. A converted model
    outside of its run's folder needs --data, unless it was trained on a named set.

    \b
    Files with --out:
      evaluation.json   accuracy with its interval, by class, confusion, calibration, worst images;
                        above 1,000 classes confusionCells, [true, predicted, images] of each pair met
      confusion.png     which class is taken for which
      calibration.png   how often it is right where it is so sure, and the calibration error
      worst.png         the images with the highest loss
      comparison.json   two models: who is right on how many, the difference, McNemar's test
      differences.png   two models: images on which one alone is right
    MODEL2's own files end in -2.

    \b
    Exit code: 0 evaluated, 2 the model, the data or the command line is wrong

    \b
      edgecloud evaluate runs/cifar10 --out report
      edgecloud evaluate runs/cifar10 runs/cifar10/results/export/model-int8.onnx
      edgecloud evaluate model.onnx --data photos/ --split all -o json
    """
    require(_NEEDED, "trainer")
    with _wrong_input(), progress(quiet=quiet) as shown:
        if out is not None:
            _make(out)
        opened = [_open(path, wanted, device, shown) for path in (model, other) if path is not None]
        material = _gather(opened, data, choice, shown)
        appraisals = [_appraise(one, material, shown) for one in opened]
    if output == "json":
        _print_json(appraisals)
    else:
        _print_tables(appraisals)
    if out is not None:
        with _wrong_input():
            _write(appraisals, out)


@contextmanager
def _wrong_input() -> Iterator[None]:
    """Errors that have a sentence for the user end the command with it."""
    from edgecloud.edge.runtime import ModelFileError
    from edgecloud_trainer.appraisal.material import MaterialError
    from edgecloud_trainer.appraisal.predictors import PredictorError
    from edgecloud_trainer.checkpoints import CheckpointError
    from edgecloud_trainer.data import DataError
    from edgecloud_trainer.models import ModelError
    from edgecloud_trainer.restoring import RestoreError

    try:
        yield
    except (
        ModelFileError, MaterialError, PredictorError, CheckpointError, DataError, ModelError, RestoreError,
    ) as error:  # fmt: skip
        problem = str(error)
    else:
        return
    refuse(problem)  # out here, where the progress bar is gone


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(f"--out {folder}: the folder can't be made ({error.strerror or error}): choose another one")


def _open(path: Path, wanted: Format | None, device: Where, shown: Silent) -> Opened:
    from edgecloud_trainer.appraisal.predictors import open_any

    shown.show(f"opening {path.name}")
    opened = open_any(path, format=wanted, device=device)
    for note in opened.notes:
        shown.warn(f"note: {note}")
    return opened


def _gather(opened: Sequence[Opened], data: str | None, choice: Choice, shown: Silent) -> Material:
    """The images; those that the first model was trained with, if no others are named."""
    from edgecloud.urls import public
    from edgecloud_trainer.appraisal.material import MaterialError, cache_folder, gather, spec_of, still_there
    from edgecloud_trainer.data.dataset import RefusedError

    first = opened[0]
    source = first.card.data.source
    if data is None and source is not None and first.kind != "checkpoint" and first.workdir is None:
        # It may be anybody's, and so may the path or the address that it names.
        raise MaterialError(
            f"{first.path} lies in no run's folder, and says that its images are in {source}: name them with --data"
        )
    spec = still_there(first.card.data) if data is None else spec_of(data)
    cache = cache_folder(first.workdir if data is None else None)

    def say(done: int, total: int) -> None:
        shown.show("reading images", done / total if total else None)

    try:
        material = gather(spec, choice, seed=first.card.seed, cache=cache, on_progress=say, own=data is None)
    except RefusedError as error:
        if data is not None or first.kind == "checkpoint" or source is None or public(source) != source:
            raise
        raise MaterialError(
            f"{error}; a converted model keeps no user, password or signature of its images' URL: write all of it"
            " behind --data"
        ) from error
    for one in opened if data is None else ():
        if one.card.data_sha256 != material.digest:
            shown.warn(
                f"note: {one.path} was trained with other images than {material.name} holds now: these may be among "
                "those that it was trained with"
            )
    return material


def _appraise(opened: Opened, material: Material, shown: Silent) -> Appraisal:
    from edgecloud_trainer.appraisal.appraising import Appraisal, ask

    say = partial(shown.update, f"evaluating {opened.path.name}")
    return Appraisal(opened=opened, material=material, answers=ask(opened, material, say))


# What is printed


def _print_json(appraisals: Sequence[Appraisal]) -> None:
    from edgecloud_trainer.appraisal.appraising import Comparison, comparison_to_json, to_json

    said: dict[str, Any] = to_json(appraisals[0])
    if len(appraisals) == 2:
        comparison = Comparison(first=appraisals[0], second=appraisals[1])
        said = {"models": [to_json(one) for one in appraisals], "comparison": comparison_to_json(comparison)}
    print_json(said)


def _print_tables(appraisals: Sequence[Appraisal]) -> None:
    from rich.console import Console

    from edgecloud.cli.tables import print_whole
    from edgecloud_trainer.appraisal.appraising import Comparison

    material = appraisals[0].material
    click.echo(printable(f"{material.name}, {material.choice}: {len(material):,} images"))
    for line in _summary(appraisals):
        click.echo(printable(line))
    print_whole(_classes(appraisals), Console(highlight=False))
    for number, one in enumerate(appraisals, 1):
        if confused := _confused(one):
            which = f" by {number}" if len(appraisals) > 1 else ""
            click.echo(printable(f"most often confused{which}: {confused}"))
    if len(appraisals) == 2:
        _print_comparison(Comparison(first=appraisals[0], second=appraisals[1]))


def _summary(appraisals: Sequence[Appraisal]) -> Iterator[str]:
    """Which model it is, and its figures in a line."""
    from edgecloud_trainer.appraisal.scores import interval_of

    for number, one in enumerate(appraisals, 1):
        opened, (low, high) = one.opened, interval_of(one.answers)
        which = f"{number}: " if len(appraisals) > 1 else ""
        what = "checkpoint" if opened.kind == "checkpoint" else f"converted to {opened.kind}"
        what += ", each image with its mirror image" if opened.mirror else ""
        yield f"{which}{opened.path} ({opened.card.model}, step {opened.run.step}, {what}; {opened.computes})"
        yield (
            f"   accuracy {100 * one.accuracy:.2f} %, 95 % interval {100 * low:.2f} to {100 * high:.2f} %; "
            f"loss {one.loss:.4f}; calibration error {100 * one.calibration.ece:.2f} %"
        )


def _classes(appraisals: Sequence[Appraisal]) -> Table:
    """A row for each class; of many classes those that the first model knows worst."""
    from rich.table import Table
    from rich.text import Text

    from edgecloud_trainer.appraisal.scores import by_class

    scores = [dict(zip(one.evaluation.classes, by_class(one.evaluation.confusion), strict=True)) for one in appraisals]
    names = [name for name, score in scores[0].items() if score.total]
    title = None
    if len(names) > _LISTED_CLASSES:
        title = f"the worst {_LISTED_CLASSES} of {len(names)} classes"
        names = sorted(names, key=lambda name: scores[0][name].f1 or 0.0)[:_LISTED_CLASSES]
    table = Table(title=title)
    table.add_column("class")
    table.add_column("images", justify="right", no_wrap=True)
    columns = {"accuracy": "recall", "precision": "precision", "F1": "f1"}
    if len(appraisals) > 1:
        del columns["precision"]  # no terminal is as wide
    for column in columns:
        for number in range(1, len(appraisals) + 1):
            heading = f"{column} {number}" if len(appraisals) > 1 else column
            table.add_column(heading, justify="right", no_wrap=True)
    for name in names:
        figures = [_percent(getattr(score[name], figure)) for figure in columns.values() for score in scores]
        table.add_row(Text(printable(name)), f"{scores[0][name].total:,}", *figures)
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _confused(one: Appraisal) -> str:
    """The pairs of classes that are taken for each other most often."""
    pairs = one.evaluation.confusion.mistakes(_CONFUSED)
    return ", ".join(f"{one.name_of(row)} → {one.name_of(column)} {count}" for row, column, count in pairs)


def _print_comparison(one: Comparison) -> None:
    found = one.paired
    low, high = found.interval
    click.echo(
        f"both right {found.both:,}, only the first {found.only_first:,}, only the second {found.only_second:,}, "
        f"none {found.none:,}"
    )
    click.echo(
        f"accuracy of the first less that of the second: {100 * found.difference:+.2f} points "
        f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f}); McNemar's exact test: p = {found.p:.3g}"
    )
    if found.p >= _SIGNIFICANT:
        click.echo("so neither can be said to be the better one on these images")


def _write(appraisals: Sequence[Appraisal], folder: Path) -> None:
    from edgecloud_trainer.appraisal.appraising import Comparison
    from edgecloud_trainer.appraisal.files import write_appraisal, write_calibration, write_comparison

    names = [one.opened.path.name for one in appraisals]
    try:
        written = write_appraisal(appraisals[0], folder)
        written.append(write_calibration(appraisals, names, folder))
        if len(appraisals) == 2:
            written += write_appraisal(appraisals[1], folder, suffix="-2")
            comparison = Comparison(first=appraisals[0], second=appraisals[1])
            written += write_comparison(comparison, (names[0], names[1]), folder)
    except OSError as error:
        refuse(f"--out {folder}: {error.strerror or error}: free some space, or choose another folder")
    click.echo(f"in {folder}: {', '.join(path.name for path in written)}", err=True)
