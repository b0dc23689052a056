"""The checkpoints of one job: saved so that a crash at any moment leaves a whole one, chosen so that no zombie wins.

**Whole or not at all.** A checkpoint is written under a temporary name, every file and the folder made durable, the
manifest last, and then renamed to `step-N`. What has a manifest was finished; what it says is verified before use.

**Fenced by rounds.** Rounds only ever rise, so the trace of a higher one proves that another process has taken over:
all that writes, and `choose`, then raise SupersededError and change nothing. Between that look and the rename a zombie
may still put its checkpoint in; that does no harm, for checkpoints are compared by (round, step), and the higher
round's wins.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgecloud_trainer.checkpoints import files, layout, marker, moves, reader, tensorfile, writer
from edgecloud_trainer.checkpoints.errors import (
    CheckpointError,
    CheckpointMismatchError,
    DamagedError,
    SupersededError,
    explained,
    reason,
)
from edgecloud_trainer.checkpoints.manifest import Manifest
from edgecloud_trainer.checkpoints.survey import Candidate, Survey, survey

MAX_STEP = 10**18 - 1
_PROBE = b"written to find out whether it can be"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is on disk."""

    step: int
    path: Path
    weights_sha256: str


@dataclass(frozen=True)
class Loaded:
    """The checkpoint that was chosen: every byte verified, tensors in CPU memory."""

    step: int
    round: int
    """Of the process that wrote it; at most our own."""
    path: Path
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]
    weights: tuple[str, ...]
    """Names of those tensors that make the model's weights."""
    weights_sha256: str
    torch: str
    """Version of PyTorch that wrote it."""
    rejected: list[str]
    """A sentence for each newer one, or what passed for one, that could not be used."""


