"""What has truly happened in a world, and what its status and its directives must therefore be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from edgecloud.api.spec import TrainingJobSpec
from edgecloud.api.status import TERMINAL, Budget, Rendezvous, TrainingJobStatus
from edgecloud.protocol import Directive
from edgecloud_operator.core import conditions
from edgecloud_operator.core.failures import MAX_UNPAID
from edgecloud_operator.core.observed import Observed


@dataclass
class Books:
    """Kept beside the world; whatever checks complains (`AssertionError`) when the core breaks a rule of its own."""

    life: int = 0
    """Rises whenever a user meddles with the status: then rounds and restarts may go back."""
    opened: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    """Members of every round that ever stood in status, by life and round."""
    begun: set[tuple[int, int, int]] = field(default_factory=set)
    """(life, round, index) of each start of a worker's processes."""
    parts: dict[tuple[int, int], dict[int, tuple[int, int, int, str, int]]] = field(default_factory=dict)
    """What the workers of a round were told of it: by index, first rank, processes, world size, master and port."""
    done: set[tuple[int, str]] = field(default_factory=set)
    """(round, Pod uid) of those who did their part to the end."""
    credit: int = 0
    """Failures that happened; restarts may never be more."""
    reckoned: set[str] = field(default_factory=set)
    """Pods that once stood among the paid."""
    measured: set[str] = field(default_factory=set)
    """Pods that have measured to the end."""

    def members_of(self, number: int) -> tuple[int, tuple[str, ...]]:
        """Life and Pod uids of the newest round of that number."""
        life = max((life for life, opened in self.opened if opened == number), default=-1)
        return life, self.opened.get((life, number), ())

    def round_begins(self, uid: str, index: int, told: Directive) -> None:
        """A worker takes a round up: what must then hold."""
        order, number = told.run, told.round
        assert order is not None
        life, members = self.members_of(number)
        key = (life, number, index)
        assert key not in self.begun, f"worker {index} starts twice in round {number}"
        self.begun.add(key)
        assert uid in members, f"{uid} is told to run in round {number} and is no member of it"
        assert order.group_rank == members.index(uid)
        assert order.group_size == len(members)
        parts = self.parts.setdefault((life, number), {})
        parts[index] = (
            order.first_rank,
            order.processes,
            order.world_size,
            order.master_address,
            order.master_port,
        )
        assert len({part[2:] for part in parts.values()}) == 1, f"round {number} is not the same to all: {parts}"
        ranks = [rank for part in parts.values() for rank in range(part[0], part[0] + part[1])]
        assert len(set(ranks)) == len(ranks), f"a rank is given twice in round {number}: {parts}"
        assert max(ranks) < order.world_size

    def check_transition(
        self,
        spec: TrainingJobSpec,
        old: TrainingJobStatus,
        new: TrainingJobStatus,
        observed: Observed,
        decided: datetime,
    ) -> None:
        """From one status to the next: what must hold. observed, decided: what the decision was made from, and when."""
        before, after = rendezvous_of(old), rendezvous_of(new)
        assert old.phase not in TERMINAL or new.phase == old.phase, "a finished job is another one"
        assert (new.phase in TERMINAL) == (new.completion_time is not None)
        complete = new.phase == "Succeeded" and old.phase != "Succeeded"
        if old.measuring is None and (complete or new.measuring is not None):
            assert before.members
            assert {(before.round, member.pod_uid) for member in before.members} <= self.done
        self._check_measuring(spec, old, new, complete=complete)
        assert after.round >= before.round, "a round went back"
        if after.round == before.round:
            assert after.members in (before.members, ()), "the members of a round changed"
        else:
            assert after.members, "a round without members"
            self._check_members(spec, after, observed, decided)
            self.opened[self.life, after.round] = tuple(member.pod_uid for member in after.members)
        self._check_price(spec, old, new, observed, decided)
        assert len({condition.type for condition in new.conditions}) == len(new.conditions)
        for condition in new.conditions:
            past = conditions.get(old, condition.type)
            if past is not None and past.status == condition.status:
                assert condition.last_transition_time == past.last_transition_time
            else:
                assert condition.last_transition_time == decided.replace(microsecond=0)

    def _check_measuring(
        self, spec: TrainingJobSpec, old: TrainingJobStatus, new: TrainingJobStatus, *, complete: bool
    ) -> None:
        wanted = spec.export is not None and spec.export.measure_on is not None
        before, after = old.measuring, new.measuring
        assert after is None or wanted
        if complete and wanted:
            assert after is not None and after.pod_uid in self.measured, "it succeeds without having been measured"
            assert [one["node"] for one in new.exports or ()] == ["pc-1"] * 2
        if before is None:
            return
        assert after is not None, "what was complete is to be trained again"
        assert after.since == before.since
        assert rendezvous_of(new).round == rendezvous_of(old).round, "a round while it is measured"
        if new.phase == "Suspended":
            assert after.failures == 0
        else:
            assert after.failures - before.failures in (0, 1)
            counted = after.ended_pod_uid != before.ended_pod_uid
            assert after.failures == before.failures or counted, "a Pod is counted twice"

    def _check_members(
        self, spec: TrainingJobSpec, rendezvous: Rendezvous, observed: Observed, decided: datetime
    ) -> None:
        count, indices = spec.worker_count(), [member.index for member in rendezvous.members]
        assert indices == sorted(set(indices))
        assert len({member.pod_uid for member in rendezvous.members}) == len(indices)
        assert (spec.min_workers or count) <= len(indices) <= count
        assert spec.storage_or_default().access_mode == "ReadWriteMany" or indices[0] == 0
        pods = {pod.uid: pod for pod in observed.pods}
        for member in rendezvous.members:
            pod, launcher = pods[member.pod_uid], observed.launchers[member.pod_uid]
            assert pod.owned and not pod.dead and not pod.terminating and pod.index == member.index
            assert not launcher.report.draining, "opened with a worker that is leaving"
            assert (decided - launcher.heard_at).total_seconds() < 15, "opened with a worker that was not heard"

    def _check_price(
        self,
        spec: TrainingJobSpec,
        old: TrainingJobStatus,
        new: TrainingJobStatus,
        observed: Observed,
        decided: datetime,
    ) -> None:
        before, after = rendezvous_of(old), rendezvous_of(new)
        closed = bool(before.members) and (after.round, after.members) != (before.round, before.members)
        dead = {pod.uid for pod in observed.pods if pod.dead}
        strays = dead - self.reckoned - {member.pod_uid for member in before.members}
        rise = new.restarts - old.restarts
        if closed and new.budget == old.budget and new.phase not in (*TERMINAL, "Suspended"):
            self._check_stop(before, observed, decided)
        assert 0 <= rise <= int(closed) + int(bool(strays)), f"restarts rise by {rise}"
        silent = new.last_failure is not None and "was not heard" in new.last_failure.message
        if rise and closed and silent and new.last_failure != old.last_failure:
            self.credit += 1  # whoever is silent in an elastic job is given up, and may be well
            assert (decided - observed.listening_since).total_seconds() >= 15, "nobody has listened for long enough"
        assert new.restarts <= self.credit, f"{new.restarts} restarts for {self.credit} failures"
        budget = new.budget or Budget()
        assert budget.spent <= spec.restart_policy_or_default().max_restarts
        assert budget.unpaid <= MAX_UNPAID
        assert len(set(budget.paid_pods)) == len(budget.paid_pods)
        self.reckoned |= set(budget.paid_pods)

    def _check_stop(self, rendezvous: Rendezvous, observed: Observed, decided: datetime) -> None:
        """A round that is closed at nobody's cost was stopped: whoever answers and was in it has ended."""
        for member in rendezvous.members:
            heard = observed.launchers.get(member.pod_uid)
            pod = next((pod for pod in observed.pods if pod.uid == member.pod_uid), None)
            if self.life or heard is None or pod is None or pod.dead or heard.report.round != rendezvous.round:
                continue
            if (decided - heard.heard_at).total_seconds() < 15:
                assert heard.report.state not in ("running", "stopping"), "stopped before all had saved"

    def check_directives(self, directives: Mapping[str, Directive], *, finished: bool) -> None:
        """Nobody is told of a round before it stands in status, nor to run in one that is not his."""
        for uid, told in directives.items():
            if told.action == "run":
                homes = [members for (_, number), members in self.opened.items() if number == told.round]
                assert any(uid in members for members in homes), f"{uid} is told of round {told.round} too early"
            if finished:
                assert told.action == "exit"


def rendezvous_of(status: TrainingJobStatus | None) -> Rendezvous:
    return (status or TrainingJobStatus()).rendezvous or Rendezvous()
