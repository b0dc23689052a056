"""One checkpoint folder: read it, and believe nothing that its manifest doesn't vouch for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from edgecloud_trainer.checkpoints import files, tensorfile
from edgecloud_trainer.checkpoints.errors import DamagedError, explained
from edgecloud_trainer.checkpoints.manifest import (
    MANIFEST,
    MAX_MANIFEST,
    MAX_STATE,
    STATE,
    TENSORS,
    FileEntry,
    Manifest,
    decode,
)


class Contents(NamedTuple):
    """What a checkpoint holds: tensors in CPU memory, and the JSON state."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def load(path: Path) -> Contents:
    """Tensors and state of the checkpoint in folder `path`, every byte compared with the manifest's sha256.

    Nothing in it is executed (no pickle), no link is followed, and sizes are checked before memory is taken. Raises
    DamagedError with the reason, and CheckpointError if the folder can't be opened.
    """
    try:
        return read(path, read_manifest(path))
    except DamagedError as error:
        raise DamagedError(f"{path} cannot be used: {error.message}") from None
    except OSError as error:
        raise explained(error, f"cannot read the checkpoint {path}") from error


def read_manifest(path: Path) -> Manifest:
    """The manifest in folder `path`. Raises DamagedError, NewerFormatError, and OSError if it can't be opened."""
    with _opened(path) as folder:
        return decode(files.read_small(folder, MANIFEST, MAX_MANIFEST))


def read(path: Path, manifest: Manifest) -> Contents:
    """Contents of folder `path` as `manifest` vouches for them. Raises DamagedError, and OSError as reading does."""
    with _opened(path) as folder, _file(folder, TENSORS, manifest.files[TENSORS]) as descriptor:
        state = _state(folder, manifest.files[STATE])
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            try:
                found, sha256 = tensorfile.read(file, manifest.files[TENSORS].size)
            except DamagedError as error:
                raise DamagedError(f"{TENSORS}: {error.message}") from None
        _compare(TENSORS, sha256, manifest.files[TENSORS])
    return Contents(found, state)


def verify(path: Path, manifest: Manifest) -> None:
    """Like `read`, without keeping anything in memory. Raises DamagedError, and OSError as reading does."""
    with _opened(path) as folder, _file(folder, TENSORS, manifest.files[TENSORS]) as descriptor:
        _state(folder, manifest.files[STATE])
        _compare(TENSORS, files.sha256_of(descriptor), manifest.files[TENSORS])


def has_sizes(path: Path, manifest: Manifest) -> bool:
    """Whether the files are there with the sizes they should have: what costs no reading."""
    try:
        with _opened(path) as folder:
            for name, entry in manifest.files.items():
                with _file(folder, name, entry):
                    pass
    except (DamagedError, OSError):
        return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = files.open_folder(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _file(folder: int, name: str, entry: FileEntry) -> Iterator[int]:
    descriptor, size = files.open_file(folder, name)
    try:
        _fits(name, size, entry)
        yield descriptor
    finally:
        os.close(descriptor)


def _state(folder: int, entry: FileEntry) -> dict[str, Any]:
    data = files.read_small(folder, STATE, MAX_STATE)
    _fits(STATE, len(data), entry)
    _compare(STATE, hashlib.sha256(data).hexdigest(), entry)
    try:
        state = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedError(f"{STATE} is no JSON") from None
    if not isinstance(state, dict):
        raise DamagedError(f"{STATE} is no JSON object")
    return state


def _fits(name: str, size: int, entry: FileEntry) -> None:
    if size != entry.size:
        how = "was cut short" if size < entry.size else "grew"
        raise DamagedError(f"{name} {how}: {size} bytes, where {MANIFEST} says {entry.size}")


def _compare(name: str, sha256: str, entry: FileEntry) -> None:
    if sha256 != entry.sha256:
        raise DamagedError(
            f"{name} was changed: its sha256 is {sha256[:12]}..., where {MANIFEST} says {entry.sha256[:12]}..."
        )
