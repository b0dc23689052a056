"""A file at a URL brought here, from where an earlier try broke off if the server can do that."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Final

from edgecloud_trainer.data.dataset import DataError, TransferError
from edgecloud_trainer.data.filesystem import FileSystem, Found
from edgecloud_trainer.data.observer import Observer, Stage

MAX_BYTES: Final = 16 * 1024**4
_TRIES: Final = 5
"""One after the other that bring nothing."""
_ALL_TRIES: Final = 200
PAUSE_SECONDS: Final = 0.2
"""Before another try; doubled for each that brought nothing."""


def download(fs: FileSystem, found: Found, path: Path, observer: Observer) -> str:
    """Bring a file here.

    Args:
        fs: where it is.
        found: what it is there.
        path: where it goes. What an earlier call left there is gone on with, if it is of the same version.
        observer: is told how far it is, and of every try.

    Returns:
        The file's sha256 (hex).

    Raises:
        DataError: it can't be read; TransferError: it broke off time and again.
        OSError: it can't be written.
    """
    return _Download(fs, found, path, observer).run()


class _Download:
    def __init__(self, fs: FileSystem, found: Found, path: Path, observer: Observer) -> None:
        self._fs = fs
        self._found = found
        self._path = path
        self._state = path.with_name(f"{path.name}.state")
        self._observer = observer
        self._digest = hashlib.sha256()
        self._done = 0
        self._total = found.size
        self._from_middle = bool(found.version)
        """Whether the server may send the file from its middle on: it does until it has shown that it doesn't."""

    def run(self) -> str:
        if self._take_up():
            return self._digest.hexdigest()
        fruitless, most = 0, self._done
        for _ in range(_ALL_TRIES):
            try:
                self._try()
                self._note(complete=True)
                return self._digest.hexdigest()
            except TransferError as error:
                problem = error
            fruitless = 0 if self._done > most else fruitless + 1
            most = max(most, self._done)
            if fruitless >= _TRIES:
                break
            self._observer.note(f"{problem}; trying again after {self._done:,} bytes")
            time.sleep(PAUSE_SECONDS * 2**fruitless)
        going_on = "; the same command goes on from there" if self._from_middle and self._done else ""
        raise TransferError(
            f"{problem} (after {self._done:,} bytes{self._of_total()}{going_on})", resumable=bool(going_on)
        ) from problem

    def _of_total(self) -> str:
        return f" of {self._total:,}" if self._total else ""

    def _take_up(self) -> bool:
        """What an earlier process has brought; whether that is all of it."""
        try:
            state = json.loads(self._state.read_bytes())
            if self._found.version and state["version"] == self._found.version:
                with self._path.open("rb") as file:
                    while data := file.read(1 << 20):
                        self._digest.update(data)
                        self._done += len(data)
                if 0 < self._done == self._total or (state["complete"] and self._done and self._total is None):
                    return True
                if self._total is None or self._done < self._total:
                    if self._done:
                        self._observer.note(f"going on after {self._done:,} bytes that an earlier run has brought")
                    return False
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self._digest, self._done = hashlib.sha256(), 0
        self._note(complete=False)
        return False

    def _note(self, *, complete: bool) -> None:
        self._state.write_text(json.dumps({"version": self._found.version, "complete": complete}))

    def _try(self) -> None:
        stream = self._fs.stream(self._fs.path, self._done, self._found.version)
        if stream.start != self._done:
            self._observer.note(f"{self._fs.public} can't be read from its middle on: starting over")
            self._digest, self._done, self._from_middle = hashlib.sha256(), 0, False
        self._expect(stream.size)
        with self._path.open("r+b" if self._done else "wb") as file:
            file.truncate(self._done)
            file.seek(self._done)
            for data in stream.chunks:
                file.write(data)
                self._digest.update(data)
                self._done += len(data)
                if self._done > (self._total or MAX_BYTES):
                    raise DataError(f"{self._fs.public} sends more than the {self._total or MAX_BYTES:,} bytes it has")
                self._observer.stage(Stage("downloading", self._done, self._total or 0, "bytes"))
        if self._total is not None and self._done < self._total:
            raise TransferError(f"{self._fs.public} breaks off")

    def _expect(self, size: int | None) -> None:
        """Refuse what is too large, or of another size than the server said before."""
        if size is not None and self._total is not None and size != self._total:
            raise DataError(
                f"{self._fs.public} has {self._total:,} bytes, as its server says at first, and {size:,}, as it says "
                "then: try again, or give another URL"
            )
        self._total = self._total if size is None else size
        if self._total is None:
            return
        free = shutil.disk_usage(self._path.parent).free
        if self._total > MAX_BYTES or self._total - self._done > free:
            raise DataError(
                f"{self._fs.public} has {self._total:,} bytes, and {free:,} are free in {self._path.parent}: "
                "free some space"
            )
