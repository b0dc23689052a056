"""`edgecloud run`: a TrainingJob on this machine, without a cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from pydantic import ValidationError

from edgecloud.api.columns import table
from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud.api.types import MAX_WORKERS
from edgecloud.cli.display import Plain, Quiet, Terminal, printable, terminal
from edgecloud.cli.needing import USAGE_ERROR, refuse
from edgecloud.cli.output import UNREAD, OutputError, nowhere, print_json
from edgecloud.uncollected import uncollected
from edgecloud.validation import validate_files

if TYPE_CHECKING:
    from edgecloud_operator.local import Ended, Event, Workdir

Output = Literal["table", "json", "yaml"]


@click.command(short_help="Train a job on this machine, without a cluster.")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--workers", type=click.IntRange(1, MAX_WORKERS), help="Workers to train with, instead of spec.workers.")
@click.option(
    "--workdir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for checkpoints, results and logs.  [default: runs/NAME]",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="How the job is printed at the end; json and yaml have standard output to themselves.",
)
@click.option("--fresh", is_flag=True, help="Start over: what the folder holds is kept beside it under another name.")
@click.option(
    "--keep-checkpoints",
    is_flag=True,
    help="With --fresh: the new run goes on from a copy of the earlier one's checkpoints.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress; only errors and the job at the end.")
def run(
    file: str,
    workers: int | None,
    workdir: Path | None,
    output: Output,
    fresh: bool,
    keep_checkpoints: bool,
    quiet: bool,
) -> None:
    """Train the job of FILE (`-`: standard input) on this machine, without a cluster.

    Each worker is a launcher process that starts the training processes, as in a cluster's Pods. Ctrl-C, or SIGTERM,
    stops at a checkpoint, and the same command goes on from there; pressed twice it stops at once. With nohup it
    outlives its terminal. Workers that ask for GPUs (resources.limits) get this machine's, each its own; several with a
    script of yours that ask for none see none, unless CUDA_VISIBLE_DEVICES is set.

    A job that has failed stays so. Once what was wrong is put right, in its program too, `edgecloud run FILE --fresh
    --keep-checkpoints` goes on from its checkpoints as a new run. (The built-in trainer refuses those of a training
    with another `trainer:`.)

    program.command starts in files/, where program.files lie, so give other paths as absolute ones; without
    program.files in the folder that you stand in, and with program.workingDir in that one.

    \b
    In the folder:
      job.yaml               the job, with its newest status
      checkpoints/           the program's checkpoints
      results/               what it measured
      files/                 program.files, as the job has them
      logs/worker-N.log      what worker N printed; with export.measureOn there is a measure.log too

    \b
    Exit code:
      0    the job succeeded, now or in an earlier run in the folder
      1    it failed, likewise
      2    the file or the command line is wrong; nothing was started
      130  stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP (a terminal that is closed),
           with a checkpoint

    \b
      edgecloud run manifests/examples/own-script.yaml
      edgecloud run job.yaml --workers 4 -o json > result.json
    """
    if keep_checkpoints and not fresh:
        refuse("--keep-checkpoints belongs to --fresh: an earlier run that can go on does so without either")
    job = read_job(file)
    folder = work_folder(workdir, job.metadata.name)
    sys.exit(_run(job, workers, folder, output, fresh=fresh, keep=keep_checkpoints, quiet=quiet))


def read_job(file: str) -> TrainingJob:
    """The one job of a file, if it can run here; ends with exit code 2 if there is something wrong with it."""
    (result,) = validate_files([file], TrainingJob)
    for problem in result.problems:
        click.echo(str(problem), err=True)
    if not result.ok:
        sys.exit(USAGE_ERROR)
    if len(result.jobs) != 1:
        names = ", ".join(job.metadata.name for job in result.jobs)
        refuse(f"{file}: it holds {len(result.jobs)} jobs ({names}), and a local run takes one: split the file")
    job = result.jobs[0]
    for reason in _unwritable(job) or _unfit(job):
        refuse(f"{file}: {reason}")
    return job


def work_folder(workdir: Path | None, name: str) -> Path:
    """The whole path of a run's folder; ends with exit code 2 where the folder that we stand in is gone."""
    try:
        here = Path.cwd()
    except OSError as error:
        refuse(f"the folder that this was started in can't be used ({error.strerror or error}): change to another one")
    return here / (workdir or Path("runs") / name)


