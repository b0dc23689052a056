"""How each member of the current round is doing, from its Pod and its launcher's last word."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from edgecloud.api.spec import TrainingJobSpec
from edgecloud.api.status import Member, Rendezvous
from edgecloud.protocol import FailureReason, FailureReport
from edgecloud_operator.core.failures import PREEMPTED, Failure
from edgecloud_operator.core.observed import Launcher, Observed, Pod, Termination

SILENT_SECONDS: Final = 15.0
"""A launcher polls every 10 s; one that was not heard for this long is silent."""

# The kubelet's words for a node that is shut down: it ends its Pods without having them deleted.
_NODE_SHUTDOWN: Final = re.compile(r"(Terminated|NodeShutdown|Shutdown)\b")
_REASONS: Final[dict[int, FailureReason]] = {2: "BadConfiguration", 75: "Transient"}
"""What the exit codes say that a launcher shares with the programs."""

Doing = Literal["unknown", "starting", "running", "stopping", "succeeded", "preempted", "failed", "lost"]
ENDED: Final[frozenset[Doing]] = frozenset({"succeeded", "preempted", "failed", "lost"})


@dataclass(frozen=True, kw_only=True)
class MemberState:
    """One member of the round, as it is."""

    member: Member
    doing: Doing
    since: datetime
    """When its state was first heard; for the unheard, when this operator began to listen."""
    leaving: bool = False
    """Something outside the program takes its Pod away, so that its round should end at a checkpoint."""
    failure: Failure | None = None
    unseen: bool = False
    """Its Pod is gone, and this operator has not heard a word of it: nothing is known of its end."""


def silent(launcher: Launcher | None, observed: Observed, now: datetime) -> bool:
    """Whether a launcher was not heard for too long. An operator that has just come up calls nobody silent."""
    last = max(observed.listening_since, launcher.heard_at) if launcher else observed.listening_since
    return (now - last).total_seconds() >= SILENT_SECONDS


def called_away(pod: Pod) -> bool:
    """Whether a dead Pod left because something asked it to; for its round such an end is no failure."""
    return pod.terminating or (pod.termination is not None and pod.termination.exit_code == PREEMPTED)


def sent_away(pod: Pod) -> bool:
    """Whether a dead Pod was asked to leave by its kubelet alone: evicted, past its deadline, or by a probe.

    Nobody has deleted it, and its node stays: the next Pod may come to the same end, and the next.
    """
    return called_away(pod) and not pod.terminating and _NODE_SHUTDOWN.match(pod.why) is None


def heard(launcher: Launcher | None, now: datetime) -> bool:
    """Whether a launcher is there to take orders."""
    return launcher is not None and (now - launcher.heard_at).total_seconds() < SILENT_SECONDS


def blind(launcher: Launcher | None) -> bool:
    """Whether a worker has failed for want of a GPU. Its Pod, and each process in it, sees what it was made with."""
    if launcher is None or launcher.report.failure is None:
        return False
    return launcher.report.state == "failed" and launcher.report.failure.reason == "GPUNotVisible"


def member_states(
    spec: TrainingJobSpec, rendezvous: Rendezvous, observed: Observed, now: datetime
) -> tuple[MemberState, ...]:
    """The members in the order of ranks.

    Whoever left unseen left with the others where one of these is known to have stopped: a stop is agreed by all ranks.
    """
    pods = {pod.uid: pod for pod in observed.pods if pod.owned}
    states, first_rank, stopped = [], 0, False
    for member in rendezvous.members:
        pod, launcher = pods.get(member.pod_uid), observed.launchers.get(member.pod_uid)
        seen = _Seen(member, rendezvous.round, first_rank, pod, launcher, observed.listening_since, now)
        states.append(_state(seen))
        stopped = stopped or seen.stopped
        first_rank += spec.processes_of(member.index)
    if not stopped:
        return tuple(states)
    return tuple(
        replace(state, doing="preempted", leaving=True, failure=None) if state.unseen else state for state in states
    )


@dataclass(frozen=True)
class _Seen:
    """What is known of one member."""

    member: Member
    round: int
    first_rank: int
    pod: Pod | None
    launcher: Launcher | None
    listening_since: datetime
    now: datetime

    @property
    def stopped(self) -> bool:
        """Whether it says itself that it stopped at a checkpoint of this round."""
        end, report = self.pod.termination if self.pod else None, self.launcher.report if self.launcher else None
        said = {(end.outcome, end.round) if end else None, (report.state, report.round) if report else None}
        return ("preempted", self.round) in said

    def state(self, doing: Doing, *, leaving: bool = False, failure: Failure | None = None) -> MemberState:
        since = self.launcher.since if self.launcher else self.listening_since
        return MemberState(member=self.member, doing=doing, since=since, leaving=leaving, failure=failure)

    def failed(self, report: FailureReport, *, doing: Doing, leaving: bool = False) -> MemberState:
        node = (self.pod.node if self.pod else "") or (self.launcher.report.node if self.launcher else "")
        failure = Failure(
            worker=self.member.index,
            rank=report.rank,
            node=node,
            round=self.round,
            report=report,
            aftermath=doing == "lost" and was_in_round(self.launcher, self.pod, before=self.round),
        )
        return self.state(doing, leaving=leaving, failure=failure)


def was_in_round(launcher: Launcher | None, pod: Pod | None, *, before: int) -> bool:
    """Whether the newest round that a worker is known to have taken up is a real one, and older than that."""
    end = pod.termination if pod else None
    return 1 <= max(launcher.report.round if launcher else 0, end.round if end else 0) < before


def _state(seen: _Seen) -> MemberState:
    pod, launcher = seen.pod, seen.launcher
    leaving = (launcher is not None and launcher.report.draining) or (pod is not None and pod.terminating)
    about_it = launcher is not None and launcher.report.round == seen.round
    if pod is None or pod.dead:
        # What a launcher said of the round's end stays true when its Pod has gone since.
        told = about_it and launcher is not None and launcher.report.state in ("succeeded", "preempted", "failed")
        return _told(seen, leaving=leaving) if told else _gone(seen)
    if launcher is None:
        return seen.state("unknown", leaving=leaving)
    if not about_it:
        return seen.state("starting" if launcher.report.round < seen.round else "unknown", leaving=leaving)
    return _told(seen, leaving=leaving)


def _told(seen: _Seen, *, leaving: bool) -> MemberState:
    assert seen.launcher is not None
    report = seen.launcher.report
    if report.state == "failed":
        failure = report.failure or FailureReport(
            local_rank=0, rank=seen.first_rank, reason="ProgramError", at=seen.launcher.since.timestamp()
        )
        return seen.failed(failure, doing="failed", leaving=leaving)
    # A launcher that is idle within the round was told to wait in it: for the round it has stopped.
    return seen.state("preempted" if report.state == "idle" else report.state, leaving=leaving)


def _gone(seen: _Seen) -> MemberState:
    """A member without a living Pod: how did it end?"""
    end = seen.pod.termination if seen.pod else None
    if end and end.round == seen.round and end.outcome == "succeeded":
        return seen.state("succeeded")
    if (seen.pod and called_away(seen.pod)) or (seen.launcher and seen.launcher.report.draining):
        return seen.state("preempted", leaving=True)
    if end and end.failure and end.round == seen.round:
        return seen.failed(end.failure, doing="failed")
    at = min(seen.launcher.heard_at, seen.now) if seen.launcher else seen.now
    lost = seen.failed(death(end, why=seen.pod.why if seen.pod else "", rank=seen.first_rank, at=at), doing="lost")
    return replace(lost, unseen=seen.pod is None and seen.launcher is None)


def death(end: Termination | None, *, why: str = "", rank: int, at: datetime) -> FailureReport:
    """Why a whole worker died, as far as its container's end and the cluster's own words (why) tell."""
    reason: FailureReason = "PodLost"
    if end is None:
        words, code, name = why or "the worker's Pod is gone, and its processes with it", None, None
    else:
        code, name = end.exit_code, _signal_name(end.exit_code)
        words = f"the worker was killed by {name}" if name else f"the worker ended with exit code {code}"
        words += ", out of memory" if end.out_of_memory else ""
        words += f", and its processes with it{f' ({why})' if why else ''}"
        reason = "OutOfMemory" if end.out_of_memory else _REASONS.get(end.exit_code, "PodLost")
    return FailureReport(
        local_rank=0,
        rank=rank,
        exit_code=None if name else code,
        signal=name,
        reason=reason,
        message=words,
        at=at.timestamp(),
    )


def _signal_name(exit_code: int) -> str | None:
    """The signal behind an exit code above 128, as a shell and Kubernetes count them."""
    try:
        return signal.Signals(exit_code - 128).name if exit_code > 128 else None
    except ValueError:
        return None
