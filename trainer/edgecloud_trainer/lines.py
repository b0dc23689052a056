"""Lines that a training writes by the way: a storage that is full costs some of them, never the training."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class LineLog:
    """Appends lines of JSON to a file. What can't be written is lost whole, and said once until writing works again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._told = False

    def write(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        try:
            self._append(data)
        except OSError as error:
            if not self._told:
                log.warning("%s", lost(self._path, error))
            self._told = True
        else:
            self._told = False

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # some file systems say only now that there is no room
                self._file.close()

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
        before = os.fstat(self._file.fileno()).st_size
        if self._file.write(data) < len(data):
            os.ftruncate(self._file.fileno(), before)  # the next line would go on in the midst of this one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lost(path: Path, error: OSError) -> str:
    """What to say."""
    return f"{path} can't be written, and misses what comes now: {error.strerror or error}; free space there"