def wrong_size(workers: int | None, error: ValidationError) -> str:
    """Why a job can't have so many workers, and what to write."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    remedy = first.get("ctx", {}).get("remedy")
    return f"--workers {workers}: {path}: {first['msg']}" + (f": {remedy}" if remedy else "")


def lacking(job: TrainingJob) -> str | None:
    """What this machine has too little of for the job in its size, and what to write; None if it has enough."""
    from edgecloud_operator.local import shortage, visible_gpus

    return shortage(job.spec, visible_gpus())


def _refuse_lacking(job: TrainingJob) -> None:
    if why := lacking(job):
        refuse(why)


def _unfit(job: TrainingJob) -> list[str]:
    """Why a right job can't run without a cluster."""
    found = []
    if job.spec.suspend:
        found.append("spec.suspend: the job is suspended: write suspend: false to run it")
    if job.spec.managed_by is not None:
        found.append(f"spec.managedBy: {job.spec.managed_by} is in charge of the job: leave it out to run it here")
    if job.spec.trainer is not None and not _trainer_there():
        found.append(
            "spec.trainer: the built-in trainer is not installed: pip install '.[trainer]' in EdgeCloud's folder, or"
            " write program:"
        )
    folder = job.spec.program.working_dir if job.spec.program else None
    if folder is not None and not Path(folder).is_dir():
        found.append(f"spec.program.workingDir: there is no folder {folder} here: make it, or leave workingDir out")
    for place, variable in enumerate((job.spec.program.env if job.spec.program else None) or ()):
        if variable.value_from is not None:
            found.append(
                f"spec.program.env[{place}].valueFrom: only a cluster has values to take: write value: instead"
            )
    return found


def _unwritable(job: TrainingJob, encoding: str = sys.getfilesystemencoding()) -> list[str]:
    """Why its texts can't be handed to a process, or name a file, in the encoding of this locale."""
    return [
        f"{path}: this locale has no characters for it ({encoding}): set one with UTF-8, such as LC_ALL=C.UTF-8"
        for path, text in _told(job)
        if not _fits(text, encoding)
    ]


def _told(job: TrainingJob) -> Iterator[tuple[str, str]]:
    """What of a job is handed to a process or names a file here, with its path."""
    if program := job.spec.program:
        yield from ((f"spec.program.command[{place}]", text) for place, text in enumerate(program.command))
        yield from ((f"spec.program.args[{place}]", text) for place, text in enumerate(program.args or ()))
        yield from (
            (f"spec.program.env[{place}].value", one.value or "") for place, one in enumerate(program.env or ())
        )
        yield "spec.program.workingDir", program.working_dir or ""
    if job.spec.trainer:
        yield "spec.trainer.data.source", job.spec.trainer.data.source or ""
    if job.spec.export:
        yield "spec.export.destination", job.spec.export.destination or ""


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _trainer_there() -> bool:
    from importlib.util import find_spec

    return find_spec("edgecloud_trainer") is not None and find_spec("edgecloud_trainer.train") is not None


def _run(
    job: TrainingJob, workers: int | None, folder: Path, output: Output, *, fresh: bool, keep: bool, quiet: bool
) -> int:
    with uncollected():
        from edgecloud_operator.local import Ended, LocalRun, Workdir, WorkdirError, prepare

    workdir, above = Workdir(folder), 0
    try:
        if fresh:
            _refuse_lacking(job if workers is None else job.with_workers(workers))  # before anything is moved
            if keep:
                click.echo("copying the earlier run's checkpoints", err=True)
            if aside := workdir.put_aside(keep_for=job if keep else None):
                above = Workdir(aside).last_round() if keep else 0
                click.echo(f"the earlier run is kept in {aside}", err=True)
        workdir.prepare()
        with workdir.lock():
            workdir.drop_half_copy()
            job, finished = prepare(job, workdir, workers, above=above)
            if finished:
                return _tell(Ended(job=job), output, lambda: _say_finished(job, workdir))
            _refuse_lacking(job)
            display = _display(quiet)
            logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_ToDisplay(display)])
            with display:
                ended = asyncio.run(LocalRun(job, workdir, _Adapter(display)).run())
    except WorkdirError as error:
        refuse(str(error))
    except ValidationError as error:
        refuse(wrong_size(workers, error))
    return _tell(ended, output, lambda: _say_how(ended, workdir, fresh=fresh))


def _display(quiet: bool) -> Quiet:
    if quiet:
        return Quiet()
    console = terminal()
    return Terminal(console) if console else Plain(sys.stderr)


class _Adapter:
    """The local run's display, drawn by ours."""

    def __init__(self, display: Quiet) -> None:
        self._display = display

    def show(self, job: TrainingJob) -> None:
        self._display.show(job)

    def event(self, event: Event) -> None:
        self._display.event(event.type, event.reason, event.message)

    def note(self, text: str) -> None:
        self._display.note(text)


