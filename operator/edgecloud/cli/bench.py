"""`edgecloud bench`: the same job at several sizes, and what that does to its speed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud.api.types import MAX_WORKERS
from edgecloud.cli.display import printable
from edgecloud.cli.needing import USAGE_ERROR
from edgecloud.cli.output import print_json
from edgecloud.cli.run import lacking, read_job, work_folder, wrong_size
from edgecloud.cli.tables import print_whole
from edgecloud.validation import STDIN


class NoSpeedError(Exception):
    """A size was not measured; the message says why. code: what the command ends with."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


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


@click.command(short_help="Run a job at several sizes, and compare the speeds.")
@click.argument("file", type=click.Path(allow_dash=True))
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
    help="Folder for the runs.  [default: runs/FILE-bench, or runs/NAME-bench with -]",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How the figures are printed.",
)
def bench(file: str, sizes: tuple[int, ...], workdir: Path | None, output: str) -> None:
    """Run the job of FILE (`-`: standard input) at several sizes, and compare their speeds.

    Every size trains the whole job in a folder of its own, one after the other, on this machine: its CPUs are shared
    out among the workers, so that more workers than CPUs can't be faster. Writes bench.json and bench.png. What an
    earlier bench has left of a size is kept beside it, as workers-N.DATE: remove what you don't need.

    The job has to say how fast it is: the built-in trainer does, and a program of your own by
    worker.report(samples_per_second=...), or no size can be measured, as is found at the end of the first.

    A size that fails ends it, with that run's exit code, and Ctrl-C with 130; what was measured before is written and
    printed all the same. The same command measures all sizes anew.

    \b
      edgecloud bench manifests/examples/digits.yaml --workers 1,2
    """
    job = read_job(file)
    folder = work_folder(workdir, f"{job.metadata.name if file == STDIN else Path(file).stem}-bench")
    _check(job, sizes)
    found: list[Measured] = []
    left = list(sizes)
    failure: tuple[int, NoSpeedError] | None = None
    with Runs() as runs:
        while left and failure is None and runs.stopped_by is None:
            size = left.pop(0)
            try:
                found.append(_measure(runs, job, size, folder / f"workers-{size}"))
            except NoSpeedError as error:
                failure = size, error
    if found:
        _tell(compared(found), folder, output)
    more = f" (and not tried: {', '.join(map(str, left))})" if left else ""
    anew = "" if runs.stopped_by is None else "; the same command measures all sizes anew"
    if failure is not None:
        size, reason = failure
        click.echo(f"edgecloud bench: no speed with {_workers(size)}{more}: {reason}{anew}", err=True)
    elif runs.stopped_by is not None:
        click.echo(f"edgecloud bench: stopped by {runs.stopped_by.name}{more}{anew}", err=True)
    if runs.stopped_by is not None:
        sys.exit(128 + runs.stopped_by)
    if failure is not None:
        sys.exit(failure[1].code)


def _check(job: TrainingJob, sizes: Sequence[int]) -> None:
    """Refuse what can't run at every size before anything does: the last size may come hours after the first."""
    wrong = []
    for size in sizes:
        try:
            if why := lacking(job.with_workers(size)):
                wrong.append(f"--workers {size}: {why}")
        except ValidationError as error:
            wrong.append(wrong_size(size, error))
    for line in wrong:
        click.echo(f"edgecloud bench: {line}", err=True)
    if wrong:
        sys.exit(USAGE_ERROR)


def _tell(measured: Sequence[Measured], folder: Path, output: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps([asdict(one) for one in measured], indent=2) + "\n")
    drawn = _draw(measured, folder / "bench.png")
    if output == "json":
        print_json([asdict(one) for one in measured])
    else:
        print_whole(_table(measured), Console())
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


