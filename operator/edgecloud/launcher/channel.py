"""The file between one training process and its launcher: progress one way, the stop flag the other. Nobody ever waits.

The process maps the file, so that asking for the flag at every step costs nothing. The launcher does not: a process
may shorten the file, and touching a mapping beyond the end of its file is SIGBUS. It reads and writes with pread and
pwrite, which see the same pages.

    offset  size
    0       8     mark of the format
    64      4     control: bit 0 = stop, bit 1 = end at once  launcher -> process
    128     4     attached: 1 = a process looks at the flag   process -> launcher
    132     4     its process id; 0 = not told                process -> launcher
    192     16    sequence (8), length (4), crc32 (4)         process -> launcher
    256     ...   the last report, as JSON, up to the end of the file

The sequence is odd while a report is being written. The checksum covers sequence and report, so that a torn read shows
as well on machines that reorder stores, and so does the half-written report of a process that was killed.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Any

from edgecloud.launcher import progress

SIZE = 12288
"""Bytes of a file that is made here. Another release's are smaller or larger: a process takes a channel as it is."""
MAX_SIZE = 1 << 20
MARK = b"EDGECH1\n"
CONTROL, ATTACHED, ASKER, HEAD, BODY = 64, 128, 132, 192, 256
CAPACITY = SIZE - BODY
STOP, END = 1, 2
_WORD = struct.Struct("<I")
_ATTACHED = struct.Struct("<II")
"""Both words, for they lie side by side."""
_HEAD = struct.Struct("<QII")
_SEQUENCE = struct.Struct("<Q")
_TRIES = 3


def checksum(sequence: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_SEQUENCE.pack(sequence)))


def pid_namespace() -> str:
    """Which namespace counts this process's id, as Linux names it; empty where that can't be known."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  (Python 3.8)
    except OSError:
        return ""


class LauncherEnd:
    """Makes the file, reads reports from it and sets the flag. Whatever the file holds, reading it is safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._control = 0
        self._sequence = 0
        self._progress: dict[str, Any] | None = None
        try:
            # Real zeros, not a hole: a page that a full disk cannot back would be SIGBUS in the training process.
            os.pwrite(self._file, MARK.ljust(SIZE, b"\0"), 0)
        except OSError:
            self.close()
            raise

    @property
    def attached(self) -> bool:
        """Whether a process has asked for the flag at least once."""
        return self._read(ATTACHED, _WORD.size) == _WORD.pack(1)

    @property
    def asker(self) -> int:
        """The process id of the last one that began to; 0 where it was not told: it is of another release's, or in a
        namespace of its own."""
        data = self._read(ASKER, _WORD.size)
        return int(_WORD.unpack(data)[0]) if len(data) == _WORD.size else 0

    def stop(self) -> None:
        """Ask the process to save, and to leave with 143, at its next step."""
        self._tell(STOP)

    def end(self) -> None:
        """Say that it is being ended, with what it can do by itself within the time that a SIGKILL leaves it."""
        self._tell(STOP | END)

    def _tell(self, bits: int) -> None:
        self._control |= bits
        with contextlib.suppress(OSError):
            os.pwrite(self._file, _WORD.pack(self._control), CONTROL)

    def progress(self) -> dict[str, Any] | None:
        """The newest report that could be read whole; None before the first."""
        for _ in range(_TRIES):
            data = self._read(HEAD, SIZE - HEAD)
            if len(data) < _HEAD.size:
                break
            sequence, length, crc = _HEAD.unpack_from(data)
            if sequence == self._sequence:
                break
            body = data[BODY - HEAD : BODY - HEAD + length]
            if sequence % 2 or length != len(body) or crc != checksum(sequence, body):
                continue
            self._sequence = sequence
            self._progress = _decode(body) or self._progress
            break
        return self._progress

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._file, size, offset)
        except OSError:
            return b""


class ProcessEnd:
    """Looks at the flag and writes reports.

    Raises:
        OSError, ValueError: from the constructor, if there is no such channel.
    """

    def __init__(self, path: str) -> None:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(file).st_size
            if not BODY < size <= MAX_SIZE:
                raise ValueError(f"{path} has the size of no channel: {size} bytes")
            self._map = mmap.mmap(file, size)
        finally:
            os.close(file)
        if self._map[: len(MARK)] != MARK:
            raise ValueError(f"{path} is no channel of this version")
        self._capacity = size - BODY

    def attach(self, pid: int) -> None:
        """Say that this process looks at the flag; of several that do, the last one to say so counts.

        pid: its id as the launcher counts processes; 0 where that is not known.
        """
        said = _ATTACHED.pack(1, pid)
        if self._map[ATTACHED : ATTACHED + _ATTACHED.size] != said:
            self._map[ATTACHED : ATTACHED + _ATTACHED.size] = said

    def stop_asked(self) -> bool:
        return bool(_WORD.unpack_from(self._map, CONTROL)[0] & STOP)

    def end_told(self) -> bool:
        return bool(_WORD.unpack_from(self._map, CONTROL)[0] & END)

    def write(self, report: dict[str, Any]) -> None:
        """Put a report in the place of the last one; metrics that do not fit are left out, the last ones first."""
        body = _encode(report, self._capacity)
        # One more than the last even number; odd already if a process was killed (or forked) while it wrote.
        writing = int(_SEQUENCE.unpack_from(self._map, HEAD)[0]) | 1
        done = (writing + 1) % 2**64
        _SEQUENCE.pack_into(self._map, HEAD, writing)
        self._map[BODY : BODY + len(body)] = body
        _HEAD.pack_into(self._map, HEAD, writing, len(body), checksum(done, body))
        _SEQUENCE.pack_into(self._map, HEAD, done)


def _encode(report: dict[str, Any], capacity: int) -> bytes:
    while True:
        body = json.dumps(report, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        if len(body) <= capacity:
            return body
        names = list(report.get("metrics", ()))
        if names:
            report = {**report, "metrics": {name: report["metrics"][name] for name in names[: len(names) * 3 // 4]}}
        else:
            report = {name: report[name] for name in report if name not in progress.DOCUMENTS}


def _decode(body: bytes) -> dict[str, Any] | None:
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return progress.received(raw)
