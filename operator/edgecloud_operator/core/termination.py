"""The launcher's last message, read from whoever kept it: a file of the local run, or a container's status."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from edgecloud.protocol import FailureReport
from edgecloud_operator.core.observed import Termination

MAX_BYTES: Final = 4096
"""What Kubernetes keeps of a termination message."""
_OUTCOMES: Final = ("succeeded", "preempted", "failed")


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
