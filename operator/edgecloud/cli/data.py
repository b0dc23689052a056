"""`edgecloud data`: image sets prepared, checked, described, split and looked at."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgecloud.cli.display import printable
from edgecloud.cli.images import NameOrPath
from edgecloud.cli.needing import refuse
from edgecloud.cli.output import STOPPED, print_json
from edgecloud.cli.progress import Silent, progress
from edgecloud.cli.tables import print_whole
from edgecloud.edge.looking import is_there

if TYPE_CHECKING:
    from edgecloud_trainer.data.manifest import Manifest
    from edgecloud_trainer.data.observer import Observer
    from edgecloud_trainer.data.resize import Size
    from edgecloud_trainer.data.verify import Group, Verdict

SplitName = Literal["train", "validation", "test"]

FAILED: Final = 1
MAX_LISTED: Final = 1000
MAX_CLASSES: Final = 40
"""In a table."""


class _Size(click.ParamType[Any]):
    """224, or 320x240."""

    name = "N|WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        from edgecloud_trainer.data.resize import Size

        if isinstance(value, Size):
            return value
        try:
            return Size.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Fractions(click.ParamType[Any]):
    """validation=0.1,test=0.1."""

    name = "SPLIT=PART,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[SplitName, float]:
        if isinstance(value, dict):
            return cast("dict[SplitName, float]", value)
        found: dict[SplitName, float] = {}
        for text in str(value).split(","):
            match = re.fullmatch(r"\s*(validation|test)\s*=\s*([0-9]*\.?[0-9]+)\s*", text)
            if match is None or not 0 < float(match[2]) < 1:
                self.fail(f"{text!r} is no part of a split such as validation=0.1 (above 0, below 1)", param, ctx)
            split = cast("SplitName", match[1])
            if split in found:
                self.fail(f"{split} is there twice", param, ctx)
            found[split] = float(match[2])
        return found


_output = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How the result is printed on standard output.",
)
_quiet = click.option("-q", "--quiet", is_flag=True, help="No progress; only errors and the result.")
_seed = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Another seed chooses other images."
)
_force = click.option("--force", is_flag=True, help="Replace a file that is there, once the new one is whole.")
_file = click.argument("file", type=click.Path(path_type=Path))
_out = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write, such as pets.images; its manifest goes beside it, as pets.manifest.json.",
)


@click.group()
def data() -> None:
    """Prepare image sets once, check them, and look at them.

    A prepared file holds the decoded images, labels and a manifest, and is mapped into memory in training. A job takes
    it, or any of the sources below, as trainer.data.source.

    \b
    A SOURCE is
      a folder     CLASS/FILE, or train/CLASS/FILE with test/ and val/ beside train/
                   (also Train/, training/, testing/, valid/, ...)
      an archive   of such a folder: .tar, also .gz, .bz2, .xz, or .zip
      IDX          a folder with train-images-idx3-ubyte and its like, also .gz
      CIFAR        a folder with data_batch_1.bin and its like
      numpy        an .npz with pixels and labels, or a folder with pixels.npy and labels.npy
      a name       digits, cifar10, cifar100, mnist, fashion-mnist, kmnist, svhn, stl10, usps
      a URL        of such a file, or of a folder (http: with / at its end); http, https, s3, ...

    \b
      edgecloud data prepare photos/ --out pets.images --resize 224 --split validation=0.1,test=0.1
      edgecloud data verify pets.images
      edgecloud data show pets.images --out pets.png
    """


@data.command()
@click.argument("source", type=NameOrPath())
@_out
@click.option("--resize", "size", type=_Size(), help="Scale the shorter side to this size, and keep the middle.")
@click.option("--skip-broken", is_flag=True, help="Leave out files that can't be used, and list them.")
@click.option("--follow-links", is_flag=True, help="Follow links that lead out of a folder, instead of refusing them.")
@click.option(
    "--split",
    "fractions",
    type=_Fractions(),
    default={},
    help="Hold back parts of the training images, by class: validation=0.1,test=0.1.",
)
@_seed
@click.option(
    "--downloads",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder whose torchvision/ keeps the archives of named sets.  [default: they are removed in the end]",
)
@_force
@_output
@_quiet
def prepare(
    source: str,
    out: Path,
    size: Size | None,
    skip_broken: bool,
    follow_links: bool,
    fractions: Mapping[SplitName, float],
    seed: int,
    downloads: Path | None,
    force: bool,
    output: str,
    quiet: bool,
) -> None:
    """Decode the images of SOURCE once, into one file.

    The first file that can't be used ends it with that file's name, unless --skip-broken says to leave such files out.
    Stopped at any moment, by Ctrl-C or worse, the same command goes on where it was. The file appears when it is
    whole, and a set may be larger than memory.

    Images of grey and of colours make a set of colours; transparency is dropped.

    \b
    Exit code:
      0    prepared
      2    the source, the place or the command line can't be used; nothing is left behind
      130  stopped by Ctrl-C; the same command goes on

    \b
      edgecloud data prepare photos/ --out pets.images
      edgecloud data prepare https://example.org/pets.tar.gz --out pets.images --resize 224
      edgecloud data prepare s3://bucket/pets/ --out pets.images --skip-broken
      edgecloud data prepare cifar10 --out cifar10.images -o json
    """
    from edgecloud_trainer.data.prepare import Wish
    from edgecloud_trainer.data.prepare import prepare as run

    wish = Wish(
        size=size,
        skip_broken=skip_broken,
        follow_links=follow_links,
        split=fractions,
        seed=seed,
        downloads=downloads,
    )
    with _shown(quiet=quiet, goes_on=True) as observer:
        manifest = run(source, out, wish, observer, force=force)
    _list_skipped(manifest)
    _print_manifest(manifest, out, output)


@data.command()
@click.argument("source", metavar="FILE_OR_SOURCE", type=NameOrPath())
@click.option("--strict", is_flag=True, help="Images that are twice in one split fail, too.")
@click.option("--follow-links", is_flag=True, help="Links that lead out of a folder are all right.")
@_output
@_quiet
def verify(source: str, strict: bool, follow_links: bool, output: str, quiet: bool) -> None:
    """Read a prepared file, or a source, through.

    Of a prepared file every byte is checked against its digest, and labels and statistics against its manifest. Of a
    source all broken files are listed. Of both, images that are there more than once are named: in two splits (a test
    image that was trained on), with two labels, or within a split.

    \b
    Exit code:
      0  all is right
      1  something is damaged or broken, or an image is in two splits (--strict: twice in one)
      2  there is nothing that could be read

    \b
      edgecloud data verify pets.images
      edgecloud data verify photos/ -o json | jq '.broken[].name'
    """
    from edgecloud_trainer.data.verify import verify as run

    with _shown(quiet=quiet) as observer:
        verdict = run(source, observer, follow_links=follow_links)
    ok = verdict.ok(strict=strict)
    if output == "json":
        print_json({"ok": ok} | verdict.dump())
    else:
        _print_verdict(verdict, ok=ok)
    sys.exit(0 if ok else FAILED)


@data.command()
@_file
@_output
def stats(file: Path, output: str) -> None:
    """Describe a prepared FILE: classes, counts, mean and deviation, and where it comes from.

    \b
      edgecloud data stats pets.images
      edgecloud data stats pets.images -o json | jq .mean
    """
    from edgecloud_trainer.data.prepared import open_prepared

    with _shown(quiet=True):
        manifest = open_prepared(file).manifest
    _print_manifest(manifest, file, output)
    if output == "table":
        print_whole(_classes(manifest), Console())


@data.command()
@_file
@_out
@click.option(
    "--split",
    "fractions",
    type=_Fractions(),
    required=True,
    help="Parts of the training images to hold back, by class: validation=0.1,test=0.1.",
)
@click.option("--merge", is_flag=True, help="Put the images of all splits together first.")
@_seed
@_force
@_output
@_quiet
def split(
    file: Path,
    out: Path,
    fractions: Mapping[SplitName, float],
    merge: bool,
    seed: int,
    force: bool,
    output: str,
    quiet: bool,
) -> None:
    """Write the images of a prepared FILE into another one, with other splits.

    Each class gives the same part of its images, chosen by the seed. Splits that FILE has stay as they are, unless
    --merge puts all images together first.

    \b
      edgecloud data split pets.images --out pets-10.images --split validation=0.1
      edgecloud data split pets.images --out other.images --merge --split test=0.2 --seed 1
    """
    from edgecloud_trainer.data.prepare import divide

    with _shown(quiet=quiet) as observer:
        manifest = divide(file, out, fractions, observer, seed=seed, merge=merge, force=force)
    _print_manifest(manifest, out, output)


@data.command()
@_file
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The picture to write, such as pets.png; the histogram goes beside it, as pets-classes.png.",
)
@click.option(
    "-n", "per_class", type=click.IntRange(1, 40), default=10, show_default=True, help="Images of each class."
)
@click.option(
    "--split",
    "name",
    type=click.Choice(["train", "validation", "test"]),
    default="train",
    show_default=True,
    help="What the images are taken from.",
)
@_seed
def show(file: Path, out: Path, per_class: int, name: SplitName, seed: int) -> None:
    """Draw what is in a prepared FILE: a contact sheet by class, and how many images each class has.

    \b
      edgecloud data show pets.images --out pets.png
      edgecloud data show pets.images --out test.png --split test -n 5 --seed 1
    """
    from edgecloud_trainer.data.prepared import open_prepared
    from edgecloud_trainer.data.show import histogram, sheet

    beside = out.with_name(f"{out.stem}-classes.png")
    for place in (out, beside):
        if is_there(place) and is_there(file) and place.samefile(file):
            _refuse(f"the picture {place} would take the place of {file}: name another one with --out")
    with _shown(quiet=True):
        stored = open_prepared(file)
        picture = sheet(stored, name, per_class=per_class, seed=seed)
        try:
            picture.save(out, "PNG")
            histogram(stored.manifest, beside)
        except OSError as error:
            _refuse(f"{error.filename or out} can't be written ({error.strerror or error}): name another place")
    click.echo(f"sheet: {out}   classes: {beside}", err=True)


# -- what they have in common


@contextmanager
def _shown(*, quiet: bool, goes_on: bool = False) -> Iterator[Observer]:
    """Shows how far it is; bad data end with their sentence and exit code 2.

    Args:
        quiet: only warnings are shown.
        goes_on: whether the same command takes up what was done before it was stopped.
    """
    from edgecloud_trainer.data.dataset import DataError

    try:
        with progress(quiet=quiet) as shown:
            yield _observer(shown)
    except DataError as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        click.echo("stopped" + ("; the same command goes on from there" if goes_on else ""), err=True)
        sys.exit(STOPPED)


def _observer(shown: Silent) -> Observer:
    from edgecloud_trainer.data.observer import Observer, Stage

    class Shown(Observer):
        """On standard error."""

        def stage(self, stage: Stage) -> None:
            shown.update(stage.name, stage.done, stage.total, unit=stage.unit, count=stage.images or None)

        def note(self, text: str) -> None:
            shown.note(text)

    return Shown()


def _refuse(text: str) -> NoReturn:
    refuse(_line(text))


def _line(text: str) -> str:
    """In one line, whatever a file is called."""
    return printable(text).replace("\n", "\\x0a")


def _list_skipped(manifest: Manifest) -> None:
    for fault in manifest.skipped[:MAX_LISTED]:
        click.echo(f"left out: {_line(fault.name)}: {_line(fault.reason)}", err=True)
    more = manifest.skipped_count - len(manifest.skipped[:MAX_LISTED])
    if more:
        click.echo(f"left out: {more:,} more", err=True)


def _print_manifest(manifest: Manifest, path: Path, output: str) -> None:
    if output == "json":
        print_json({"file": str(path), "bytes": path.stat().st_size} | manifest.dump())
        return
    channels, height, width = manifest.shape
    counts = ", ".join(f"{split} {counts.images:,}" for split, counts in manifest.splits.items())
    rows = {
        "file": f"{path} ({path.stat().st_size:,} bytes)",
        "images": f"{counts}: {width} x {height}, {'grey' if channels == 1 else 'in colour'}",
        "classes": f"{len(manifest.classes):,}: {_few(manifest.classes)}",
        "mean": ", ".join(f"{value:.4f}" for value in manifest.mean),
        "deviation": ", ".join(f"{value:.4f}" for value in manifest.std),
        "sha256": manifest.sha256,
        "source": f"{manifest.source.location} ({manifest.source.kind})",
    }
    if manifest.skipped_count:
        rows["left out"] = f"{manifest.skipped_count:,} files"
    for name, value in rows.items():
        click.echo(f"{name:<10} {_line(value)}")


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def _classes(manifest: Manifest) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("CLASS")
    for name in manifest.splits:
        table.add_column(name.upper(), justify="right", no_wrap=True)
    for label, text in enumerate(manifest.classes[:MAX_CLASSES]):
        table.add_row(Text(_line(text)), *(f"{counts.per_class[label]:,}" for counts in manifest.splits.values()))
    if len(manifest.classes) > MAX_CLASSES:
        table.add_row("...", *("" for _ in manifest.splits))
    return table


def _print_verdict(verdict: Verdict, *, ok: bool) -> None:
    for problem in verdict.problems:
        of_file = f"damaged: {_line(verdict.source)} " if verdict.kind == "file" else ""
        click.echo(f"{of_file}{_line(problem)}")
    for fault in verdict.broken:
        click.echo(f"broken: {_line(fault.name)}: {_line(fault.reason)}")
    for group in verdict.duplicates.groups:
        click.echo(f"{_kind(group)}: {_line(' = '.join(f'{spot} ({spot.label})' for spot in group.spots))}")
    for text in _summary(verdict):
        click.echo(text)
    click.echo("ok" if ok else "not ok")


def _kind(group: Group) -> str:
    if len({spot.split for spot in group.spots}) > 1:
        return "in two splits"
    return "two labels" if len({spot.label for spot in group.spots}) > 1 else "twice"


def _summary(verdict: Verdict) -> Iterator[str]:
    counts = ", ".join(f"{name} {count:,}" for name, count in verdict.splits.items())
    yield f"{verdict.images:,} images read" + (f" ({counts})" if counts else "")
    if verdict.broken:
        yield f"{len(verdict.broken):,} broken files"
    if len(verdict.sizes) > 1:
        several = ", ".join(f"{size.width}x{size.height} ({size.images:,})" for size in verdict.sizes[:5])
        yield f"images of several sizes: {several}{', ...' if len(verdict.sizes) > 5 else ''}: prepare with --resize"
    found = verdict.duplicates
    for name, others in found.leaked.items():
        for other, count in others.items():
            if count and other == "train":
                yield f"{count:,} {name} images are in train, too"
            elif count and name == "test":
                yield f"{count:,} {name} images are in {other}, too"
    for name, again in found.within.items():
        if again:
            yield f"{again:,} {name} images are there before in {name}"
    if found.conflicting:
        yield f"{found.conflicting:,} images are there again with another label"
