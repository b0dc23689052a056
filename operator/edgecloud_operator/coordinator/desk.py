"""What the coordinator remembers: each launcher's last word and what it is to be told; all can be heard again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from edgecloud.protocol import Directive, PollRequest
from edgecloud_operator.coordinator.admission import Identity, Refusal, RefusalReason, admit
from edgecloud_operator.coordinator.door import REQUESTS_A_SECOND, REQUESTS_AT_ONCE, Bucket
from edgecloud_operator.core.members import heard
from edgecloud_operator.core.observed import Launcher

JobKey = tuple[str, str]
"""Namespace and name."""

FIRST_WORD_SECONDS: Final = 2.0
"""How long a poll waits for the very first directive: the decision on what it just reported."""


@dataclass
class _Room:
    """One job's workers."""

    round: int = 0
    finished: bool = False
    launchers: dict[str, Launcher] = field(default_factory=dict)
    directives: dict[str, Directive] = field(default_factory=dict)
    changed: dict[str, asyncio.Event] = field(default_factory=dict)
    """Set, and taken away, when a Pod's directive changes or when a newer poll of it arrives."""
    holding: dict[str, int] = field(default_factory=dict)
    """Sequence of a Pod's newest poll that may be kept back."""
    buckets: dict[str, Bucket] = field(default_factory=dict)

    def wake(self, uid: str) -> None:
        if event := self.changed.pop(uid, None):
            event.set()


class Desk:
    """Takes reports, gives directives, and wakes who waits for one."""

    def __init__(self, on_report: Callable[[JobKey], None], *, requests_at_once: int = REQUESTS_AT_ONCE) -> None:
        """on_report: told of each job that was heard of. requests_at_once: of one worker, after a quiet time."""
        self.refused: Counter[RefusalReason] = Counter()
        self._rooms: dict[JobKey, _Room] = {}
        self._on_report = on_report
        self._requests_at_once = requests_at_once

    def refuse(self, refusal: Refusal) -> Refusal:
        """Count a refusal."""
        self.refused[refusal.reason] += 1
        return refusal

    def pace(self, identity: Identity) -> Refusal | None:
        """Whether a worker asks too often; before anything that it sends is read."""
        room = self._rooms.setdefault((identity.namespace, identity.job), _Room())
        bucket = room.buckets.setdefault(identity.pod_uid, Bucket(self._requests_at_once))
        if bucket.take(asyncio.get_running_loop().time()):
            return None
        return self.refuse(Refusal("too-often", f"more than {REQUESTS_A_SECOND:g} requests a second"))

    def hear(self, identity: Identity, report: PollRequest) -> Refusal | None:
        """Take a report up, or say why not."""
        key = (identity.namespace, identity.job)
        room = self._rooms.setdefault(key, _Room())
        last = room.launchers.get(identity.pod_uid)
        result = admit(last, report, current_round=room.round, now=datetime.now(UTC))
        if isinstance(result, Refusal):
            return self.refuse(result)
        if result.dropped:
            self.refuse(result.dropped)
        room.launchers[identity.pod_uid] = result.launcher
        if not room.finished or last is None:
            self._on_report(key)
        return None

    async def directive(self, identity: Identity, report: PollRequest) -> Directive | Refusal:
        """The directive for a launcher; kept back for as long as it says nothing that the launcher doesn't know."""
        room = self._rooms.setdefault((identity.namespace, identity.job), _Room())
        uid = identity.pod_uid
        if report.hold > 0:
            room.holding[uid] = report.sequence
            room.wake(uid)  # a launcher waits in one poll at a time: an older one is answered now
        now = asyncio.get_running_loop().time()
        until, first_word_until = now + report.hold, now + max(report.hold, FIRST_WORD_SECONDS)
        while True:
            directive = room.directives.get(uid)
            if directive is not None and (report.hold == 0 or not _known(report, directive)):
                return directive
            overtaken = report.hold > 0 and room.holding.get(uid) != report.sequence
            if overtaken or not await _news(room, uid, until if directive else first_word_until):
                break
        return room.directives.get(uid) or self.refuse(Refusal("not-ready", "nothing is decided yet; ask again"))

    def launchers(self, key: JobKey) -> Mapping[str, Launcher]:
        """The last words of a job's launchers, by Pod uid."""
        room = self._rooms.get(key)
        return dict(room.launchers) if room else {}

    def heard(self) -> int:
        """How many launchers, of all jobs, are there to take orders."""
        now = datetime.now(UTC)
        return sum(heard(launcher, now) for room in self._rooms.values() for launcher in room.launchers.values())

    def round_of(self, key: JobKey) -> int:
        """A job's newest round, as far as it is known here; else 0."""
        room = self._rooms.get(key)
        return room.round if room else 0

    def publish(self, key: JobKey, directives: Mapping[str, Directive], *, current_round: int, finished: bool) -> None:
        """Say from now on what was decided, and wake those for whom it is news."""
        room = self._rooms.setdefault(key, _Room())
        room.round, room.finished = current_round, finished
        for uid, directive in directives.items():
            if room.directives.get(uid) != directive:
                room.directives[uid] = directive
                room.wake(uid)

    def keep_only(self, key: JobKey, uids: Collection[str]) -> None:
        """Forget the launchers of Pods that are gone."""
        room = self._rooms.get(key)
        if room is None:
            return
        for uid in {*room.launchers, *room.holding, *room.changed, *room.buckets}.difference(uids):
            room.launchers.pop(uid, None)
            room.directives.pop(uid, None)
            room.holding.pop(uid, None)
            room.buckets.pop(uid, None)
            room.wake(uid)

    def forget(self, key: JobKey) -> None:
        """Forget a job that is gone."""
        self.keep_only(key, ())
        self._rooms.pop(key, None)


async def _news(room: _Room, uid: str, until: float) -> bool:
    """Wait for a change; False when the time is up."""
    event = room.changed.setdefault(uid, asyncio.Event())
    try:
        async with asyncio.timeout_at(until):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _known(report: PollRequest, directive: Directive) -> bool:
    return report.ack is not None and (report.ack.action, report.ack.round) == (directive.action, directive.round)
