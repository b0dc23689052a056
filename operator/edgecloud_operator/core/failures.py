"""Failures: which one was the first cause, and what it costs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from edgecloud.api.spec import RestartPolicy
from edgecloud.api.status import Budget, LastFailure, Reason
from edgecloud.protocol import FailureReport

MAX_UNPAID: Final = 5
"""Unpaid restarts in a row without a newer checkpoint; the next one is paid."""
MAX_FALLS: Final = 5
"""Times that the checkpointed step may fall back before it has to pass the highest one again."""
PREEMPTED: Final = 143
"""Exit code of whoever saved a checkpoint and left."""

Action = Literal["Restart", "RestartUnpaid", "Fail"]

# A process that lost its peer dies of the loss. Its words give it away, in gloo's, NCCL's and the store's voices.
_VICTIM: Final = re.compile(
    r"connection (reset|closed|refused) by peer|connection closed|connection refused|broken pipe|DistNetworkError"
    r"|DistBackendError|ncclRemoteError|ncclSystemError|gloo/transport|recvValue failed|sendBytes failed|TCPStore",
    re.IGNORECASE,
)
# NCCL's watchdog calls everything a DistBackendError, also what a rank's own kernel has done to its GPU.
_OWN: Final = re.compile(r"CUDA error: ")
_WEAK_REASONS: Final = ("ProgramError", "Transient", "PortTaken")
# NCCL's watchdog and C++'s terminate abort the process when a peer is gone.
_WEAK_SIGNALS: Final = ("SIGABRT",)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure of one worker, with where it happened."""

    worker: int
    rank: int | None
    """Rank of the process; of a lost worker, its first; None for a worker that was in no round."""
    node: str
    round: int
    report: FailureReport
    aftermath: bool = False
    """Its worker had been in an earlier round and not yet taken up this one: what closed that one took it along."""
    sent_away: bool = False
    """Its kubelet had it leave, and it left with 143: no exit code of the program's, so that no rule is asked."""

    @property
    def strong(self) -> bool:
        """Whether it can't well be the consequence of another one."""
        return self.report.reason not in _WEAK_REASONS and self.report.signal not in _WEAK_SIGNALS

    @property
    def victim(self) -> bool:
        """Whether its last lines speak of a lost peer, and of nothing of its own."""
        said = self.report.message
        return not self.strong and _VICTIM.search(said) is not None and _OWN.search(said) is None

    def to_status(self) -> LastFailure:
        return LastFailure(
            worker=self.worker,
            rank=self.rank,
            exit_code=self.report.exit_code,
            signal=self.report.signal,
            reason=self.report.reason,
            message=self.report.message[:2048],
            node=self.node,
            round=self.round,
            at=datetime.fromtimestamp(self.report.at, UTC),
        )


def first_cause(failures: Iterable[Failure]) -> Failure | None:
    """The one that the others most likely followed from: strong before weak, cause before victim, early before late."""
    return min(failures, key=lambda f: (not f.strong, f.victim, f.aftermath, f.report.at, f.worker), default=None)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a failure comes to."""

    budget: Budget
    paid: bool
    failed: Reason | None = None
    """Why the job ends, if it does."""


def judge(failure: Failure, budget: Budget, checkpoint_step: int, policy: RestartPolicy) -> Verdict:
    """What the failure costs, and whether the job goes on."""
    budget = refreshed(budget, checkpoint_step)
    action, by_rule = _action(failure, policy)
    if action == "Fail":
        own: Reason = "ExportFailed" if failure.report.reason == "ExportFailed" else "BadConfiguration"
        return Verdict(budget=budget, paid=False, failed="ExitCodeRule" if by_rule else own)
    if action == "RestartUnpaid" and budget.unpaid < MAX_UNPAID:
        return Verdict(budget=budget.model_copy(update={"unpaid": budget.unpaid + 1}), paid=False)
    if budget.spent >= policy.max_restarts:
        return Verdict(budget=budget, paid=False, failed="RestartBudgetExceeded")
    return Verdict(budget=budget.model_copy(update={"spent": budget.spent + 1}), paid=True)


def refreshed(budget: Budget, checkpoint_step: int) -> Budget:
    """The budget, whole again if the checkpointed step has advanced since the last failure.

    A step that fell back, as where checkpoints are lost with their Pods, gives nothing; it is what the next advance is
    measured by. So that steps that are reported to and fro don't make a budget without end, it may fall back MAX_FALLS
    times until the highest step of all has been passed.
    """
    highest = max(budget.highest_step, budget.checkpoint_step, checkpoint_step)
    update = {"checkpoint_step": checkpoint_step, "highest_step": highest}
    if checkpoint_step > budget.checkpoint_step:
        falls = 0 if checkpoint_step > budget.highest_step else budget.falls
        return budget.model_copy(update=update | {"spent": 0, "unpaid": 0, "falls": falls})
    if checkpoint_step < budget.checkpoint_step and budget.falls < MAX_FALLS:
        return budget.model_copy(update=update | {"falls": budget.falls + 1})
    return budget


def _action(failure: Failure, policy: RestartPolicy) -> tuple[Action, bool]:
    report = failure.report
    if failure.sent_away:
        return "RestartUnpaid", False
    code = _exit_code(report)
    for rule in policy.exit_code_rules or ():
        if code in rule.exit_codes:
            return rule.action, True
    if report.reason in ("BadConfiguration", "StartFailed", "ExportFailed"):
        return "Fail", False
    if report.reason in ("Transient", "PortTaken") or report.exit_code == PREEMPTED or failure.aftermath:
        return "RestartUnpaid", False
    return "Restart", False


def _exit_code(report: FailureReport) -> int | None:
    """As a shell and Kubernetes give it: 137 for a process that SIGKILL ended."""
    number = signal.Signals.__members__.get(report.signal or "")
    return 128 + number if number is not None and report.exit_code is None else report.exit_code
