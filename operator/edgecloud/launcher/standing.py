"""Where the launcher stands: what it says of itself in every poll, and in its last message. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecloud.launcher import failure, messages, verdict
from edgecloud.launcher.messages import Directive

RUNNING, STOPPING = "running", "stopping"
OUTCOMES = (verdict.SUCCEEDED, verdict.FAILED, verdict.PREEMPTED)


@dataclass
class Standing:
    """`state` follows the processes, with two liberties.

    A failure is said at once, while the other local processes are still being stopped; and an outcome stands until the
    next round begins, so that a coordinator that was away for a while hears of it.
    """

    job_uid: str
    pod_uid: str
    address: str
    node: str
    next_port: int
    round: int = 0
    state: str = verdict.IDLE
    draining: bool = False
    ack: Directive | None = None
    port: int | None = None
    failure: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    asks: bool = False
    """A process of the round looks at the stop flag."""
    farewell: str = ""
    """Why the launcher leaves."""

    def begin(self, directive: Directive) -> None:
        """A new round: nothing that was said of the last one holds any more."""
        self.round = directive.round
        self.failure = self.progress = None
        self.asks = False
        run = directive.run
        self.port = run.master_port if run is not None and run.group_rank == 0 else None

    def stopping(self) -> None:
        if self.state == RUNNING:
            self.state = STOPPING

    def poll(self, hold: float) -> dict[str, Any]:
        """The PollRequest of this moment, but for its sequence."""
        said = {
            "protocol": messages.PROTOCOL,
            "jobUid": self.job_uid,
            "podUid": self.pod_uid,
            "hold": hold,
            "round": self.round,
            "state": self.state,
            "draining": self.draining,
            "address": self.address,
            "nextPort": self.next_port,
            "node": self.node,
            "port": self.port,
            "ack": None if self.ack is None else {"action": self.ack.action, "round": self.ack.round},
            "progress": self.progress,
            "failure": self.failure,
            "asks": self.asks or None,
        }
        return {name: value for name, value in said.items() if value is not None}

    def termination(self, exit_code: int) -> bytes:
        """The last message."""
        return messages.termination(
            round=self.round,
            outcome=self.state,
            exit_code=exit_code,
            failure=self.failure,
            progress=self.progress,
            reason=self.farewell,
        )

    def drained_code(self) -> int:
        """What to end with after a SIGTERM."""
        return 0 if self.state == verdict.SUCCEEDED else verdict.PREEMPTED_CODE

    def orphan_code(self) -> int:
        """What to end with when nobody says it."""
        return failure.exit_code(self.failure) if self.failure is not None else self.drained_code()
