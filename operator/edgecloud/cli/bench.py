"""`edgecloud bench`: the same job at several sizes, and what that does to its speed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from edgecloud.api.types import MAX_WORKERS

USAGE_ERROR: Final = 2


class _Sizes(click.ParamType[tuple[int, ...]]):
    """Worker counts separated by commas."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            sizes = tuple(dict.fromkeys(int(part) for part in str(value).split(",")))
        except ValueError:
            self.fail(f"{value!r} is no list of worker counts such as 1,2,4", param, ctx)
        if not all(1 <= size <= MAX_WORKERS for size in sizes):
            self.fail(f"a worker count is from 1 to {MAX_WORKERS}", param, ctx)
        return sizes


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One size's figures; None for what a job doesn't report, or was too short to measure.

    speedup and efficiency are against the smallest size that was measured.
    """

    workers: int
    samples_per_second: float
    communication_fraction: float | None
    data_fraction: float | None
    accuracy: float | None
    speedup: float = 1.0
    efficiency: float = 1.0


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--workers",
    "sizes",
    type=_Sizes(),
    default="1,2",
    show_default=True,
    help="Worker counts to measure, in this order.",
)
@click.option(
    "--workdir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the runs.  [default: runs/FILE-bench]",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How the figures are printed.",
)
def bench(file: Path, sizes: tuple[int, ...], workdir: Path | None, output: str) -> None:
    """Run the job of FILE at several sizes, and compare their speeds.

    Every size trains the whole job in a folder of its own, one after the other, on this machine: its CPUs are shared
    out among the workers, so that more workers than CPUs can't be faster. Writes bench.json and bench.png.

    \b
      edgecloud bench manifests/examples/digits.yaml --workers 1,2
    """
    folder = (workdir or Path("runs") / f"{file.stem}-bench").absolute()
    found = [_measure(file, size, folder / f"workers-{size}") for size in sizes]
    measured = compared(found)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps([asdict(one) for one in measured], indent=2) + "\n")
    drawn = _draw(measured, folder / "bench.png")
    if output == "json":
        click.echo(json.dumps([asdict(one) for one in measured], indent=2))
    else:
        Console().print(_table(measured))
    click.echo(f"results: {folder / 'bench.json'}" + (f"   picture: {folder / 'bench.png'}" if drawn else ""), err=True)


def compared(found: Sequence[Measured]) -> list[Measured]:
    """The same figures with speed-up and efficiency against the smallest size. Pure."""
    base = min(found, key=lambda one: one.workers)
    result = []
    for one in found:
        speedup = one.samples_per_second / base.samples_per_second if base.samples_per_second else 0.0
        share = one.workers / base.workers
        result.append(Measured(**{**asdict(one), "speedup": speedup, "efficiency": speedup / share}))
    return result


def _measure(file: Path, workers: int, folder: Path) -> Measured:
    command = [sys.executable, "-m", "edgecloud.cli.main", "run", str(file), "--workers", str(workers)]
    command += ["--workdir", str(folder), "--fresh", "-o", "json"]
    click.echo(f"{workers} worker{'s' if workers != 1 else ''}:", err=True)
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        click.echo(f"edgecloud bench: the run with {workers} workers ended with exit code {run.returncode}", err=True)
        sys.exit(run.returncode if run.returncode > 0 else 1)
    status = json.loads(run.stdout)["status"]
    performance, progress = status.get("performance") or {}, status.get("progress") or {}
    speed = performance.get("samplesPerSecond", progress.get("samplesPerSecond"))
    if speed is None:
        click.echo(
            "edgecloud bench: the job reports no samples per second (worker.report(samples_per_second=...))", err=True
        )
        sys.exit(USAGE_ERROR)
    return Measured(
        workers=workers,
        samples_per_second=float(speed),
        communication_fraction=performance.get("communicationFraction"),
        data_fraction=performance.get("dataFraction"),
        accuracy=progress.get("accuracy"),
    )


def _table(measured: Sequence[Measured]) -> Table:
    table = Table(title="speed by number of workers")
    for column in (
        "workers",
        "samples/s",
        "speed-up",
        "efficiency",
        "waiting for others",
        "waiting for data",
        "accuracy",
    ):
        table.add_column(column, justify="right")
    for one in measured:
        table.add_row(
            str(one.workers),
            f"{one.samples_per_second:,.0f}",
            f"{one.speedup:.2f}",
            f"{one.efficiency:.0%}",
            "" if one.communication_fraction is None else f"{one.communication_fraction:.1%}",
            "" if one.data_fraction is None else f"{one.data_fraction:.1%}",
            "" if one.accuracy is None else f"{one.accuracy:.2%}",
        )
    return table


def _draw(measured: Sequence[Measured], path: Path) -> bool:
    """Speed and efficiency as a picture; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ordered = sorted(measured, key=lambda one: one.workers)
    sizes = [one.workers for one in ordered]
    base = ordered[0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(sizes, [one.samples_per_second for one in ordered], "o-", label="measured")
    ideal = [base.samples_per_second * size / base.workers for size in sizes]
    left.plot(sizes, ideal, "--", color="grey", label="if it scaled perfectly")
    left.set_ylabel("samples/s")
    left.set_ylim(bottom=0)
    left.legend()
    right.bar([str(size) for size in sizes], [100 * one.efficiency for one in ordered])
    right.set_ylabel("efficiency, %")
    for axis in (left, right):
        axis.set_xlabel("workers")
        axis.grid(alpha=0.3)
    left.set_xticks(sizes)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True
