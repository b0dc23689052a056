"""A data set prepared once: from its source to one file that is whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgecloud_trainer.data.dataset import Contents, DataError, Split
from edgecloud_trainer.data.files import Reading
from edgecloud_trainer.data.holding import hold_back, in_turn, together
from edgecloud_trainer.data.imagefile import SUFFIX, write
from edgecloud_trainer.data.locate import find_source, inside
from edgecloud_trainer.data.locking import locked
from edgecloud_trainer.data.manifest import Manifest, Options, Provenance
from edgecloud_trainer.data.observer import Observer
from edgecloud_trainer.data.prepared import as_contents, open_prepared
from edgecloud_trainer.data.resize import Size
from edgecloud_trainer.data.source import Source
from edgecloud_trainer.data.store import PARTIAL, flush_folder, unwritable, working

_IMAGES: Final = "images"
_MANIFEST: Final = "manifest.json"
_PLAN: Final = "plan.json"
_LOCK: Final = "lock"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a set is to be prepared."""

    size: Size | None = None
    """What images are scaled and cut to; None: they all have one size."""
    skip_broken: bool = False
    """Files that can't be used are left out and listed, instead of refused."""
    follow_links: bool = False
    """Links that lead out of a folder are followed, instead of refused."""
    split: Mapping[Split, float] = field(default_factory=dict)
    """Part of the training images to hold back for validation and test."""
    seed: int = 0
    """Of the splits."""
    downloads: Path | None = None
    """Where torchvision's archives are looked for and kept."""

    def options(self) -> Options:
        """As a manifest says it."""
        return Options(
            resize=str(self.size) if self.size else None,
            skip_broken=self.skip_broken,
            follow_links=self.follow_links,
            split=dict(self.split),
            seed=self.seed,
        )


def manifest_path(out: Path) -> Path:
    """Where a file's manifest stands beside it."""
    return out.with_name(f"{out.name.removesuffix(SUFFIX)}.manifest.json")


def prepare(text: str, out: Path, wish: Wish, observer: Observer, *, force: bool = False) -> Manifest:
    """Read a source, and write its images into one file.

    What a killed process has decoded and brought here is used, if it was the same source with the same options.

    Args:
        text: a path, a URL, or a name.
        out: the file to be written; its manifest goes beside it.
        wish: how.
        observer: is told how far it is.
        force: a file that is there is replaced, when the new one is whole.

    Raises:
        DataError: the source can't be used, or the file not be written.
    """
    fractions = in_turn(wish.split)
    _refuse_place(out, force=force)
    source = find_source(text, observer, skip_broken=wish.skip_broken, follow_links=wish.follow_links)
    if inside(out.parent, source):
        raise DataError(f"{out} would lie in {source.location}, which is read: name a place outside of it")
    plan = {"source": source.key, **wish.options().model_copy(update={"split": {}, "seed": 0}).dump()}
    with _place(out, plan, observer, force=force) as scratch:
        reading = Reading(
            scratch=scratch,
            observer=observer,
            size=wish.size,
            skip_broken=wish.skip_broken,
            helpers=True,
            downloads=wish.downloads,
        )
        here = source.here(reading)
        contents = hold_back(source.name, here.read(reading), fractions, seed=wish.seed)
        provenance = Provenance(name=source.name, source=_with_digest(here).origin(), options=wish.options())
        return _finish(out, scratch, contents, provenance, observer)


