"""An export's folder: what of it is ours, and how all of that is replaced together."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from edgecloud.edge.card import Format
from edgecloud.edge.layout import EDGE_REPORT, MODELS, PAGE, REFERENCE, REPORT, SCHEMA
from edgecloud.edge.report import Report
from edgecloud_trainer.checkpoints import files
from edgecloud_trainer.data.locking import leads_to, take
from edgecloud_trainer.export.errors import ExportError
from edgecloud_trainer.export.standing import read_report

PARTIAL: Final = ".partial-"
"""What the name of a folder begins with that an export works in, beside the final files."""
LOCK: Final = "lock"
"""In that folder: held as long as its export lives."""
_UNLOCKED_SECONDS: Final = 3600
"""A folder without a lock may be one that is just being made; after this time nobody works in it. Exports that were
killed before they had theirs have left such folders, and those from before there were locks."""
MARK: Final = ".replacing"
"""There while files are replaced, and after an export was killed at that: the names of those that are ours."""

_BESIDE: Final = (REFERENCE, PAGE, SCHEMA, REPORT)
_ALL: Final = frozenset((*MODELS.values(), *_BESIDE, EDGE_REPORT))


def check_free(out: Path, formats: Sequence[Format]) -> None:
    """See to it that an export would replace none but files of an earlier one.

    Raises:
        ExportError: a file is in its way that no export has written.
    """
    before = _ours(out)
    for name in (*(MODELS[one] for one in formats), *_BESIDE):
        if name not in before and os.path.lexists(out / name):
            raise ExportError(f"{out / name} is there, and no export has written it: name another --out, or move it")


@contextmanager
def scratch_in(out: Path) -> Iterator[Path]:
    """A folder beside the final files; what exports that were killed have left goes first."""
    for left in out.glob(f"{PARTIAL}*"):
        _sweep(left)
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=out))
    try:
        with (folder / f"{LOCK}.new").open("w") as lock:
            _try(lock)
            Path(lock.name).rename(folder / LOCK)  # so that nobody sees it while it isn't held
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(left: Path) -> None:
    with suppress(OSError):
        try:
            with (left / LOCK).open("r+") as lock:
                if _try(lock):
                    shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            newest = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            if time.time() - newest > _UNLOCKED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def put_in_place(scratch: Path, out: Path, models: Sequence[str]) -> None:
    """Replace the folder's files, the report last; what an earlier export has left of its own goes.

    Of several exports one does so at a time, and a folder that has a report is whole. One that was killed at it leaves
    a mark, by which the next one knows what is there for its own.

    Args:
        scratch: has the files.
        models: names of the converted models among them.
    """
    new = (*models, *_BESIDE)
    for name in new:
        with (scratch / name).open("rb+") as file:
            os.fsync(file.fileno())
    with _alone(out / MARK) as mark:
        before = _ours(out)
        mark.write("".join(f"{name}\n" for name in sorted(before.union(new))))
        mark.flush()
        os.fsync(mark.fileno())
        files.sync_folder(out)
        (out / REPORT).unlink(missing_ok=True)
        for name in before.difference(new):
            (out / name).unlink(missing_ok=True)
        for name in new:
            (scratch / name).replace(out / name)
        files.sync_folder(out)
        (out / MARK).unlink()


def ours(report: Report | None, mark: str) -> set[str]:
    """Names of the files that an export has written, by its report, or by the mark of one that was killed. Pure."""
    names = set() if report is None else {*(MODELS[one.format] for one in report.exports), *_BESIDE, EDGE_REPORT}
    return names | _ALL.intersection(mark.splitlines())


def _ours(out: Path) -> set[str]:
    mark = ""
    with suppress(OSError, UnicodeDecodeError):
        mark = (out / MARK).read_text()
    return ours(read_report(out), mark)


@contextmanager
def _alone(path: Path) -> Iterator[IO[str]]:
    """A file that is held, once nobody else does; whoever held it may have deleted it."""
    while True:
        with path.open("a") as file:
            if not _try(file):
                fcntl.flock(file, fcntl.LOCK_EX)
            if leads_to(path, file.fileno()):
                yield file
                return


def _try(file: IO[Any]) -> bool:
    """Hold an open file, if nobody else does. Where there are no locks everybody is taken to be alone."""
    return take(file) is not False
