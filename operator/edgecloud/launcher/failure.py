"""Why a process failed: a reason of the protocol and a message to act on. Pure, but for `read_note`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecloud.launcher.verdict import End

PROGRAM_ERROR = "ProgramError"
BAD_CONFIGURATION = "BadConfiguration"
TRANSIENT = "Transient"
KILLED = "Killed"
OUT_OF_MEMORY = "OutOfMemory"
START_FAILED = "StartFailed"
PORT_TAKEN = "PortTaken"
NOTED = ("NonFinite", "GPUNotVisible", "ExportFailed", "Stalled", "PodLost")
"""Reasons that the launcher never finds itself, but that a process may note."""
REASONS = (PROGRAM_ERROR, BAD_CONFIGURATION, TRANSIENT, KILLED, OUT_OF_MEMORY, START_FAILED, PORT_TAKEN, *NOTED)

MAX_ROUND = 10**9
MAX_LINES = 20
MAX_CHARACTERS = 2000
_MAX_FILE = 256 * 1024

_MEMORY = re.compile(
    r"\bMemoryError\b|std::bad_alloc|can(?:not|'t) allocate memory|DefaultCPUAllocator"
    r"|\b(?:CUDA|HIP|XPU|MPS)\b.*\bout of memory|OutOfMemoryError",
    re.IGNORECASE,
)
_FRAME = re.compile(r"frame #\d+: .*[(\[]0x[0-9a-f]+(?: in [^()\s]+\)|\])")
"""Of the stack that torch's C++ prints below what went wrong, which is more than is kept."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_SIGNALS = {
    "SIGKILL": "not by the program itself: often the kernel, out of memory: ask for more, or take smaller batches",
    "SIGSEGV": "segmentation fault: an error in native code, of the program or of a library it uses",
    "SIGBUS": "bus error: often a full /dev/shm (data loader workers) or a memory-mapped file that was cut short",
    "SIGABRT": "aborted: native code gave up, usually after a message",
    "SIGILL": "illegal instruction: built for another kind of CPU than this one",
    "SIGFPE": "arithmetic error, such as a division by zero in native code",
    "SIGTERM": "asked to end, but not by EdgeCloud",
    "SIGINT": "interrupted, but not by EdgeCloud",
    "SIGXCPU": "used up its CPU time limit",
    "SIGPIPE": "wrote to something that nobody reads any more",
}


@dataclass(frozen=True)
class Note:
    """What a process left behind about its own failure."""

    reason: str | None = None
    message: str = ""
    at: float | None = None
    """When, in epoch seconds."""
    seen_round: int | None = None
    """A later round that it met traces of."""


def printable(text: str) -> str:
    """Valid UTF-8 without escape sequences and control characters; of a line that overwrote itself, what stood last."""
    text = _ESCAPES.sub("", text.encode("utf-8", "replace").decode())
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROLS.sub("", "\n".join(lines))


def last_lines(text: str) -> str:
    """The end of some output, without the frames of C++ stacks: at most 20 lines and 2000 characters."""
    lines = [line.rstrip() for line in printable(text).splitlines() if line.strip()]
    lines = [line for line in lines if _FRAME.fullmatch(line) is None]
    return "\n".join(lines[-MAX_LINES:])[-MAX_CHARACTERS:]


def classify(end: End, text: str, noted: str | None = None) -> str:
    """The reason of a failure.

    Args:
        end: how the process ended; not with 0.
        text: its last lines.
        noted: the reason it gave itself, if any.
    """
    out_of_memory = _MEMORY.search(text) is not None
    if noted is not None and end.signal is None:
        return noted
    if end.killed_by is not None:
        # An uncaught std::bad_alloc ends in abort().
        return OUT_OF_MEMORY if out_of_memory and end.killed_by == signal.SIGABRT else KILLED
    if end.code == 2:
        return BAD_CONFIGURATION
    if end.code == 75:
        return TRANSIENT
    if out_of_memory:
        return OUT_OF_MEMORY
    # What a shell gives for a command that cannot be executed (126) or found (127).
    return START_FAILED if end.code in (126, 127) else PROGRAM_ERROR


