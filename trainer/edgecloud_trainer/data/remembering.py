"""Which images a URL led to, for a process that starts while its server can't be reached: a training goes on then."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from pathlib import Path

from edgecloud_trainer.data.imagefile import Stored
from edgecloud_trainer.data.source import keyed
from edgecloud_trainer.data.store import cached, unwritable


def remember(cache: Path, url: str, *, key: str, name: str) -> None:
    """Note what a URL led to, whose images are in the cache.

    Raises:
        DataError: the cache can't be written.
    """
    path, text = _path(cache, url), json.dumps({"key": key, "name": name})
    with suppress(OSError, ValueError):
        if path.read_text() == text:
            return
    beside = path.with_suffix(f".{secrets.token_hex(8)}")  # on a shared volume a process's number is not its own
    try:
        beside.write_text(text)
        beside.rename(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise unwritable(f"the data cache {cache}", error) from error


def recall(cache: Path, url: str) -> tuple[str, str, Stored] | None:
    """Key, name and images of what a URL led to the last time, if they are still in the cache."""
    try:
        noted = json.loads(_path(cache, url).read_bytes())
        key, name = str(noted["key"]), str(noted["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    stored = cached(cache, key)
    return (key, name, stored) if stored is not None else None


def _path(cache: Path, url: str) -> Path:
    """What an earlier release has noted led to images as that one read them: it stands under another name."""
    return cache / f"{keyed([url])}.url"