class CheckpointStore:
    """The folder `checkpoints/` of a job's storage, for one process of one round.

    `folder` is made when it is first written to. `round` is this process's, `keep` how many of the newest checkpoints
    `prune` leaves, `digest` that of the configuration, which the checkpoints must belong to; `digests` are those of
    other ways to write it, which are as good. All methods may be called from any thread; they take turns. All raise
    CheckpointMismatchError where the folder holds another configuration's, and CheckpointError, with a remedy and the
    system's name of the error as `kind`, where the storage refuses.
    """

    def __init__(
        self, folder: Path, *, round: int, keep: int, digest: str, digests: Collection[str] = frozenset()
    ) -> None:
        if keep < 1:
            raise ValueError("keep must be at least 1: the newest checkpoint always stays")
        self.folder = folder
        self.round = round
        self.keep = keep
        self.digest = digest
        self._digests = frozenset(digests) | {digest}
        self.rejected: list[str] = []
        """What the last `choose` or `done` could not use, and why: also there when they return None."""
        self._turn = threading.Lock()
        self._verified: set[str] = set()

    def save(
        self,
        step: int,
        tensors: Mapping[str, torch.Tensor],
        state: Mapping[str, Any],
        *,
        weights: Collection[str],
    ) -> Saved:
        """Write the checkpoint of `step` and return when it is durable; the tensors must not change meanwhile.

        `state` is JSON with keys that are strings, `weights` the names of those tensors that make the model's weights.
        Another checkpoint of the same step and of no higher round is replaced. Raises SupersededError, and ValueError
        or TypeError for what can't be saved at all. After any error nothing is left but what was there before.
        """
        if not 0 <= step <= MAX_STEP:
            raise ValueError(f"step {step} is not between 0 and {MAX_STEP}")
        weights = frozenset(weights)
        tensorfile.checked(tensors, weights)
        data = writer.state_bytes(state)
        with self._turn, self._writing(f"cannot save the checkpoint of step {step} in {self.folder}"):
            files.make_folder(self.folder)
            self._survey()
            temporary = layout.temporary(self.folder, step, self.round)
            moves.remove(temporary)
            try:
                manifest = writer.write(
                    temporary,
                    step=step,
                    round=self.round,
                    config_digest=self.digest,
                    tensors=tensors,
                    state=data,
                    weights=weights,
                )
                self._survey()  # once more, for the writing took its time
                path = moves.put(temporary, self.folder, step=step, round=self.round)
            except BaseException:
                with contextlib.suppress(OSError):
                    moves.remove(temporary)
                raise
            self._verified.add(_identity(manifest))
            return Saved(step, path, manifest.weights_sha256)

    def probe(self) -> None:
        """Find out now, rather than after hours of training, whether the storage takes what we shall write there.

        Raises SupersededError, and CheckpointError.
        """
        with self._turn, self._writing(f"cannot write checkpoints into {self.folder}"):
            files.make_folder(self.folder)
            self._survey()
            path = layout.temporary_done(self.folder, self.round)
            try:
                path.write_bytes(_PROBE)
            finally:
                path.unlink(missing_ok=True)

    def choose(self) -> Loaded | None:
        """The newest checkpoint by (round, step) that verifies, or None if there is none.

        Why newer ones were passed over stands in `rejected`, of the result and of the store. Raises SupersededError.
        """
        with self._turn, self._writing(f"cannot look for checkpoints in {self.folder}"):
            found = self._survey()
            self.rejected = [f"{one.path.name} is not used: {one.reason}" for one in found.broken]
            for candidate in found.candidates:
                if candidate.temporary and layout.is_written(candidate.temporary):
                    continue
                manifest = candidate.manifest
                try:
                    contents = reader.read(candidate.path, manifest)
                except (DamagedError, OSError) as error:
                    self.rejected.append(f"{candidate.path.name} is not used: {reason(error)}")
                    continue
                self._verified.add(_identity(manifest))
                return Loaded(
                    step=manifest.step,
                    round=manifest.round,
                    path=self._settled(candidate),
                    tensors=contents.tensors,
                    state=contents.state,
                    weights=manifest.weights,
                    weights_sha256=manifest.weights_sha256,
                    torch=manifest.torch,
                    rejected=list(self.rejected),
                )
            return None

    def prune(self) -> list[Path]:
        """Remove what is no longer needed, and return it: all but the `keep` newest that verify, and leftovers.

        As long as none verifies nothing goes. A checkpoint is read in full for this once in a process's life, at most.
        Folders without a usable manifest go when training has passed their step; those of a later release's format
        stay, for it is not ours to judge them. Raises SupersededError.
        """
        with self._turn, self._writing(f"cannot remove old checkpoints from {self.folder}"):
            found = self._survey()
            kept: list[Candidate] = []
            old: list[Candidate] = []
            for candidate in found.candidates:
                if candidate.temporary is None:
                    (kept if len(kept) < self.keep and self._is_whole(candidate) else old).append(candidate)
            if not kept:
                return []
            newest = kept[0]
            passed = [one for one in found.broken if one.step < newest.manifest.step and not one.newer_format]
            gone = [(one.path, one.manifest.step) for one in old] + [(one.path, one.step) for one in passed]
            for path, step in gone:
                moves.take_away(path, self.folder, step=step, round=self.round)
            useless = [one for one in found.candidates if one.rank < newest.rank or not self._is_whole(one)]
            left = [*found.unfinished, *(one.temporary for one in useless if one.temporary)]
            left = [one for one in left if not layout.is_written(one)]
            for temporary in left:
                moves.remove(temporary.path)
            return [path for path, _ in gone] + [one.path for one in left]

    def mark_done(self, result: Mapping[str, Any]) -> None:
        """Record durably that the job is finished, and what it came to (JSON). Raises SupersededError."""
        with self._turn, self._writing(f"cannot mark the job as done in {self.folder}"):
            files.make_folder(self.folder)
            self._survey()
            marker.write(self.folder, round=self.round, config_digest=self.digest, result=result)

    def done(self) -> dict[str, Any] | None:
        """What `mark_done` was given, if the job is finished, else None; why a marker can't be used is in `rejected`.

        Rounds play no part here: a job that is finished is so for a process of any round.
        """
        with self._turn, self._writing(f"cannot look for a done marker in {self.folder}"):
            found = marker.read(self.folder)
            self.rejected = [f"{layout.DONE} is not used: {found.reason}"] if found.reason else []
            if not found.found:
                return None
            if found.config_digest not in self._digests:
                raise CheckpointMismatchError(
                    f"the marker {self.folder / layout.DONE}", found=found.config_digest, expected=self.digest
                )
            return found.result

    def _survey(self) -> Survey:
        return survey(self.folder, round=self.round, config_digest=self.digest, digests=self._digests)

    @contextlib.contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        """Errors of the system as ours; but one that a later round caused, by cleaning up behind us, as what it is."""
        try:
            yield
        except OSError as error:
            try:
                self._survey()
            except SupersededError as superseded:
                raise superseded from error
            except (CheckpointError, OSError):
                pass
            raise explained(error, doing) from error

    def _settled(self, candidate: Candidate) -> Path:
        """The path of a chosen checkpoint, under its proper name if the storage lets us."""
        if candidate.temporary:
            with contextlib.suppress(OSError):
                return moves.put(candidate.path, self.folder, step=candidate.manifest.step, round=self.round)
        return candidate.path

    def _is_whole(self, candidate: Candidate) -> bool:
        identity = _identity(candidate.manifest)
        if identity in self._verified:
            return reader.has_sizes(candidate.path, candidate.manifest)
        try:
            reader.verify(candidate.path, candidate.manifest)
        except (DamagedError, OSError):
            return False
        self._verified.add(identity)
        return True


def _identity(manifest: Manifest) -> str:
    return " ".join((str(manifest.round), str(manifest.step), *(entry.sha256 for entry in manifest.files.values())))