def describe(end: End, output: str, note: Note) -> str:
    """The message of a failure, at most 2000 characters: the process's own words if it had any."""
    name = end.signal_name
    said = last_lines(note.message) or last_lines(output)
    if name is None:
        return said or f"exited with code {end.code} and printed nothing"
    words = f"killed by {name}" + (f" ({_SIGNALS[name]})" if name in _SIGNALS else "")
    if not said:
        return f"{words}; it printed nothing"
    return f"{words}\n{said[-(MAX_CHARACTERS - len(words) - 1) :]}"


def report(
    *,
    local_rank: int,
    rank: int,
    reason: str,
    message: str,
    at: float,
    end: End | None = None,
    seen_round: int | None = None,
) -> dict[str, Any]:
    """The protocol's FailureReport."""
    message = message[:MAX_CHARACTERS]
    failure: dict[str, Any] = {"localRank": local_rank, "rank": rank, "reason": reason, "message": message, "at": at}
    if end is not None and end.code is not None:
        failure["exitCode"] = end.code
    if end is not None and end.signal_name is not None:
        failure["signal"] = end.signal_name
    if seen_round is not None:
        failure["seenRound"] = seen_round
    return failure


def exit_code(failure: dict[str, Any]) -> int:
    """What a launcher that nobody directs any more ends with after this failure."""
    if "exitCode" in failure:
        return int(failure["exitCode"])
    if "signal" in failure:
        number = getattr(signal, failure["signal"], None)
        return 128 + int(number) if number is not None else 1
    return {START_FAILED: 2, PORT_TAKEN: 75, TRANSIENT: 75}.get(failure["reason"], 1)


def start_failure(error: OSError, command: str) -> tuple[str, str]:
    """Reason and message for a command that could not be started."""
    remedies = {
        errno.ENOENT: "no such program. Is it in the image and on its PATH, and is the program that its #! line names?",
        errno.EACCES: "it is not executable. Make it so (chmod +x), or name the interpreter: python3 SCRIPT",
        errno.EPERM: "this user may not execute it",
        errno.ENOEXEC: "it is no program for this machine: a script without a #! line, or of another kind of CPU",
        errno.ENOTDIR: "a part of its path is not a folder",
        errno.EISDIR: "it is a folder",
        errno.ELOOP: "its path has a loop of links",
        errno.E2BIG: "its arguments and environment are too large",
    }
    if " " in command.strip():
        remedies[errno.ENOENT] = "no such program. If these are several words, write each by itself: [python, train.py]"
    if error.errno in remedies:
        return START_FAILED, printable(f"cannot start {command!r}: {remedies[error.errno]}")[:MAX_CHARACTERS]
    # No memory, no process ids, no room in the scratch folder: of the machine, and another try may succeed.
    return TRANSIENT, printable(f"cannot start {command!r}: {error}")[:MAX_CHARACTERS]


def read_note(error_file: Path, failure_file: Path) -> Note:
    """What the process wrote for us: torch's @record into the error file, EdgeCloud's trainer into the failure file."""
    own, recorded = _json(failure_file), _json(error_file)
    if isinstance(own, dict) and own.get("reason") in REASONS and isinstance(own.get("message", ""), str):
        seen = own.get("seenRound")
        known = isinstance(seen, int) and not isinstance(seen, bool) and 0 <= seen <= MAX_ROUND
        return Note(reason=str(own["reason"]), message=own.get("message", ""), seen_round=seen if known else None)
    return recorded_by_torch(recorded)


def recorded_by_torch(recorded: Any) -> Note:
    """`{"message": {"message": text, "extraInfo": {"timestamp": seconds}}}` or the older `{"message": text}`."""
    message = recorded.get("message") if isinstance(recorded, dict) else None
    if isinstance(message, str):
        return Note(message=message)
    if not isinstance(message, dict) or not isinstance(message.get("message"), str):
        return Note()
    extra, at = message.get("extraInfo"), None
    if isinstance(extra, dict):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            at = float(extra["timestamp"]) if "timestamp" in extra else None
    return Note(message=message["message"], at=at)


def _json(path: Path) -> Any:
    """The document in a file of an untrusted process, which may have put a pipe, a link or anything else there."""
    try:
        file = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return None
            return json.loads(os.pread(file, _MAX_FILE, 0))
        finally:
            os.close(file)
    except (OSError, ValueError, RecursionError):
        return None
