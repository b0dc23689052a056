"""Checkpoints and curves of an earlier run, copied for a job that starts over with them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edgecloud.api.job import TrainingJob

DONE: Final = "done.json"
"""The built-in trainer's mark that a training is complete: it would end the next one before its first step."""

_HISTORY: Final = ("metrics.jsonl", "tensorboard")
"""Its curves, in results/. It cuts them off at the checkpoint that it goes on from."""


class KeepingError(Exception):
    """They can't be copied; the message says why and what to do."""


@contextmanager
def copied(source: Path, target: Path, job: TrainingJob) -> Iterator[None]:
    """Copy a checkpoints folder for a job that goes on from it; should the body then fail, the copy is removed.

    Copied and not linked: a program may write into a file that is there, and the earlier run is kept as it was.

    Raises:
        KeepingError: there are none, or they can't be copied. Nothing is left at target then.
    """
    left_out = {DONE} if job.spec.trainer is not None else set()
    try:
        _check(source, left_out)
        _copy(source, target, left_out)
        yield
    except BaseException:  # a Ctrl-C too
        _remove(target)
        raise


def keep_history(source: Path, target: Path) -> None:
    """Copy the built-in trainer's curves from one results folder to another, as far as can be: it goes on without."""
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


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