def divide(
    path: Path,
    out: Path,
    fractions: Mapping[Split, float],
    observer: Observer,
    *,
    seed: int,
    merge: bool = False,
    force: bool = False,
) -> Manifest:
    """Write the images of a prepared file into another one, with other splits.

    Args:
        path: the prepared file.
        out: the file to be written.
        fractions: parts of the training images to hold back.
        observer: is told how far it is.
        seed: of the splits.
        merge: the images of all splits are put together first.
        force: a file that is there is replaced, when the new one is whole.

    Raises:
        DataError: the file can't be used, or the other one not be written.
    """
    parts = in_turn(fractions)
    _refuse_place(out, force=force)
    stored = open_prepared(path)
    manifest, contents = stored.manifest, as_contents(stored)
    if merge:
        contents = together(contents)
    contents = hold_back(f"{path}", contents, parts, seed=seed)
    options = manifest.options.model_copy(update={"split": dict(fractions), "seed": seed})
    provenance = Provenance(name=manifest.name, source=manifest.source, options=options, derived_from=manifest.sha256)
    contents = replace(contents, skipped=manifest.faults(), skipped_count=manifest.skipped_count)
    with _place(out, {"source": manifest.sha256}, observer, force=force) as scratch:
        return _finish(out, scratch, contents, provenance, observer)


def _scratch(out: Path) -> Path:
    return out.with_name(f"{out.name}{PARTIAL}")


def _refuse_place(out: Path, *, force: bool) -> None:
    """What is wrong with the place of the new file is said before anything is read."""
    try:
        if out.is_dir():
            raise DataError(f"{out} is a folder: name a file, such as {out / 'data'}{SUFFIX}")
        if not out.parent.is_dir():
            raise DataError(f"there is no folder {out.parent}: make it, or name another place")
        if (out.exists() or out.is_symlink()) and not force:
            raise DataError(f"{out} is there already: pass --force to replace it, or name another file")
        if (beside := manifest_path(out)).exists() and not force and not _scratch(out).exists():
            raise DataError(f"{beside} is there already: pass --force to replace it, or name another file")
    except OSError as error:
        raise unwritable(str(out), error) from error


@contextmanager
def _place(out: Path, plan: Mapping[str, object], observer: Observer, *, force: bool) -> Iterator[Path]:
    """The folder beside the new file where it is made; one process at a time.

    It is empty but for what an earlier process with the same plan has left.
    """
    scratch = _scratch(out)

    def busy() -> None:
        raise DataError(f"{out} is being prepared by another process: wait for it, or name another file")

    try:
        scratch.mkdir(exist_ok=True)
        with locked(scratch / _LOCK, busy) as held, working(scratch):
            if not held:
                observer.note(
                    f"{out.parent} is on a file system without locks: let nobody else prepare {out} meanwhile"
                )
            _refuse_place(out, force=force)  # it may have come meanwhile
            _clear_other(scratch, plan, observer)
            yield scratch
    except OSError as error:
        raise unwritable(str(out), error) from error
    finally:
        with suppress(OSError):  # not there, or not empty
            scratch.rmdir()


def _clear_other(scratch: Path, plan: Mapping[str, object], observer: Observer) -> None:
    """Take away what was left by a command that did something else."""
    text = json.dumps(plan, sort_keys=True)
    with suppress(OSError):
        if (scratch / _PLAN).read_text() == text:
            return
    others = [path for path in scratch.iterdir() if path.name != _LOCK]
    for path in others:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if others:
        observer.note(f"{scratch} was left by another command, or the source has changed since: starting over")
    (scratch / _PLAN).write_text(text)


def _with_digest(source: Source) -> Source:
    """The source with its file's digest, if it is one file."""
    if source.single is None or source.sha256 is not None:
        return source
    try:
        with source.single.open("rb") as file:
            return replace(source, sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise DataError(f"{source.location} can't be read ({error.strerror or error}): copy it again") from error


def _finish(out: Path, scratch: Path, contents: Contents, provenance: Provenance, observer: Observer) -> Manifest:
    """Write everything beside its place, then put it there: the file last, so that nobody finds it alone."""
    manifest = write(scratch / _IMAGES, contents, provenance, observer)
    with (scratch / _MANIFEST).open("w") as file:
        json.dump(manifest.dump(), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    (scratch / _MANIFEST).rename(manifest_path(out))
    (scratch / _IMAGES).rename(out)
    flush_folder(out.parent)
    return manifest
