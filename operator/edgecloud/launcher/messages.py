"""The worker protocol's messages as the launcher needs them: directives in, polls and the last message out. Pure.

`edgecloud.protocol` defines them; it needs pydantic, which an image of the user's may not have. A test holds both
together.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

PROTOCOL = 1
ACTIONS = ("wait", "run", "stop", "exit")
HOLD_SECONDS = 10.0
MAX_TERMINATION = 3500
_MAX_PROCESSES = 1024


@dataclass(frozen=True)
class RunOrder:
    """This worker's part in a round."""

    first_rank: int
    world_size: int
    processes: int
    group_rank: int
    group_size: int
    master_address: str
    master_port: int


@dataclass(frozen=True)
class Directive:
    """What the coordinator tells us."""

    action: str
    round: int
    run: RunOrder | None = None
    grace_seconds: float = 30.0
    exit_code: int = 0
    reason: str = ""
    report_seconds: float = 1.0
    asked: bool | None = None
    """Whether a process of the job looks at the stop flag; None from a coordinator that does not know of it."""


def parse_directive(data: bytes) -> Directive:
    """Read an answer. Fields unknown here are of a newer coordinator, and are passed over.

    Raises:
        ValueError: it is no directive; the message says why.
    """
    try:
        raw = json.loads(data)
    except RecursionError:
        raise ValueError("no JSON of a sane depth") from None
    if not isinstance(raw, dict):
        raise ValueError("not an object")
    action = raw.get("action")
    if action not in ACTIONS:
        raise ValueError(f"unknown action {str(action)[:40]!r}")
    return Directive(
        action=str(action),
        round=_whole(raw, "round", 0, 10**9),
        run=_run_order(raw["run"]) if action == "run" and raw.get("run") is not None else None,
        grace_seconds=_real(raw, "graceSeconds", 30.0, 0.0, 86400.0),
        exit_code=_whole({"exitCode": 0, **raw}, "exitCode", 0, 255),
        reason=str(raw.get("reason", ""))[:1000],
        report_seconds=_real(raw, "reportSeconds", 1.0, 0.05, 60.0),
        asked=raw["asked"] if isinstance(raw.get("asked"), bool) else None,
    )


def _run_order(raw: Any) -> RunOrder:
    if not isinstance(raw, dict):
        raise ValueError("run: missing")
    address = raw.get("masterAddress")
    if not isinstance(address, str) or not address:
        raise ValueError("run.masterAddress: missing")
    return RunOrder(
        first_rank=_whole(raw, "firstRank", 0, 10**6),
        world_size=_whole(raw, "worldSize", 1, 10**6),
        processes=_whole(raw, "processes", 1, _MAX_PROCESSES),
        group_rank=_whole(raw, "groupRank", 0, 10**6),
        group_size=_whole(raw, "groupSize", 1, 10**6),
        master_address=address,
        master_port=_whole(raw, "masterPort", 1, 65535),
    )


def _whole(raw: dict[str, Any], name: str, low: int, high: int) -> int:
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}: {str(value)[:40]!r} is no whole number from {low} to {high}")
    return value


def _real(raw: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = raw.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}: {str(value)[:40]!r} is no number")
    return min(max(float(value), low), high)


def termination(
    *,
    round: int,
    outcome: str,
    exit_code: int,
    failure: dict[str, Any] | None = None,
    progress: dict[str, Any] | None = None,
    reason: str = "",
) -> bytes:
    """The launcher's last message: compact JSON of at most 3500 bytes, for whoever finds nothing but the Pod."""
    said: dict[str, Any] = {"round": round, "outcome": outcome, "exitCode": exit_code}
    if reason:
        said["reason"] = reason[:200]
    for name in ("step", "checkpointStep"):
        if progress and name in progress:
            said[name] = progress[name]
    if failure is None:
        return compact(said)
    message = str(failure.get("message", ""))
    while True:
        data = compact({**said, "failure": {**failure, "message": message}})
        excess = len(data) - MAX_TERMINATION
        if excess <= 0:
            return data
        # The end of the message is the error itself. No character takes more than 6 bytes (\u0000).
        message = message[max(1, excess // 6) :]


def compact(value: dict[str, Any]) -> bytes:
    """JSON in as few bytes as it goes: written as \\uXXXX, long names and messages would pass a poll's 64 KiB.

    Raises:
        ValueError: there is a number in it that is not finite.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
