"""Which reports are taken, and what they add to what is known of a launcher. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from edgecloud.protocol import PollRequest, ProgressReport
from edgecloud_operator.core.members import SILENT_SECONDS
from edgecloud_operator.core.observed import Launcher

RefusalReason = Literal[
    "unauthorized",
    "bad-token",
    "bad-signature",
    "unknown-key",
    "expired",
    "wrong-audience",
    "unknown-pod",
    "foreign",
    "too-often",
    "too-many-connections",
    "no-tls",
    "malformed",
    "too-large",
    "too-slow",
    "protocol",
    "stale-sequence",
    "stale-round",
    "not-ready",
]
"""too-many-connections, no-tls, and a head that is too-large or too-slow have no answer: the connection is closed, and
counted."""
STATUS_CODES: Final[dict[RefusalReason, int]] = {
    "unauthorized": 401,
    "bad-token": 401,
    "bad-signature": 401,
    "unknown-key": 401,
    "expired": 401,
    "wrong-audience": 401,
    "unknown-pod": 401,
    "foreign": 403,
    "too-often": 429,
    "too-many-connections": 503,
    "no-tls": 400,
    "malformed": 400,
    "too-large": 413,
    "too-slow": 408,
    "protocol": 426,
    "stale-sequence": 409,
    "stale-round": 409,
    "not-ready": 503,
}


_STATE: Final = ("round", "state", "draining", "address", "port", "node", "failure")
"""What decisions go by. (The next port is looked up when a round is opened, whatever it is then.)"""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom a token stands for."""

    namespace: str
    job: str
    job_uid: str
    pod_uid: str
    index: int


@dataclass(frozen=True)
class Refusal:
    """Why a request, or a part of it, is not taken."""

    reason: RefusalReason
    message: str


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A report that was taken; dropped says which part of it was not.

    news: whether it may change a decision (state), only what is shown (progress), or only when it was last heard.
    """

    launcher: Launcher
    news: Literal["state", "progress", "none"] = "state"
    dropped: Refusal | None = None


def belongs(identity: Identity, *, namespace: str, job: str, index: str, report: PollRequest) -> Refusal | None:
    """Whether the one who speaks is the one spoken of."""
    if (identity.namespace, identity.job, str(identity.index)) != (namespace, job, index):
        return Refusal("foreign", "the token is another worker's")
    if (identity.job_uid, identity.pod_uid) != (report.job_uid, report.pod_uid):
        return Refusal("foreign", "jobUid or podUid is not the token's")
    return None


def admit(last: Launcher | None, report: PollRequest, *, current_round: int, now: datetime) -> Admitted | Refusal:
    """Take a report up, fenced by (round, sequence).

    last: what is known of this Pod's launcher. current_round: the newest round in status. What a report says of an
    older round than that is dropped; the launcher itself is heard all the same, for it needs to be told of the new one.
    """
    if last is not None:
        if report.sequence <= last.report.sequence:
            return Refusal("stale-sequence", f"sequence {report.sequence} is not above {last.report.sequence}")
        if report.round < last.report.round:
            return Refusal("stale-round", f"round {report.round} is below {last.report.round}, which was heard already")
    dropped = None
    if report.round < current_round and (report.progress or report.failure):
        dropped = Refusal("stale-round", f"round {report.round} is over; {current_round} is the newest")
        report = report.model_copy(update={"progress": None, "failure": None})
    same_round = last is not None and last.report.round == report.round
    if last is not None and same_round and report.progress is None and dropped is None:
        report = report.model_copy(update={"progress": last.report.progress})  # values last until they are replaced
    same_state = same_round and last is not None and last.report.state == report.state
    launcher = Launcher(
        report=report,
        heard_at=now,
        since=last.since if last is not None and same_state else now,
        first_step=_first_step(last, report.progress, same_round=same_round),
        progress_at=_progress_at(last, report.progress, now),
    )
    return Admitted(launcher=launcher, news=_news(last, launcher), dropped=dropped)


def _news(last: Launcher | None, now: Launcher) -> Literal["state", "progress", "none"]:
    """What a report says that the one before didn't. Most polls of a quiet worker say nothing new."""
    if last is None or (now.heard_at - last.heard_at).total_seconds() >= SILENT_SECONDS:
        return "state"
    if any(getattr(last.report, name) != getattr(now.report, name) for name in _STATE):
        return "state"
    return "progress" if last.report.progress != now.report.progress else "none"


def _progress_at(last: Launcher | None, progress: ProgressReport | None, now: datetime) -> float:
    """When progress was made, by the operator's clock: when it was first heard of.

    Of a launcher that was never heard before, only its own clock tells how old its progress is by now.
    """
    if progress is None:
        return 0.0
    if last is None:
        return min(progress.reported_at, now.timestamp())
    old = last.report.progress
    if old is not None and (old.step, old.reported_at) == (progress.step, progress.reported_at):
        return last.progress_at
    return now.timestamp()


def _first_step(
    last: Launcher | None, progress: ProgressReport | None, *, same_round: bool
) -> tuple[int, float] | None:
    if last is not None and same_round and last.first_step is not None:
        return last.first_step
    return (progress.step, progress.reported_at) if progress else None
