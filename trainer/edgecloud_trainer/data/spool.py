"""Decoded images on their way: in a scratch file, with a journal from which a killed reading is taken up again."""

from __future__ import annotations

import json
import time
import zlib
from array import array
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import numpy as np

from edgecloud_trainer.data.dataset import CHUNK_BYTES, MAX_SIDE, DataError, Fault, Ids, Labels, Part, Picked, Pixels
from edgecloud_trainer.data.manifest import MAX_NAME, MAX_REASON, MAX_SKIPPED

_COMMIT_SECONDS: Final = 0.25
_BUFFER: Final = 1 << 20
_PIXELS: Final = "spool"
_JOURNAL: Final = "journal"
_LINE: Final = b"%08x %s\n"
_TEXT_AT: Final = 9
_LEFT_OUT: Final = 0


class Spool:
    """Decoded images of one size in the order of their arrival, each grey or in colour, and what was left out.

    Whether the set is grey is known only after the last image, so each is kept as it is until then.

    A line of the journal stands for the images since the line before: their names and channels, the checksum and
    length of their pixels. A killed process leaves whole lines, and what is behind the last of them is cut off.
    """

    def __init__(self, folder: Path, *, prefix: str = "") -> None:
        """Begin, or go on with what the folder holds.

        Args:
            folder: there already.
            prefix: what stands before an image's name in messages.
        """
        self._path = folder / _PIXELS
        self._prefix = prefix
        self.names: list[str] = []
        """Of all files that have arrived, those that were left out among them."""
        self.skipped: list[Fault] = []
        """The first files that were left out."""
        self.skipped_count = 0
        self._channels = bytearray()
        """Of each arrival; 0 if it was left out."""
        self._offsets = array("q")
        self._end = 0
        self._first: tuple[str, tuple[int, int]] | None = None
        self._journal_path = folder / _JOURNAL
        self._take_up()
        self._journal = self._journal_path.open("ab")
        self._pixels = self._path.open("ab", buffering=0)
        self._buffer = bytearray()
        self.resumed = len(self.names)
        """Arrivals that an earlier process has dealt with."""
        self._fresh: list[list[Any]] = []
        self._checksum = 0
        self._committed = self._end
        self._last_commit = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing is committed: whatever ended this may have come between two lines of ours.
        self._pixels.close()
        self._journal.close()

    def append(self, name: str, pixels: Pixels) -> None:
        """Add one image, uint8 [1 or 3, H, W].

        Raises:
            DataError: it is too large, or has another size than the first one.
        """
        size = (pixels.shape[1], pixels.shape[2])
        self._first = self._first or (name, size)
        if max(size) > MAX_SIDE:
            raise DataError(
                f"{self._prefix}{name} has {_size(size)} pixels, more than {MAX_SIDE} on a side: scale it down, or "
                "take it out"
            )
        if size != self._first[1]:
            raise DataError(
                f"{self._prefix}{self._first[0]} has {_size(self._first[1])} pixels and {self._prefix}{name} has "
                f"{_size(size)}: all images need one size: scale them, or prepare the set with "
                "edgecloud data prepare --resize"
            )
        self._buffer += pixels.data
        if len(self._buffer) >= _BUFFER:
            self._write()
        self._arrived(name, len(pixels), pixels.nbytes)
        self._fresh.append([name, len(pixels)])
        self._now_and_then()

    def skip(self, name: str, reason: str) -> None:
        """One that is left out."""
        self._left_out(name, reason)
        self._fresh.append([name, _LEFT_OUT, reason])
        self._now_and_then()

    def is_kept(self, arrival: int) -> bool:
        """Whether the file that arrived as this one (counted from 0) was not left out."""
        return self._channels[arrival] != _LEFT_OUT

    def commit(self) -> None:
        """What has arrived so far is there for the next process, if this one is killed."""
        self._write()
        if self._fresh:
            line = {
                "size": self._first[1] if self._first else None,
                "bytes": self._end - self._committed,
                "crc": self._checksum,
                "files": self._fresh,
            }
            text = json.dumps(line, separators=(",", ":")).encode()
            self._journal.write(_LINE % (zlib.crc32(text), text))
            self._journal.flush()
        self._fresh, self._checksum, self._committed = [], 0, self._end
        self._last_commit = time.monotonic()

    def finish(self) -> tuple[int, int, int] | None:
        """No more images, and those that are there can be read.

        Returns:
            (C, H, W) of the set: C is 1 if all are grey, else 3. None if there are no images.
        """
        self.commit()
        if self._first is None:
            return None
        height, width = self._first[1]
        return max(self._channels), height, width

    def part(self, arrivals: Ids, labels: Labels, shape: tuple[int, int, int]) -> Part:
        """The images that arrived as these ones, in this order, as a part of the set."""
        flat = np.memmap(self._path, np.uint8, "r")
        plane = shape[1] * shape[2]

        def take(ids: Ids) -> Pixels:
            wanted = arrivals[ids]
            first, last = int(wanted[0]), int(wanted[-1])
            start, stop = self._offsets[first], self._offsets[last] + self._channels[last] * plane
            if stop - start == len(ids) * shape[0] * plane and bool((np.diff(wanted) == 1).all()):
                return flat[start:stop].reshape(-1, *shape)  # all with as many channels, one behind the other
            pixels = np.empty((len(ids), *shape), np.uint8)
            for row, arrival in enumerate(wanted.tolist()):
                channels, offset = self._channels[arrival], self._offsets[arrival]
                pixels[row] = flat[offset : offset + channels * plane].reshape(channels, *shape[1:])
            return pixels

        return Part(labels=labels, take=take, names=Picked(self.names, arrivals))

    def _write(self) -> None:
        self._checksum = zlib.crc32(self._buffer, self._checksum)
        rest = memoryview(self._buffer)
        while rest:
            rest = rest[self._pixels.write(rest) :]
        self._buffer = bytearray()

    def _arrived(self, name: str, channels: int, length: int) -> None:
        self.names.append(name)
        self._channels.append(channels)
        self._offsets.append(self._end)
        self._end += length

    def _left_out(self, name: str, reason: str) -> None:
        self._arrived(name, _LEFT_OUT, 0)
        self.skipped_count += 1
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(Fault(name[:MAX_NAME], reason[:MAX_REASON]))

    def _now_and_then(self) -> None:
        if time.monotonic() - self._last_commit >= _COMMIT_SECONDS:
            self.commit()

    def _take_up(self) -> None:
        """Read the journal as far as it is whole and goes with the pixels; what is behind is cut off both."""
        whole = 0
        self._path.touch()
        self._journal_path.touch()
        with self._journal_path.open("r+b") as journal, self._path.open("r+b") as pixels:
            for line in journal:
                if (entry := _entry(line)) is None or not _agree(pixels, entry):
                    break
                for name, channels, *reason in entry["files"]:
                    if channels == _LEFT_OUT:
                        self._left_out(name, reason[0])
                        continue
                    height, width = entry["size"]
                    self._first = self._first or (name, (height, width))
                    self._arrived(name, channels, channels * height * width)
                whole += len(line)
            journal.truncate(whole)
            pixels.truncate(self._end)


def forget(folder: Path) -> None:
    """Have the next spool in a folder begin anew: nobody knows whether its images are those of the source still."""
    for name in (_JOURNAL, _PIXELS):
        (folder / name).unlink(missing_ok=True)


def _agree(pixels: BinaryIO, entry: dict[str, Any]) -> bool:
    """Whether the next pixels are those that a line of the journal stands for."""
    left, checksum = entry["bytes"], 0
    while left and (data := pixels.read(min(left, CHUNK_BYTES))):
        checksum = zlib.crc32(data, checksum)
        left -= len(data)
    return not left and checksum == entry["crc"]


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line of the journal; None if it isn't whole, or not as it was written."""
    text = line[_TEXT_AT:-1]
    if line != _LINE % (zlib.crc32(text), text):
        return None
    entry: dict[str, Any] = json.loads(text)
    return entry


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
