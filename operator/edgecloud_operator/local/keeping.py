"""Checkpoints and curves of an earlier run, copied for a job that starts over with them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edgecloud.api.job import TrainingJob

CHECKPOINTS: Final = "checkpoints"
RESULTS: Final = "results"
DONE: Final = "done.json"
"""The built-in trainer's mark that a training is complete: it would end the next one before its first step."""

_HISTORY: Final = ("metrics.jsonl", "tensorboard")
"""Its curves, in results/. It cuts them off at the checkpoint that it goes on from."""


class KeepingError(Exception):
    """They can't be copied; the message says why and what to do."""


@contextmanager
def copied(run: Path, target: Path, job: TrainingJob) -> Iterator[None]:
    """Copy what a job goes on from, out of a run's folder, into one that could take its place: the checkpoints, and
    the built-in trainer's curves as far as can be. Should the body then fail, the copy is removed.

    Copied and not linked: a program may write into a file that is there, and the earlier run is kept as it was.

    Raises:
        KeepingError: there are none, or they can't be copied. Nothing is left at target then.
    """
    built_in = job.spec.trainer is not None
    left_out = {DONE} if built_in else set()
    try:
        _check(run / CHECKPOINTS, left_out)
        _copy(run / CHECKPOINTS, target / CHECKPOINTS, left_out)
        if built_in:
            _copy_history(run / RESULTS, target / RESULTS)
        yield
    except BaseException:  # a Ctrl-C too
        shutil.rmtree(target, ignore_errors=True)
        raise


def _copy_history(source: Path, target: Path) -> None:
    for name in _HISTORY:
        with suppress(OSError):
            target.mkdir(parents=True, exist_ok=True)
            old = source / name
            (shutil.copytree if old.is_dir() else shutil.copy2)(old, target / name)


def _check(source: Path, left_out: set[str]) -> None:
    try:
        found = any(entry.name not in left_out for entry in source.iterdir())
    except FileNotFoundError:
        found = False
    except OSError as error:
        raise KeepingError(_refused(source, error)) from error
    if not found:
        raise KeepingError(
            f"{source} holds no checkpoints to keep: leave --keep-checkpoints out, or name the folder of the earlier"
            " run with --workdir"
        )


def _copy(source: Path, target: Path, left_out: set[str]) -> None:
    def ignored(folder: str, names: list[str]) -> set[str]:
        return left_out & set(names) if Path(folder) == source else set()

    try:
        shutil.copytree(source, target, symlinks=True, ignore=ignored)
    except OSError as error:
        raise KeepingError(_refused(source, error)) from error


def _refused(source: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, shutil.Error) and error.args and error.args[0]:  # one for each file: (from, to, why)
        reason = str(error.args[0][0][2])
    return (
        f"{source} can't be copied ({reason}), and nothing was moved: see to that, or start over without"
        " --keep-checkpoints"
    )
