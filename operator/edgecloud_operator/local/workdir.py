"""The folder of a local run: what lies where, who may use it, and the job as it stands there."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import yaml
from pydantic import ValidationError
from yaml.emitter import ScalarAnalysis

from edgecloud.api.job import TrainingJob
from edgecloud.documents import Document, read_documents
from edgecloud.documents.scalars import ScalarError, scalar
from edgecloud.problems import Problem
from edgecloud_operator.local.keeping import CHECKPOINTS, DONE, RESULTS, KeepingError, copied

KEPT_ASIDE: Final = 100
LOCK: Final = ".lock"
_COPY: Final = ".edgecloud-checkpoints"
"""The next run's folder while checkpoints are copied into it, or what there was of it when that was killed."""
OURS: Final = frozenset({"job.yaml", CHECKPOINTS, RESULTS, "logs", "files", LOCK, _COPY})
"""What a run leaves in its folder, beside the built-in trainer's cache."""
CACHE: Final = "data"
_CACHED: Final = (".images", ".lock", ".partial")
_REMEMBERED: Final = re.compile(r"[0-9a-f]{40}\.(url|[0-9a-f]{16})")
"""What a URL led to, and such a note half written."""
_DOWNLOADS: Final = "torchvision"


class WorkdirError(Exception):
    """The folder can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Workdir:
    """DIR/job.yaml, checkpoints/, results/, logs/ and what the workers need while they run."""

    path: Path

    @property
    def job_file(self) -> Path:
        return self.path / "job.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def has_checkpoints(self) -> bool:
        """Whether a job could go on from what lies there."""
        with suppress(OSError):
            return any(entry.name != DONE for entry in self.checkpoints.iterdir())
        return False

    @property
    def results(self) -> Path:
        return self.path / RESULTS

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def files(self) -> Path:
        """Where program.files are laid."""
        return self.path / "files"

    def log_file(self, index: int) -> Path:
        return self.logs / f"worker-{index}.log"

    @property
    def measure_log(self) -> Path:
        return self.logs / "measure.log"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            WorkdirError: they can't be made or written.
        """
        for folder in (self.path, self.checkpoints, self.results, self.logs):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise WorkdirError(f"{folder}: {error.strerror}; name another folder with --workdir") from error
            if not os.access(folder, os.W_OK | os.X_OK):
                raise WorkdirError(f"{folder} can't be written; name another folder with --workdir")

    def lock(self) -> IO[str]:
        """Keep other runs out of the folder for as long as the returned file is open.

        Raises:
            WorkdirError: another run is in it, or it can't be written.
        """
        try:
            handle = (self.path / LOCK).open("a+", encoding="ascii", errors="replace")
        except OSError as error:
            raise WorkdirError(f"{self.path / LOCK}: {error.strerror}; name another folder with --workdir") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            owner = handle.read(20).strip()
            handle.close()
            who = f" (process {owner})" if owner.isdigit() else ""
            raise WorkdirError(
                f"another run is using {self.path}{who}: wait for it, or name another folder with --workdir"
            ) from error
        try:
            handle.truncate(0)
            os.write(handle.fileno(), f"{os.getpid()}\n".encode())
        except OSError as error:
            handle.close()
            raise WorkdirError(
                f"{self.path / LOCK} can't be written: {error.strerror}; name another folder with --workdir"
            ) from error
        return handle

    def load(self) -> TrainingJob | None:
        """The job of an earlier run; None where there was none.

        Raises:
            WorkdirError: job.yaml is no TrainingJob, or is one that no run has written.
        """
        read = self._read()
        if read is None:
            return None
        documents, problems = read
        try:
            if problems or len(documents) != 1:
                raise WorkdirError(self._spoilt())
            return TrainingJob.parse(documents[0].value, stored=True)
        except ValidationError as error:
            raise WorkdirError(self._spoilt()) from error

    def _read(self) -> tuple[tuple[Document, ...], tuple[Problem, ...]] | None:
        """What job.yaml holds, right or wrong; None where there is none.

        Raises:
            WorkdirError: it can't be read, or no run has written it.
        """
        try:
            data = self.job_file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkdirError(f"{self.job_file}: {error.strerror}; name another folder with --workdir") from error
        documents, problems = read_documents(data, str(self.job_file))
        if any(_is_own(document.value) for document in documents):
            raise WorkdirError(
                f"{self.job_file} is a job file of your own, and a run here would overwrite or move it:"
                " name another folder with --workdir"
            )
        return documents, problems

    def _spoilt(self) -> str:
        return f"{self.job_file} is not a TrainingJob any more: start over with --fresh, or name another --workdir"

    def save(self, job: TrainingJob) -> None:
        """Write job.yaml: beside, flushed, renamed, so that a reader, or a crash, never sees half of it.

        Raises:
            OSError: it can't be written; what stood there still does.
        """
        beside = self.job_file.with_name(f".job.yaml.{os.getpid()}")
        try:
            with beside.open("w", encoding="utf-8") as handle:
                yaml.dump(job.dump(), handle, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
                handle.flush()
                os.fsync(handle.fileno())
            beside.replace(self.job_file)
        except OSError:
            with suppress(OSError):
                beside.unlink(missing_ok=True)  # on a full disk it would take what room is left
            raise

    def put_aside(self, *, keep_for: TrainingJob | None = None) -> Path | None:
        """Move the folder of an earlier run out of the way; the new place, or None if there was nothing.

        Only the trainer's cache stays, for the next run: its names say what is in it, and decoding takes a while. And
        a copy of the checkpoints where a job is to go on from them, `keep_for`: whole before anything is moved; and
        of the curves so far, as far as can be.

        A link to the folder stays, and leads to the new one.

        Raises:
            WorkdirError: another run is in it, it can't be read or moved, or it holds what no run has made; there
                are no checkpoints to keep, or they can't be copied.
        """
        try:
            found = {entry.name for entry in self.path.iterdir()}
            if not found - {LOCK} and keep_for is None:
                return None
            cache = self._has_cache()
        except FileNotFoundError:
            if keep_for is not None:
                raise WorkdirError(f"there is no earlier run in {self.path}: leave --keep-checkpoints out") from None
            return None
        except OSError as error:
            raise WorkdirError(
                f"{error.filename or self.path}: {error.strerror}; name another folder with --workdir"
            ) from error
        ours = OURS | {CACHE} if cache else OURS
        if foreign := sorted(name for name in found - ours if not name.startswith(".job.yaml.")):
            raise WorkdirError(
                f"{self.path} holds more than a run's files ({', '.join(foreign[:3])}), and is not moved:"
                " name another folder with --workdir"
            )
        self._read()
        real = self.path.resolve()  # of a link the name alone would move
        copy = nullcontext() if keep_for is None else copied(self.path, real / _COPY, keep_for)
        try:
            with self.lock():
                self.drop_half_copy()
                with copy:
                    aside = _move_aside(real)
                    if keep_for is not None:
                        _take(aside / _COPY, real, aside)
                with suppress(OSError):  # then the images are decoded again
                    if cache or real != self.path:
                        real.mkdir(exist_ok=True)
                    if cache:
                        (aside / CACHE).rename(real / CACHE)
                return aside
        except KeepingError as error:
            raise WorkdirError(str(error)) from error

    def drop_half_copy(self) -> None:
        """Remove checkpoints that were being copied when that was killed. Only for who holds the lock."""
        shutil.rmtree(self.path / _COPY, ignore_errors=True)

    def last_round(self) -> int:
        """The round that the run in it came to; 0 where nothing says so."""
        with suppress(WorkdirError):
            job = self.load()
            if job is not None and job.status is not None and job.status.rendezvous is not None:
                return job.status.rendezvous.round
        return 0

    def _has_cache(self) -> bool:
        """Whether data/ is the trainer's cache, by all that is in it; it could be images of the user's own."""
        folder = self.path / CACHE
        if folder.is_symlink() or not folder.is_dir():
            return False
        return all(
            entry.name == _DOWNLOADS
            if entry.is_dir() and entry.suffix != ".partial"
            else entry.suffix in _CACHED or _REMEMBERED.fullmatch(entry.name)
            for entry in folder.iterdir()
        )


def _is_own(document: Any) -> bool:
    """Whether a resource comes from a person: one that a run has written has a uid."""
    metadata = document.get("metadata") if isinstance(document, dict) and "kind" in document else None
    return isinstance(metadata, dict) and metadata.get("uid") is None


def _move_aside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for count in range(KEPT_ASIDE):
        aside = path.with_name(f"{path.name}.{stamp}" + (f"-{count}" if count else ""))
        if not aside.exists():
            try:
                return path.rename(aside)
            except OSError as error:
                raise WorkdirError(f"{path} can't be moved to {aside}: {error.strerror}") from error
    raise WorkdirError(f"{path} can't be moved aside: name another folder with --workdir")


def _take(copy: Path, place: Path, aside: Path) -> None:
    """Put what was made in the old folder, which was moved, in that one's place; or the old folder back."""
    try:
        copy.rename(place)
    except BaseException as error:  # a Ctrl-C too
        with suppress(OSError):
            aside.rename(place)
        if isinstance(error, OSError):
            raise WorkdirError(f"{copy} can't be moved to {place}: {error.strerror}") from error
        raise


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that a script in a job file stays readable, and quotes what another
    reader than PyYAML would take for something else than text."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def analyze_scalar(self, scalar: str) -> ScalarAnalysis:
        """PyYAML would write no block with a tab in it, or a space at the end of a line; scripts have both.

        A tab at the very beginning is different: a reader takes it for indentation.
        """
        analysis = super().analyze_scalar(scalar)
        analysis.allow_block = not scalar.startswith("\t")
        return analysis


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    if not all(character.isprintable() or character in "\n\t" for character in value):
        style = '"'  # with escapes: what is a line break to one reader is none to the next
    elif "\n" in value:
        style = "|"
    else:
        style = "" if _is_plain(value) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style or None)


def _is_plain(value: str) -> bool:
    """Whether a text is one without quotes as well, to us and to kubectl: not so y, 08 and 12e5."""
    try:
        return scalar(value, tag=None, plain=True) == value
    except ScalarError:
        return False


_Dumper.add_representer(str, _text)


def to_yaml(job: TrainingJob) -> str:
    """The resource as `kubectl get -o yaml` would print it."""
    text: str = yaml.dump(job.dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text
