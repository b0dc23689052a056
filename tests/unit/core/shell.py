"""An operator round the core, as a model: the contract of edgecloud_operator.controller, and what it may suffer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, TrainingJobStatus
from edgecloud.protocol import Directive, PollRequest
from edgecloud_operator.coordinator.admission import Admitted, admit
from edgecloud_operator.core.observed import Launcher, Observed, Pod, Service
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.reconcile import reconcile
from edgecloud_operator.core.writes import write_delay
from tests.unit.core.books import rendezvous_of
from tests.unit.core.build import SETTINGS
from tests.unit.core.decisions import check_decision

if TYPE_CHECKING:
    from tests.unit.core.world import World


class ConflictError(Exception):
    """The resource has changed since it was read."""


@dataclass
class Operator:
    """A store that lags behind, plans done write by write, and a memory that can be lost."""

    world: World
    job: TrainingJob
    pods: dict[str, Pod]
    service: Service | None
    listening_since: datetime
    seen: int
    """Events seen."""
    launchers: dict[str, Launcher] = field(default_factory=dict)
    published: dict[str, Directive] = field(default_factory=dict)
    writes: list[Callable[[], None]] = field(default_factory=list)
    """What is left to do of the plan."""
    fuse: int = 0
    """Writes until it dies, and another one takes its place; 0: it lives."""
    last_write: datetime | None = None
    decisions: int = 0
    told_round: int = 0

    def see(self, events: int = 1000) -> None:
        """Take in what the server has told since."""
        for what, value in self.world.events[self.seen : self.seen + events]:
            if what == "job" and int(value.metadata.resource_version) >= int(self.job.metadata.resource_version or 0):
                self.job = value  # an older one than our own last write tells nothing new
            elif what == "pod":
                self.pods[value.uid] = value
            elif what == "gone":
                self.pods.pop(value, None)
            elif what == "service":
                self.service = value
        self.seen = min(self.seen + events, len(self.world.events))

    def hear(self, report: PollRequest) -> None:
        if report.pod_uid not in self.pods:
            return  # 503: the store has not caught up
        result = admit(self.launchers.get(report.pod_uid), report, current_round=self.told_round, now=self.world.now)
        if isinstance(result, Admitted):
            self.launchers[report.pod_uid] = result.launcher

    def observed(self) -> Observed:
        members = {member.pod_uid for member in rendezvous_of(self.job.status).members}
        kept = members | set(self.pods)
        self.launchers = {uid: launcher for uid, launcher in self.launchers.items() if uid in kept}
        pods = tuple(self.pods.values())
        return Observed(
            pods=tuple(pod for pod in pods if pod.role == "worker"),
            measurers=tuple(pod for pod in pods if pod.role == "measure"),
            service=self.service,
            launchers=dict(self.launchers),
            listening_since=self.listening_since,
        )

    def step(self, *, backwards: bool = False) -> None:
        """One write of the plan in hand, or else a new decision."""
        if self.writes:
            self.writes.pop(0)()
            self.fuse -= 1
            if self.fuse == 0:
                self.world.operator_dies()
                self.world.operator_starts()
            return
        observed, job, world, now = self.observed(), self.job, self.world, self.world.now
        plan = reconcile(job, observed, now, SETTINGS)
        self.decisions += 1
        after = rendezvous_of(plan.status or job.status)
        if after.round != rendezvous_of(job.status).round:
            assert after.round > max((heard.report.round for heard in self.launchers.values()), default=0)
        check_decision(job, observed, now, plan, thorough=self.decisions % 4 == 1)
        due = plan.status is not None and (plan.status_first or self._delay(job, plan.status) <= 0)
        status = [lambda: self._write(job, plan, observed, now)] if due else []
        if plan.status is not None and plan.status_first:
            self.writes = list(status)
            return
        order = -1 if backwards else 1
        services = [child for child in plan.create if child["kind"] != "Pod"]
        pods = [child for child in plan.create if child["kind"] == "Pod"][::order]
        creates = [lambda child=child: world.create(child) for child in (*services, *pods)]
        deletes = [lambda target=target: world.delete(target) for target in plan.delete[::order]]
        children = [*creates, *deletes] if not backwards else [*deletes, *creates]
        # What is told stands in status already, so it may be told first or last.
        told = [lambda: self._publish(job, plan)]
        self.writes = [*told, *status, *children] if not backwards else [*children, *status, *told]

    def _delay(self, job: TrainingJob, status: TrainingJobStatus) -> float:
        return write_delay(job.status, status, last_write=self.last_write, now=self.world.now, progress_seconds=10.0)

    def run(self, steps: int = 60) -> None:
        """See, decide and write until there is nothing left to do."""
        for _ in range(steps):
            before = (len(self.world.events), self.seen, len(self.writes))
            self.see()
            self.step()
            while self.writes and self.world.operator is self:
                self.step()
            if self.world.operator is not self:
                return
            if (len(self.world.events), self.seen, 0) == (before[0], len(self.world.events), before[2]):
                return
        raise AssertionError("the operator does not come to rest")

    def _write(self, job: TrainingJob, plan: Plan, observed: Observed, now: datetime) -> None:
        assert plan.status is not None
        try:
            self.job = self.world.write_status(job, plan.status, observed, now)
            self.last_write = now
        except ConflictError:
            if plan.status_first:
                self.writes = []

    def _publish(self, job: TrainingJob, plan: Plan) -> None:
        finished = job.status is not None and job.status.phase in TERMINAL
        self.world.books.check_directives(plan.directives, finished=finished)
        self.published |= plan.directives
        self.told_round = rendezvous_of(job.status).round
