"""One checkpoint folder: written file by file, each made durable, the manifest last."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from edgecloud_trainer.checkpoints import files, tensorfile
from edgecloud_trainer.checkpoints.manifest import (
    MANIFEST,
    MAX_STATE,
    STATE,
    TENSORS,
    FileEntry,
    Manifest,
    encode,
)


def state_bytes(state: Mapping[str, Any]) -> bytes:
    """The bytes of state.json: JSON, with NaN and infinity as Python writes and reads them.

    TypeError for what JSON doesn't know; ValueError for more than 64 MiB, which no checkpoint could be read back with.
    """
    data = json.dumps(dict(state), separators=(",", ":")).encode("ascii")
    if len(data) > MAX_STATE:
        raise ValueError(f"the state makes {len(data)} bytes of JSON, and {MAX_STATE} is the most: make tensors of it")
    return data


def write(
    path: Path,
    *,
    step: int,
    round: int,
    config_digest: str,
    tensors: Mapping[str, torch.Tensor],
    state: bytes,
    weights: Collection[str],
) -> Manifest:
    """Make the folder `path`, which must not be there yet, and all that is in it. Raises OSError."""
    plain = {name: tensorfile.row_major(tensor) for name, tensor in tensors.items()}
    path.mkdir()
    files.write(path / STATE, state)
    tensorfile.write(path / TENSORS, plain, stat.S_IMODE((path / STATE).stat().st_mode))
    manifest = Manifest(
        step=step,
        round=round,
        config_digest=config_digest,
        files={
            STATE: FileEntry(len(state), hashlib.sha256(state).hexdigest()),
            TENSORS: _entry(path / TENSORS),
        },
        weights=tuple(sorted(set(weights))),
        weights_sha256=tensorfile.weights_digest(plain, weights),
        torch=str(torch.__version__),
    )
    files.write(path / MANIFEST, encode(manifest))
    files.sync_folder(path)
    return manifest


def _entry(path: Path) -> FileEntry:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return FileEntry(os.fstat(descriptor).st_size, files.sha256_of(descriptor))
    finally:
        os.close(descriptor)
