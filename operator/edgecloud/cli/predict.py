"""`edgecloud predict`: what a converted model sees in images. Needs the edge extra alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from edgecloud.cli.needing import needs, refuse
from edgecloud.cli.output import print_json

if TYPE_CHECKING:
    from edgecloud.edge.prediction import Prediction, Refused
    from edgecloud.edge.runtime import EdgeModel

_WIDEST: Final = 60


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path())
@click.option("--top", type=click.IntRange(1, 100_000), default=5, show_default=True, help="Classes to name.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Threads that the model may use.  [default: the CPUs there are]"
)
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["onnx", "onnx-int8"]),
    help="Which model of an export's folder.  [default: onnx]",
)
@click.option(
    "--fit",
    "way",
    type=click.Choice(["crop", "stretch"]),
    default="crop",
    show_default=True,
    help="Images of other proportions: the middle is cut out, or all of it is stretched.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A line for each image, or all of it as JSON.",
)
@needs("edge")
def predict(
    model: Path,
    images: tuple[str, ...],
    top: int,
    threads: int | None,
    wanted: Literal["onnx", "onnx-int8"] | None,
    way: Literal["crop", "stretch"],
    output: Literal["table", "json"],
) -> None:
    """Say what a converted MODEL sees in images.

    MODEL is an .onnx file that `edgecloud export` wrote, or its folder. IMAGE is a file, a folder (all images below
    it), or a pattern in quotes. Images are turned as the camera was held, scaled, and made grey or coloured as the
    model takes them. Needs no torch: `pip install '.[edge]'` in EdgeCloud's folder.

    \b
    Exit code:
      0  every image has its answer
      1  some images can't be used: they are named, and the others have theirs
      2  the model or the command line is wrong

    \b
      edgecloud predict runs/cifar10/results/export photo.jpg
      edgecloud predict model-int8.onnx photos/ 'more/*.png' --top 1 -o json
    """
    from edgecloud.edge.finding import hold_against_format, image_files, model_file
    from edgecloud.edge.prediction import predict as predictions
    from edgecloud.edge.runtime import ModelFileError, open_model

    try:
        opened = open_model(model_file(model, wanted), threads=threads or 0)
        hold_against_format(opened.path, opened.card.format, wanted)
        if not (files := list(image_files(images))):
            refuse(f"{', '.join(images[:3])} holds no image: name image files, or a folder of them")
        answers = predictions(opened, files, top=top, way=way)
        show = _print_json if output == "json" else _print_lines
        refused = show(opened, answers, files)
    except ModelFileError as error:
        refuse(str(error))
    sys.exit(1 if refused else 0)


def _print_lines(opened: EdgeModel, answers: Iterator[Prediction | Refused], files: Sequence[Path]) -> int:
    """A line for each image, as soon as it is known; how many there were no answers for."""
    from edgecloud.cli.display import printable
    from edgecloud.edge.prediction import Refused

    wide = min(_WIDEST, max((len(str(file)) for file in files), default=0))
    class_wide = min(_WIDEST, max(map(len, opened.card.network.classes)))
    refused = 0
    for answer in answers:
        if isinstance(answer, Refused):
            refused += 1
            click.echo(printable(answer.message).replace("\n", "\\n"), err=True)
            continue
        (name, probability), *others = answer.ranked
        rest = ", ".join(f"{other} {100 * part:.1f} %" for other, part in others)
        line = f"{answer.image!s:<{wide}}  {name:<{class_wide}} {100 * probability:5.1f} %  {rest}"
        click.echo(printable(line).replace("\n", "\\n").rstrip())
    return refused


def _print_json(opened: EdgeModel, answers: Iterator[Prediction | Refused], files: Sequence[Path]) -> int:
    """One document at the end; how many images there were no answers for."""
    from edgecloud.cli.progress import progress
    from edgecloud.edge.prediction import Refused

    predictions: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    with progress() as shown:
        for number, answer in enumerate(answers):
            shown.update("predicting", number, len(files))
            if isinstance(answer, Refused):
                errors.append({"image": str(answer.image), "message": answer.message})
                continue
            (name, probability), *_ = answer.ranked
            top = [{"class": other, "probability": round(part, 6)} for other, part in answer.ranked]
            predictions.append(
                {"image": str(answer.image), "class": name, "probability": round(probability, 6), "top": top}
            )
    card = opened.card
    about = {
        "path": str(opened.path),
        "format": card.format,
        "model": card.network.model,
        "job": card.network.job,
        "step": card.run.step,
        "weightsSha256": card.run.weights_sha256,
    }
    print_json({"model": about, "predictions": predictions, "errors": errors})
    return len(errors)