class _ToDisplay(logging.Handler):
    """Warnings appear among the other lines, not across them."""

    def __init__(self, display: Quiet) -> None:
        super().__init__()
        self._shown = display

    def emit(self, record: logging.LogRecord) -> None:
        self._shown.note(self.format(record))


def _tell(ended: Ended, output: Output, say: Callable[[], None]) -> int:
    """The job, then in words how it ended; the exit code, which is the same whether anybody reads them or not."""
    code, unprinted = ended.exit_code, ""
    try:
        _print_job(ended.job, output)
        sys.stdout.flush()
    except OutputError as error:
        nowhere(sys.stdout)
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in UNREAD:  # a full disk: what was asked for is not there
            code, unprinted = code or 1, getattr(cause, "strerror", None) or str(cause)
    try:
        say()
        if unprinted:
            click.echo(f"edgecloud: the job can't be printed: {unprinted}; it stands in job.yaml as well", err=True)
    except OSError:
        nowhere(sys.stderr)
    return code


def _print_job(job: TrainingJob, output: Output) -> None:
    if output == "json":
        print_json(job.dump())
    elif output == "yaml":
        from edgecloud_operator.local import to_yaml

        click.echo(to_yaml(job).encode(), nl=False)  # as YAML is, whatever the locale
    else:
        click.echo(table([job], datetime.now(UTC), wide=True))


def _say_finished(job: TrainingJob, workdir: Workdir) -> None:
    status = job.status or TrainingJobStatus()
    done = f"{status.completion_time:%Y-%m-%d %H:%M:%S} UTC" if status.completion_time else "earlier"
    click.echo(f"the job is finished: it has {status.phase.lower()} ({done}), and nothing was started", err=True)
    click.echo(f"results: {_short(workdir.results)}   to start over: --fresh, or another --workdir", err=True)
    _say_way_on(job, workdir)


def _say_way_on(job: TrainingJob, workdir: Workdir) -> None:
    """How to go on from the checkpoints of a job that has failed."""
    if job.status is not None and job.status.phase == "Failed" and workdir.has_checkpoints:
        command = f"edgecloud run FILE --workdir {shlex.quote(_short(workdir.path))} --fresh --keep-checkpoints"
        unless = " (with another `trainer:` than before: --fresh alone)" if job.spec.trainer is not None else ""
        click.echo(f"to go on from its checkpoints, once what was wrong is put right: {command}{unless}", err=True)


def _say_how(ended: Ended, workdir: Workdir, *, fresh: bool = False) -> None:
    """Where things lie, and if it went wrong, why."""
    status = ended.job.status or TrainingJobStatus()
    failure = status.last_failure
    if status.phase == "Failed" and (failure is None or status.measuring is not None):
        message = next((c.message for c in status.conditions if c.type == "Failed"), "")
        click.echo(f"failed: {printable(message)}", err=True)
        if status.measuring is not None:
            _say_log(workdir.measure_log)
    elif status.phase == "Failed" and failure is not None:
        code = "" if failure.exit_code is None else f"exit code {failure.exit_code}"
        how = f" ({failure.signal or code})" if failure.signal or code else ""
        rank = f", rank {failure.rank}" if failure.rank is not None else ""
        message = next((c.message for c in status.conditions if c.type == "Failed"), "")
        click.echo(f"failed: {printable(message)}", err=True)
        click.echo(f"last failure: worker {failure.worker}{rank}: {failure.reason}{how}", err=True)
        for line in failure.message.splitlines():
            click.echo(f"  | {printable(line)}", err=True)
        _say_log(workdir.log_file(failure.worker))
    if status.phase not in ("Succeeded", "Failed"):
        step = f" at step {status.checkpoint.step}" if status.checkpoint else ""
        which = f"a run in {_short(workdir.path)} without --fresh" if fresh else "the same command"
        click.echo(f"stopped{step}; {which} goes on from there", err=True)
    _say_way_on(ended.job, workdir)
    places = {"results": workdir.results, "checkpoints": workdir.checkpoints, "logs": workdir.logs}
    click.echo("   ".join(f"{name}: {_short(path)}" for name, path in places.items()), err=True)


def _say_log(path: Path) -> None:
    """Where its log is, if it came to write one that can be read."""
    if path.is_file() and os.access(path, os.R_OK):
        click.echo(f"its log: {_short(path)}", err=True)


def _short(path: Path) -> str:
    """A path as the user would write it: relative to here, where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
