"""manifest.json: what a checkpoint holds and whom it belongs to, with a checksum over itself.

Written last, so a folder that has one was finished. A JSON object:

    format          1; a later release that changes anything raises it, and keeps `format`, `round` and `sha256` as here
    step            optimiser steps done
    round           round of the process that wrote it
    config_digest   `digest` of the configuration that was trained
    files           {"state.json": {"size": bytes, "sha256": hex}, "tensors.safetensors": {...}}: these two, always
    weights         names of the tensors that make the model's weights, in order
    weights_sha256  `weights_digest` of them: the same weights give the same digest, whatever else was saved
    torch           version of PyTorch that wrote it
    sha256          of the canonical JSON of all the rest

The checksum is there because decisions hang on `round`: a flipped bit must not make a process believe that a higher
round exists, and stop for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgecloud_trainer.checkpoints.errors import DamagedError, NewerFormatError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
STATE: Final = "state.json"
TENSORS: Final = "tensors.safetensors"

MAX_MANIFEST: Final = 16 << 20
"""Bytes of a manifest or a done marker; names of weights are most of it."""
MAX_STATE: Final = 64 << 20
"""Bytes of a state.json."""

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and hexadecimal sha256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A manifest.json whose checksum is right."""

    step: int
    round: int
    config_digest: str
    files: Mapping[str, FileEntry]
    weights: tuple[str, ...]
    weights_sha256: str
    torch: str


def digest(config: Mapping[str, Any]) -> str:
    """Hexadecimal sha256 of a configuration as canonical JSON: the order of its keys doesn't matter, all else does.

    TypeError or ValueError if it holds anything that JSON doesn't know (NaN and infinity included).
    """
    return _checksum(config, allow_nan=False)


def sealed(body: Mapping[str, Any]) -> bytes:
    """A JSON object with format number and checksum added: what a manifest and a done marker are written as."""
    whole = {"format": FORMAT, **body}
    return json.dumps({**whole, "sha256": _checksum(whole)}, indent=1).encode("ascii") + b"\n"


def unsealed(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object in the bytes of file `name`. Raises DamagedError for a wrong checksum, and NewerFormatError."""
    try:
        body = json.loads(data)
        given = body.pop("sha256") if isinstance(body, dict) else None
        whole = isinstance(body, dict) and given == _checksum(body)
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise DamagedError(f"{name} does not match its own checksum: it was changed or cut short")
    number, round = body.get("format"), body.get("round")
    if type(number) is not int or number < 1:
        raise DamagedError(f"{name} has no format number")
    if number > FORMAT:
        raise NewerFormatError(
            f"{name} has format {number}, and this release reads format {FORMAT}: it takes a later release's trainer",
            round=round if type(round) is int else 0,
        )
    return dict(body)


def encode(manifest: Manifest) -> bytes:
    """The bytes of manifest.json."""
    return sealed({**asdict(manifest), "weights": list(manifest.weights)})


def decode(data: bytes) -> Manifest:
    """The manifest in these bytes. Raises DamagedError (NewerFormatError for a later release's)."""
    body = unsealed(data, MANIFEST)
    try:
        manifest = Manifest(
            step=_count(body["step"]),
            round=_count(body["round"]),
            config_digest=_text(body["config_digest"]),
            files={name: _entry(entry) for name, entry in body["files"].items()},
            weights=tuple(_text(name) for name in body["weights"]),
            weights_sha256=_hash(body["weights_sha256"]),
            torch=_text(body["torch"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DamagedError(f"{MANIFEST} lacks something that format {FORMAT} has") from None
    if set(manifest.files) != {STATE, TENSORS}:
        raise DamagedError(f"{MANIFEST} names other files than {STATE} and {TENSORS}")
    return manifest


def _checksum(body: Mapping[str, Any], *, allow_nan: bool = True) -> str:
    canonical = json.dumps(dict(body), sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _entry(value: Any) -> FileEntry:
    return FileEntry(size=_count(value["size"]), sha256=_hash(value["sha256"]))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _hash(value: Any) -> str:
    if len(_text(value)) != 64 or not _HEX.issuperset(value):
        raise ValueError
    return str(value)
