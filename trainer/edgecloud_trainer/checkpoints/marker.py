"""done.json: the marker that keeps a finished job finished, also if its status was lost.

A JSON object: `format`, `round` and `sha256` as in a manifest; `config_digest`, whose job it is; `result`, what the job
came to, as its last process gave it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecloud_trainer.checkpoints import files, layout
from edgecloud_trainer.checkpoints.errors import DamagedError
from edgecloud_trainer.checkpoints.manifest import MAX_MANIFEST, sealed, unsealed


@dataclass(frozen=True)
class Marker:
    """What stands in done.json, or why nothing can be said about it."""

    found: bool
    round: int = 0
    config_digest: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    """Why a marker that is there can't be used; empty if none is there."""


def read(folder: Path) -> Marker:
    """The marker in this folder. OSError if the folder can't be opened, unless it is not there."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return Marker(False)
    try:
        if not (folder / layout.DONE).is_symlink() and not (folder / layout.DONE).exists():
            return Marker(False)
        body = unsealed(files.read_small(descriptor, layout.DONE, MAX_MANIFEST), layout.DONE)
    except DamagedError as error:
        return Marker(False, reason=error.message)
    finally:
        os.close(descriptor)
    round, config_digest, result = body.get("round"), body.get("config_digest"), body.get("result")
    if type(round) is not int or not isinstance(config_digest, str) or not isinstance(result, dict):
        return Marker(False, reason=f"{layout.DONE} lacks something that it should have")
    return Marker(True, round, config_digest, result)


def write(folder: Path, *, round: int, config_digest: str, result: Mapping[str, Any]) -> None:
    """Put the marker in place, in one step and durably. Raises OSError; ValueError or TypeError for no JSON."""
    plain = json.loads(json.dumps(dict(result)))
    data = sealed({"round": round, "config_digest": config_digest, "result": plain})
    if len(data) > MAX_MANIFEST:
        raise ValueError(f"the result makes {len(data)} bytes of JSON, and {MAX_MANIFEST} is the most")
    files.replace(folder / layout.DONE, data, layout.temporary_done(folder, round))