def _measure(runs: Runs, job: TrainingJob, workers: int, folder: Path) -> Measured:
    """Raises NoSpeedError."""
    from edgecloud_operator.local import to_yaml

    # -P: a select.py in the user's folder is not for us.
    command = [sys.executable, "-P", "-m", "edgecloud.cli.main", "run", STDIN, "--workers", str(workers)]
    command += ["--workdir", str(folder), "--fresh", "-o", "json"]
    click.echo(f"{_workers(workers)}:", err=True)
    # The job as it was read, whatever becomes of its file between two sizes.
    returncode, printed = runs.run(command, to_yaml(job.with_status(None)))
    try:
        done = TrainingJob.parse(json.loads(printed))
    except ValueError:
        done = None
    if returncode != 0 or done is None:
        code = 128 - returncode if returncode < 0 else returncode or 1  # as a shell has it
        raise NoSpeedError(ended(returncode, done), code=code)
    return figures(done)


class Runs:
    """Runs commands, one after the other; what would end this process ends the one at hand, which is waited for.

    Each has a session of its own: a terminal's Ctrl-C goes to all of a session's foreground, and a run that is told
    twice stops without a checkpoint. So it comes through here only, wherever it comes from.
    """

    _SIGNALS: Final = tuple(one for one in signal.Signals if one.name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"))

    def __init__(self) -> None:
        self.stopped_by: signal.Signals | None = None
        self._run: subprocess.Popen[bytes] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in self._SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as behind nohup: it stays so for the runs, too
                self._before[number] = signal.signal(number, self._told)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _told(self, number: int, _: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or signal.Signals(number)
        if self._run is not None:
            self._run.send_signal(number)

    def run(self, command: Sequence[str], given: str = "") -> tuple[int, str]:
        """Exit code and standard output of a command. given: on its standard input."""
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as asked,
            tempfile.TemporaryFile("w+", encoding="utf-8") as printed,
        ):
            asked.write(given)
            asked.seek(0)
            self._run = subprocess.Popen(command, stdin=asked, stdout=printed, start_new_session=True)
            if self.stopped_by is not None:  # while it was being started
                self._run.send_signal(self.stopped_by)
            returncode = self._run.wait()
            self._run = None
            printed.seek(0)
            return returncode, printed.read()


def ended(returncode: int, job: TrainingJob | None) -> str:
    """Why a run that did not succeed ended. Pure."""
    if returncode < 0:
        return f"the run was ended by {signal.Signals(-returncode).name}"
    how = f"the run ended with exit code {returncode}"
    status = (job.status if job else None) or TrainingJobStatus()
    if status.phase not in ("Succeeded", "Failed"):
        return how
    message = next((c.message for c in status.conditions if c.type == "Failed" and c.status == "True"), "")
    return f"{how}: {printable(message)}" if message else how


def figures(job: TrainingJob) -> Measured:
    """What a job that succeeded says of its speed. Pure.

    Raises:
        NoSpeedError: nothing, or nothing that is worth comparing.
    """
    status = job.status or TrainingJobStatus()
    performance, progress = status.performance or {}, status.progress
    speed = _number(performance.get("samplesPerSecond"))
    if speed is None and job.spec.trainer is not None:
        # The newest progress has a speed, but one of steps in which allocators and kernels warm up.
        raise NoSpeedError(
            f"trainer.epochs: the training is too short ({performance.get('steps', 0)} steps, of which the first don't"
            " count): write more epochs",
            code=USAGE_ERROR,
        )
    if speed is None and progress is not None:
        speed = progress.samples_per_second
    if speed is None:
        raise NoSpeedError(
            "the job reports no samples per second: call worker.report(samples_per_second=...)", code=USAGE_ERROR
        )
    return Measured(
        workers=job.spec.worker_count(),
        samples_per_second=speed,
        communication_fraction=_number(performance.get("communicationFraction")),
        data_fraction=_number(performance.get("dataFraction")),
        accuracy=progress.accuracy if progress else None,
    )


def _number(value: Any) -> float | None:
    """A program of the user's own may have published anything."""
    return float(value) if isinstance(value, (int, float)) else None


def _workers(size: int) -> str:
    return f"{size} worker{'s' if size != 1 else ''}"


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
        table.add_column(column, justify="right", no_wrap=" " not in column)
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
