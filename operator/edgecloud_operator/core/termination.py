"""The launcher's last message, read from whoever kept it: a file of the local run, or a container's status."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from edgecloud.protocol import FailureReport
from edgecloud_operator.core.observed import Termination

MAX_BYTES: Final = 4096
"""What Kubernetes keeps of a termination message."""
_OUTCOMES: Final = ("succeeded", "preempted", "failed")
_NO_PROGRAM: Final = re.compile(
    r"executable file .{0,200}not found|exec: .{0,200}(no such file or directory|permission denied|is a directory)"
    r"|exec format error",
    re.IGNORECASE,
)
"""What is wrong with an image, and so with every other try. (A device or a mount may be there the next time.)"""


def parse_termination(message: str | bytes, exit_code: int, *, out_of_memory: bool = False) -> Termination:
    """What a worker left behind. The message may be missing, cut off, or nonsense: then only the exit code is known."""
    end = Termination(exit_code=exit_code, out_of_memory=out_of_memory)
    try:
        said = json.loads(message)
        outcome, number = said.get("outcome"), said.get("round")
        failure = FailureReport.parse(said["failure"]) if said.get("failure") else None
    except (ValueError, AttributeError, RecursionError, ValidationError):
        return end
    if type(number) is int and 0 <= number <= 10**9:
        end = replace(end, round=number, outcome=outcome if outcome in _OUTCOMES else "none", failure=failure)
    return end


def unstarted(end: Termination, words: str, at: datetime) -> Termination:
    """The end of a container by the runtime's words on why it could not start it; they are empty if it could.

    Where the image lacks the launcher's program, that is the failure of a command that can't be started.
    """
    if end.failure is not None or not _NO_PROGRAM.search(words):
        return end
    report = FailureReport(local_rank=0, rank=0, reason="StartFailed", message=words, at=at.timestamp())
    return replace(end, failure=report)
