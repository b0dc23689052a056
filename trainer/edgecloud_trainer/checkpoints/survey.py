"""What lies in the checkpoints folder, and whether this process may still write there. Reads manifests only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgecloud_trainer.checkpoints import layout, marker, reader
from edgecloud_trainer.checkpoints.errors import (
    CheckpointMismatchError,
    DamagedError,
    NewerFormatError,
    SupersededError,
    reason,
)
from edgecloud_trainer.checkpoints.layout import Temporary
from edgecloud_trainer.checkpoints.manifest import Manifest


@dataclass(frozen=True)
class Candidate:
    """A folder whose manifest can be believed; whether its files are what that says has not been looked at.

    One with a temporary name was finished and then lost its place: its writer was killed in the moment before the last
    rename, or between moving an older one aside and that. It counts like any other.
    """

    path: Path
    manifest: Manifest
    temporary: Temporary | None = None

    @property
    def rank(self) -> tuple[int, int, bool]:
        """What newer means: a later round's checkpoint beats any of an earlier one, then the step counts."""
        return self.manifest.round, self.manifest.step, self.temporary is None


@dataclass(frozen=True)
class Broken:
    """A folder with a checkpoint's name that can't be one, and why."""

    path: Path
    step: int
    reason: str
    newer_format: bool


@dataclass(frozen=True)
class Survey:
    """All entries that are ours."""

    candidates: tuple[Candidate, ...]
    """Newest first."""
    broken: tuple[Broken, ...]
    unfinished: tuple[Temporary, ...]


def survey(folder: Path, *, round: int, config_digest: str, digests: Collection[str]) -> Survey:
    """Look through the folder; one that isn't there holds nothing.

    Raises CheckpointMismatchError if a checkpoint or the done marker is of a configuration whose digest is none of
    `digests` (`config_digest` is this job's own, for the message), SupersededError if there is any trace of a round
    above `round`, be it only that it has begun to write, and OSError if the folder can't be listed.
    """
    candidates: list[Candidate] = []
    broken: list[Broken] = []
    unfinished: list[Temporary] = []
    rounds: list[tuple[int, Path]] = []
    for entry in _entries(folder):
        temporary = entry if isinstance(entry, Temporary) else None
        if temporary:
            rounds.append((temporary.round, temporary.path))
        try:
            manifest = reader.read_manifest(entry.path)
            if manifest.step != entry.step:
                raise DamagedError(f"its manifest is that of step {manifest.step}")
            if temporary and manifest.config_digest not in digests:
                raise DamagedError("it was left by a job of another configuration")
            candidates.append(Candidate(entry.path, manifest, temporary))
        except FileNotFoundError:
            continue  # another process has just taken it away
        except (DamagedError, OSError) as error:
            newer_format = isinstance(error, NewerFormatError)
            if isinstance(error, NewerFormatError):
                rounds.append((error.round, entry.path))
            if isinstance(entry, Temporary):
                unfinished.append(entry)
            else:
                broken.append(Broken(entry.path, entry.step, reason(error), newer_format))
    owned = [(one.path, one.manifest.config_digest, one.manifest.round) for one in candidates]
    if (done := marker.read(folder)).found:
        owned.append((folder / layout.DONE, done.config_digest, done.round))
    for path, found, of_round in owned:
        if found not in digests:
            raise CheckpointMismatchError(str(path), found=found, expected=config_digest)
        rounds.append((of_round, path))
    seen, where = max(rounds, default=(round, folder), key=lambda pair: pair[0])
    if seen > round:
        raise SupersededError(str(where), own=round, seen=seen)
    candidates.sort(key=lambda candidate: candidate.rank, reverse=True)
    broken.sort(key=lambda one: one.step, reverse=True)
    return Survey(tuple(candidates), tuple(broken), tuple(unfinished))


def _entries(folder: Path) -> Iterator[layout.Finished | Temporary]:
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        if entry := layout.parsed(path):
            yield entry
