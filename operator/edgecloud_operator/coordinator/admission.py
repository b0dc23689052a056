"""Which reports are taken, and what they add to what is known of a launcher. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from edgecloud.protocol import PollRequest, ProgressReport
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
"""too-many-connections and no-tls have no answer: the connection is closed, and counted."""
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
    """A report that was taken; dropped says which part of it was not."""

    launcher: Launcher
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
    )
    return Admitted(launcher=launcher, dropped=dropped)


def _first_step(
    last: Launcher | None, progress: ProgressReport | None, *, same_round: bool
) -> tuple[int, float] | None:
    if last is not None and same_round and last.first_step is not None:
        return last.first_step
    return (progress.step, progress.reported_at) if progress else None
