"""A whole small world to try the core in: an API server, nodes, launchers, and an operator that may die between writes.

It keeps the rules that a real one keeps, and complains (`AssertionError`) as soon as the core breaks one of its own.

Nothing here waits: whoever drives it says who does what next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, Budget, Rendezvous, TrainingJobStatus
from edgecloud.protocol import Acknowledged, Directive, FailureReport, PollRequest, ProgressReport, State
from edgecloud_operator.coordinator.admission import Admitted, admit
from edgecloud_operator.core import conditions
from edgecloud_operator.core.failures import MAX_UNPAID
from edgecloud_operator.core.observed import Launcher, Observed, Pod, Service, Termination
from edgecloud_operator.core.plan import Delete, Plan
from edgecloud_operator.core.reconcile import reconcile
from edgecloud_operator.core.writes import write_delay
from tests.unit.core.build import MAX_DECISIONS, NOW, SETTINGS, as_served, make_job, respec

PREEMPTED = 143
OUTCOMES = ("succeeded", "failed", "preempted")


class ConflictError(Exception):
    """The resource has changed since it was read."""


@dataclass
class Worker:
    """What runs in a Pod: a launcher that keeps to the rules of edgecloud.launcher.supervisor, and its program."""

    uid: str
    index: int
    world: World
    round: int = 0
    state: State = "idle"
    draining: bool = False
    sequence: int = 0
    port: int | None = None
    next_port: int = 20000
    failure: FailureReport | None = None
    progress: ProgressReport | None = None
    ack: Acknowledged | None = None
    pending: Directive | None = None
    exit_code: int | None = None
    group: bool = False
    """Processes of the round are alive."""
    agreed: bool = False
    """They were asked to save and leave."""
    hard: bool = False
    """They are being ended."""
    to_idle: bool = False
    cut_off: bool = False
    """No word gets through between it and the operator."""
    answers: list[Directive] = field(default_factory=list)
    """On the way from the operator."""

    def say(self) -> None:
        """Tell the operator, if it is there to hear."""
        if not self.cut_off and self.world.operator is not None:
            self.sequence += 1
            request = PollRequest(
                protocol=1,
                job_uid=self.world.job.metadata.uid or "",
                pod_uid=self.uid,
                sequence=self.sequence,
                round=self.round,
                state=self.state,
                draining=self.draining,
                address=f"10.0.0.{self.index}",
                port=self.port,
                next_port=self.next_port,
                node=f"node-{self.index}",
                ack=self.ack,
                progress=self.progress,
                failure=self.failure,
            )
            self.world.operator.hear(request)

    def ask(self) -> None:
        """Be answered with what the operator says now; the answer is on its way."""
        operator = self.world.operator
        if not self.cut_off and operator is not None and (told := operator.published.get(self.uid)):
            self.answers = [*self.answers[-1:], told]

    def take(self, place: int = 0) -> None:
        """Take up an answer: the two conversations may overtake each other."""
        if self.answers:
            self._take(self.answers.pop(place % len(self.answers)))

    def _take(self, told: Directive) -> None:
        if self.exit_code is not None or (self.ack and (self.ack.action, self.ack.round) == (told.action, told.round)):
            return
        if told.action == "run":
            newest = self.round if self.pending is None else self.pending.round
            if told.round <= newest or self.draining:
                return
            assert told.run is not None, "told to begin a round without being told its part"
        elif told.action != "exit" and told.round < self.round:
            return
        if told.action == "wait" and self.group and not self.world.life:
            rendezvous = _rendezvous(self.world.status)
            open_still = rendezvous.round == self.round and self.world.is_member(self.uid)
            assert not open_still, "told to wait in the middle of a round"
        self.ack = Acknowledged(action=told.action, round=told.round)
        self.pending = told if told.action == "run" else None
        if told.action == "exit":
            self.exit_code = told.exit_code
        if not self.group:
            if self.pending:
                self._start()
            elif self.exit_code is not None:
                self.world.worker_ends(self, self.exit_code)
            return
        if self.state == "running":
            self.state = "stopping"
        if told.action == "wait":
            self.to_idle = self.state != "failed"
        if told.action == "stop":
            self.agreed = True
        else:
            self.hard = True

    def _start(self) -> None:
        assert self.pending is not None
        told, self.pending = self.pending, None
        order = told.run
        assert order is not None
        self.world.round_begins(self, told)
        self.round, self.failure, self.progress = told.round, None, None
        self.to_idle = self.agreed = self.hard = False
        self.port = order.master_port if order.group_rank == 0 else None
        self.next_port += 7
        self.group, self.state = True, "running"

    def drain(self) -> None:
        """SIGTERM."""
        if self.draining:
            return
        self.draining, self.pending = True, None
        self.say()
        if not self.group:
            self.world.worker_ends(self, 0 if self.state == "succeeded" else PREEMPTED)

    def stops_alone(self) -> None:
        """It was asked to leave, and no word to stop came."""
        if self.draining and self.group and self.state == "running":
            self.agreed, self.state = True, "stopping"

    def breaks(self, report: FailureReport) -> None:
        """A process fails; the others are being ended."""
        if self.group and not self.hard:
            self.state, self.failure, self.hard = "failed", report, True

    def leaves_unasked(self) -> None:
        """A process leaves with 143 though nobody asked."""
        if self.group and self.state == "running":
            self.agreed, self.state = True, "stopping"

    def group_ends(self, outcome: State) -> None:
        """Nothing of the round is alive any more."""
        assert self.group
        self.group = False
        self.state = "failed" if self.failure else "idle" if self.to_idle else outcome
        if self.state == "succeeded":
            self.world.done.add((self.round, self.uid))
        if self.exit_code is not None:
            self.world.worker_ends(self, self.exit_code)
        elif self.draining:
            self.world.worker_ends(self, 0 if self.state == "succeeded" else PREEMPTED)
        elif self.pending is not None:
            self._start()


@dataclass
class Operator:
    """The shell's contract: a store that lags behind, plans done write by write, and a memory that can be lost."""

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
        members = {member.pod_uid for member in _rendezvous(self.job.status).members}
        kept = members | set(self.pods)
        self.launchers = {uid: launcher for uid, launcher in self.launchers.items() if uid in kept}
        return Observed(
            pods=tuple(self.pods.values()),
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
        after = _rendezvous(plan.status or job.status)
        if after.round != _rendezvous(job.status).round:
            assert after.round > max(heard.report.round for heard in self.launchers.values())
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
        children = [*creates, *deletes][::1] if not backwards else [*deletes, *creates]
        self.writes = [*children, *status] if not backwards else [*status, *children]
        self.writes.append(lambda: self._publish(job, plan))

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
        self.world.check_directives(plan.directives)
        self.published |= plan.directives
        self.told_round = _rendezvous(job.status).round


class World:
    """The API server with its job, the nodes with their workers, and the operator, if one is up."""

    def __init__(self, **spec: Any) -> None:
        self.now = NOW
        job = make_job(**spec)
        metadata = job.metadata.model_copy(update={"resource_version": "1"})
        self.job = job.model_copy(update={"metadata": metadata})
        self.pods: dict[str, Pod] = {}
        """By name."""
        self.service: Service | None = None
        self.files = False
        self.workers: dict[str, Worker] = {}
        """Launchers that are alive, by Pod uid."""
        self.lost: set[str] = set()
        """Pods whose node is lost: the API server goes on to show them as they were."""
        self.events: list[tuple[str, Any]] = [("job", self.job)]
        self.deleted = False
        self.history: list[TrainingJobStatus] = []
        """Every status that was written."""
        self.life = 0
        """Rises whenever a user meddles with the status: then rounds and restarts may go back."""
        self.opened: dict[tuple[int, int], tuple[str, ...]] = {}
        """Members of every round that ever stood in status, by life and round."""
        self.begun: set[tuple[int, int, int]] = set()
        """(life, round, index) of each start of a worker's processes."""
        self.parts: dict[tuple[int, int], dict[int, tuple[int, int, int, str, int]]] = {}
        """What the workers of a round were told of it: by index, first rank, processes, world size, master and port."""
        self.done: set[tuple[int, str]] = set()
        """(round, Pod uid) of those who did their part to the end."""
        self.credit = 0
        """Failures that happened; restarts may never be more."""
        self.reckoned: set[str] = set()
        self.made = 0
        self.operator: Operator | None = None
        self.operator_starts()

    # The API server

    @property
    def status(self) -> TrainingJobStatus:
        return self.job.status or TrainingJobStatus()

    @property
    def finished(self) -> bool:
        return self.status.phase in TERMINAL

    def _job_is(self, job: TrainingJob) -> None:
        version = str(int(self.job.metadata.resource_version or 0) + 1)
        self.job = job.model_copy(update={"metadata": job.metadata.model_copy(update={"resource_version": version})})
        self.events.append(("job", self.job))

    def write_status(
        self, read: TrainingJob, status: TrainingJobStatus, observed: Observed, decided: datetime
    ) -> TrainingJob:
        if read.metadata.resource_version != self.job.metadata.resource_version:
            raise ConflictError
        new = as_served(status)
        assert new == status, "a status that the server gives back as another one"
        self._check_transition(self.status, new, observed, decided)
        self._job_is(self.job.with_status(new))
        self.history.append(new)
        return self.job

    def create(self, child: dict[str, Any]) -> None:
        name = child["metadata"]["name"]
        assert child["metadata"]["ownerReferences"][0]["uid"] == self.job.metadata.uid
        assert not self.finished, f"a child {name} for a finished job"
        if child["kind"] == "ConfigMap":
            self.files = True
        elif child["kind"] == "Service" and self.service is None:
            self._service_is(Service(name=name, uid="service-uid"))
        elif child["kind"] == "Pod" and name not in self.pods:
            assert self.job.spec.program is None or not self.job.spec.program.files or self.files
            self.made += 1
            index = int(name.rsplit("-", 1)[-1])
            pod = Pod(name=name, uid=f"pod-{self.made}", index=index, phase="Pending", created_at=self.now)
            self._pod_is(pod)

    def delete(self, target: Delete) -> None:
        if target.kind == "TrainingJob":
            assert self.finished
            self.deleted = True
        elif target.kind == "Pod":
            pod = self.pods.get(target.name)
            if pod is not None and pod.uid == target.uid:
                self.pod_is_deleted(pod)

    def _pod_is(self, pod: Pod) -> None:
        self.pods[pod.name] = pod
        self.events.append(("pod", pod))

    def _service_is(self, service: Service | None) -> None:
        self.service = service
        self.events.append(("service", service))

    def pod_is_deleted(self, pod: Pod) -> None:
        """A graceful deletion begins: the kubelet tells the launcher."""
        if not pod.terminating:
            self._pod_is(replace(pod, terminating=True))
        if (worker := self.workers.get(pod.uid)) is not None:
            if worker.cut_off or self.operator is None:
                self.credit += 1  # nobody will hear that it was asked to leave
            worker.drain()

    # Nodes

    def kubelet(self, pod: Pod) -> None:
        """Start a Pod, or see off one that is to go."""
        if pod.uid in self.lost:
            return
        if pod.terminating and pod.uid not in self.workers:
            self._gone(pod)
        elif not pod.terminating and pod.phase == "Pending":
            self._pod_is(replace(pod, phase="Running", running_since=self.now, node=f"node-{pod.index}"))
            self.workers[pod.uid] = Worker(uid=pod.uid, index=pod.index, world=self)

    def _gone(self, pod: Pod) -> None:
        del self.pods[pod.name]
        self.events.append(("gone", pod.uid))
        if self.operator is None or self.is_member(pod.uid):
            self.credit += 1  # its end may not have been seen

    def worker_ends(self, worker: Worker, code: int, *, told: bool = True, out_of_memory: bool = False) -> None:
        """A launcher ends, and with it its Pod."""
        worker.group = False
        if told:
            worker.say()
        del self.workers[worker.uid]
        pod = next(pod for pod in self.pods.values() if pod.uid == worker.uid)
        outcome: Any = worker.state if told and worker.state in OUTCOMES else "none"
        end = Termination(
            exit_code=code,
            round=worker.round if told else 0,
            outcome=outcome,
            failure=worker.failure if told else None,
            out_of_memory=out_of_memory,
        )
        self._pod_is(replace(pod, phase="Succeeded" if code == 0 else "Failed", termination=end))

    def round_begins(self, worker: Worker, told: Directive) -> None:
        """A worker takes a round up: what must then hold."""
        order, number = told.run, told.round
        assert order is not None
        life = max(life for life, opened in self.opened if opened == number)
        key = (life, number, worker.index)
        assert key not in self.begun, f"worker {worker.index} starts twice in round {number}"
        self.begun.add(key)
        members = self.opened[life, number]
        assert worker.uid in members, f"{worker.uid} is told to run in round {number} and is no member of it"
        assert order.group_rank == members.index(worker.uid)
        assert order.group_size == len(members)
        parts = self.parts.setdefault((life, number), {})
        parts[worker.index] = (
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

    # Programs

    def mates(self, worker: Worker) -> list[Worker]:
        return [other for other in self.workers.values() if other.round == worker.round and other.group]

    def all_there(self, worker: Worker) -> bool:
        """Whether the ranks of its round can meet: every member has taken it up, and none has broken."""
        life = max((life for life, opened in self.opened if opened == worker.round), default=-1)
        members = self.opened.get((life, worker.round), ())
        mates = [self.workers.get(uid) for uid in members]
        return bool(mates) and all(
            mate is not None
            and mate.round == worker.round
            and (mate.state == "succeeded" or (mate.group and not mate.hard))
            for mate in mates
        )

    def program_steps(self, worker: Worker, *, checkpoint: bool) -> None:
        """A step of the training, and a checkpoint if one is due."""
        if not worker.group or worker.hard or not self.all_there(worker):
            return
        done = worker.progress.step if worker.progress else self.trained()
        saved = worker.progress.checkpoint_step if worker.progress else None
        worker.progress = ProgressReport(
            step=done + 1,
            total_steps=100,
            checkpoint_step=done + 1 if checkpoint else saved,
            reported_at=self.now.timestamp() + 0.25,
        )

    def trained(self) -> int:
        return self.status.checkpoint.step if self.status.checkpoint else 0

    def program_ends(self, worker: Worker) -> None:
        """The training is complete on this worker, or it has left where it was asked to."""
        if not worker.group:
            return
        if worker.hard:
            worker.group_ends("preempted")
        elif worker.agreed or any(mate.agreed for mate in self.mates(worker)):
            worker.group_ends("preempted")  # the flag rides in the next reduction
        elif self.all_there(worker):
            worker.group_ends("succeeded")

    def program_loses_peer(self, worker: Worker) -> None:
        """A process whose peer has gone dies of it."""
        if worker.group and not worker.hard and not self.all_there(worker):
            worker.breaks(self._report(worker, "Connection closed by peer", exit_code=1))

    def program_fails(self, worker: Worker, how: dict[str, Any]) -> None:
        """A process fails by itself."""
        if worker.group and not worker.hard:
            self.credit += 1
            worker.breaks(self._report(worker, "it broke", **how))

    def _report(self, worker: Worker, message: str, **how: Any) -> FailureReport:
        fields: dict[str, Any] = {"reason": "Killed" if "signal" in how else "ProgramError"} | how
        return FailureReport(
            local_rank=0, rank=worker.index, message=message, at=self.now.timestamp() + 0.125, **fields
        )

    # Faults

    def worker_dies(self, worker: Worker, code: int, *, out_of_memory: bool = False) -> None:
        """The whole container is gone at once."""
        self.credit += 1
        self.worker_ends(worker, code, told=False, out_of_memory=out_of_memory)

    def pod_vanishes(self, pod: Pod) -> None:
        """Somebody removed it by force."""
        self.credit += 1
        self.workers.pop(pod.uid, None)
        self.lost.discard(pod.uid)
        self._gone(pod)

    def node_is_lost(self, pod: Pod) -> None:
        self.credit += 1
        self.workers.pop(pod.uid, None)
        self.lost.add(pod.uid)

    def operator_dies(self) -> None:
        if self.operator is not None:
            self.operator = None
            self.credit += self._unnoticed()

    def operator_starts(self) -> None:
        if self.operator is None:
            self.operator = Operator(
                world=self,
                job=self.job,
                pods={pod.uid: pod for pod in self.pods.values()},
                service=self.service,
                listening_since=self.now,
                seen=len(self.events),
            )

    def is_member(self, uid: str) -> bool:
        return uid in {member.pod_uid for member in _rendezvous(self.status).members}

    def _unnoticed(self) -> int:
        """Ends of which only the operator that is gone may have known why."""
        alive = {pod.uid for pod in self.pods.values() if pod.uid in self.workers and not pod.terminating}
        members = [member.pod_uid for member in _rendezvous(self.status).members]
        dead = [pod.uid for pod in self.pods.values() if pod.uid not in alive]
        return len({uid for uid in (*members, *dead) if uid not in alive})

    # The user

    def user_changes(self, **spec: Any) -> None:
        self._job_is(respec(self.job, **spec))

    def user_meddles(self, place: int) -> None:
        """The status is put back to one of old, or wiped."""
        status = self.history[place % len(self.history)] if place and self.history else None
        self.life += 1
        self.credit += 2 + len(self.pods)
        self.reckoned = set()
        self._job_is(self.job.with_status(status))
        if self.operator is not None:
            self.operator.published = {}
        for worker in self.workers.values():
            worker.answers = []

    def user_deletes_service(self) -> None:
        if self.service is not None:
            self._service_is(None)

    # What must hold

    def _check_transition(
        self, old: TrainingJobStatus, new: TrainingJobStatus, observed: Observed, decided: datetime
    ) -> None:
        before, after = _rendezvous(old), _rendezvous(new)
        assert old.phase not in TERMINAL or new.phase == old.phase, "a finished job is another one"
        assert (new.phase in TERMINAL) == (new.completion_time is not None)
        if new.phase == "Succeeded" and old.phase != "Succeeded":
            assert before.members
            assert {(before.round, member.pod_uid) for member in before.members} <= self.done
        assert after.round >= before.round, "a round went back"
        if after.round == before.round:
            assert after.members in (before.members, ()), "the members of a round changed"
        else:
            assert after.members, "a round without members"
            count = self.job.spec.worker_count()
            indices = [member.index for member in after.members]
            assert indices == sorted(set(indices))
            assert len({member.pod_uid for member in after.members}) == len(indices)
            assert (self.job.spec.min_workers or count) <= len(indices) <= count
            storage = self.job.spec.storage_or_default()
            assert storage.access_mode == "ReadWriteMany" or indices[0] == 0
            self.opened[self.life, after.round] = tuple(member.pod_uid for member in after.members)
        self._check_price(old, new, observed, closed=bool(before.members) and after != before)
        assert len({condition.type for condition in new.conditions}) == len(new.conditions)
        for condition in new.conditions:
            past = conditions.get(old, condition.type)
            if past is not None and past.status == condition.status:
                assert condition.last_transition_time == past.last_transition_time
            else:
                assert condition.last_transition_time == decided.replace(microsecond=0)

    def _check_price(self, old: TrainingJobStatus, new: TrainingJobStatus, observed: Observed, *, closed: bool) -> None:
        dead = {pod.uid for pod in observed.pods if pod.dead}
        strays = dead - self.reckoned - {member.pod_uid for member in _rendezvous(old).members}
        rise = new.restarts - old.restarts
        if closed and new.budget == old.budget and new.phase not in (*TERMINAL, "Suspended"):
            self._check_stop(_rendezvous(old), observed)
        assert 0 <= rise <= int(closed) + int(bool(strays)), f"restarts rise by {rise}"
        silent = new.last_failure is not None and "was not heard" in new.last_failure.message
        if rise and closed and silent and new.last_failure != old.last_failure:
            self.credit += 1  # whoever is silent in an elastic job is given up, and may be well
        assert new.restarts <= self.credit, f"{new.restarts} restarts for {self.credit} failures"
        budget = new.budget or Budget()
        assert budget.spent <= self.job.spec.restart_policy_or_default().max_restarts
        assert budget.unpaid <= MAX_UNPAID
        assert len(set(budget.paid_pods)) == len(budget.paid_pods)
        self.reckoned |= set(budget.paid_pods)

    def _check_stop(self, rendezvous: Rendezvous, observed: Observed) -> None:
        """A round that is closed at nobody's cost was stopped: whoever answers and was in it has ended."""
        for member in rendezvous.members:
            heard = observed.launchers.get(member.pod_uid)
            pod = next((pod for pod in observed.pods if pod.uid == member.pod_uid), None)
            if self.life or heard is None or pod is None or pod.dead or heard.report.round != rendezvous.round:
                continue
            if (self.now - heard.heard_at).total_seconds() < 15:
                assert heard.report.state not in ("running", "stopping"), "stopped before all had saved"

    def check_directives(self, directives: Any) -> None:
        """Nobody is told of a round before it stands in status, nor to run in one that is not his."""
        for uid, told in directives.items():
            if told.action == "run":
                homes = [members for (_, number), members in self.opened.items() if number == told.round]
                assert any(uid in members for members in homes), f"{uid} is told of round {told.round} too early"
            if self.finished:
                assert told.action == "exit"


def check_decision(job: TrainingJob, observed: Observed, now: datetime, plan: Plan, *, thorough: bool) -> None:
    """What holds for every decision, whatever it is about."""
    if plan.requeue_after is not None:
        assert plan.requeue_after > 0
    if not thorough:
        return
    turned = replace(
        observed,
        pods=observed.pods[::-1],
        launchers=dict(reversed(list(observed.launchers.items()))),
    )
    assert reconcile(job, turned, now, SETTINGS) == plan, "a decision depends on the order of what is seen"
    quiet, decisions = plan, 0
    while quiet.status is not None:
        decisions += 1
        assert decisions <= MAX_DECISIONS, "the same observation never comes to rest"
        before, job = quiet, job.with_status(as_served(quiet.status))
        quiet = reconcile(job, observed, now, SETTINGS)
        if not before.status_first:
            assert (quiet.status, quiet.create, quiet.delete) == (None, before.create, before.delete)
    assert reconcile(job, observed, now, SETTINGS) == quiet
    assert not quiet.events, "an event without a change"
    for part in (0.3, 0.98):
        wait = 3600.0 if quiet.requeue_after is None else quiet.requeue_after
        soon = reconcile(job, observed, now + timedelta(seconds=part * wait), SETTINGS)
        assert replace(soon, requeue_after=None) == replace(quiet, requeue_after=None), "it should have looked earlier"
    _check_rest(job, observed, now, quiet)


def _check_rest(job: TrainingJob, observed: Observed, now: datetime, plan: Plan) -> None:
    """When what is to be made is made and what is to go is gone, nothing is left to do but to wait."""
    for _ in range(MAX_DECISIONS):
        if not plan.create and not plan.delete and plan.status is None:
            return
        gone = {target.uid for target in plan.delete}
        if job.metadata.uid in gone:
            return
        made = tuple(
            Pod(
                name=child["metadata"]["name"],
                uid=f"new-{child['metadata']['name']}",
                index=int(child["metadata"]["name"].rsplit("-", 1)[-1]),
                phase="Pending",
                created_at=now,
            )
            for child in plan.create
            if child["kind"] == "Pod"
        )
        service = any(child["kind"] == "Service" for child in plan.create)
        pods = tuple(pod for pod in observed.pods if pod.uid not in gone) + made
        assert len({pod.name for pod in pods}) == len(pods), "a Pod is made whose name is still taken"
        observed = replace(
            observed, pods=pods, service=Service(name="digits", uid="s") if service else observed.service
        )
        if plan.status is not None:
            job = job.with_status(as_served(plan.status))
        plan = reconcile(job, observed, now, SETTINGS)
    raise AssertionError("children are made and deleted without end")


def worker_of(world: World, place: int) -> Worker | None:
    """One of the living launchers."""
    workers = sorted(world.workers.values(), key=lambda worker: (worker.index, worker.uid))
    return workers[place % len(workers)] if workers else None


def pod_of(world: World, place: int) -> Pod | None:
    pods: Sequence[Pod] = sorted(world.pods.values(), key=lambda pod: pod.index)
    return pods[place % len(pods)] if pods else None


def everybody_talks(world: World) -> None:
    for worker in list(world.workers.values()):
        worker.say()
        if world.operator is not None:
            worker.ask()
        while worker.answers:
            worker.take()


def calm(world: World, rounds: int, *, until_end: bool = False) -> bool:
    """Nothing goes wrong for a while; true once the job is over (or, if it is to be suspended, at rest)."""
    for _ in range(rounds):
        if over(world):
            return True
        world.now += timedelta(seconds=2.5)
        for pod in list(world.pods.values()):
            world.kubelet(pod)
        for worker in list(world.workers.values()):
            worker.stops_alone()
            if worker.group and (worker.hard or worker.agreed or any(mate.agreed for mate in world.mates(worker))):
                world.program_ends(worker)
            elif worker.group:
                world.program_steps(worker, checkpoint=False)
        if until_end:
            for worker in [worker for worker in world.workers.values() if world.all_there(worker)]:
                world.program_ends(worker)
        for worker in list(world.workers.values()):
            worker.say()
        if world.operator is not None:
            world.operator.run()
        everybody_talks(world)
    return over(world)


def over(world: World) -> bool:
    """Whether nothing is left to do: no launcher is alive, and the job is finished, or suspended as it should be."""
    resting = world.finished or (world.job.spec.suspend and world.status.phase == "Suspended")
    return resting and not world.workers and (world.finished or not world.pods)


def heal(world: World) -> None:
    """All faults stop: who was cut off is heard again, what was lost is cleared away, an operator is up."""
    for uid in list(world.lost):
        pod = next((pod for pod in world.pods.values() if pod.uid == uid), None)
        if pod is not None:
            world.pod_vanishes(pod)
    for worker in world.workers.values():
        worker.cut_off = False
    world.operator_starts()


def _rendezvous(status: TrainingJobStatus | None) -> Rendezvous:
    return (status or TrainingJobStatus()).rendezvous or Rendezvous()
