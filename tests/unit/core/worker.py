"""A launcher with its program, as a model: it keeps to the rules of edgecloud.launcher.supervisor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgecloud.protocol import Acknowledged, Directive, FailureReport, PollRequest, ProgressReport, State
from tests.unit.core.books import rendezvous_of

if TYPE_CHECKING:
    from tests.unit.core.world import World

PREEMPTED = 143


@dataclass
class Worker:
    """What runs in a Pod."""

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

    @property
    def alive(self) -> bool:
        return self.world.workers.get(self.uid) is self

    def say(self) -> None:
        """Tell the operator, if it is there to hear."""
        if self.alive and not self.cut_off and self.world.operator is not None:
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
        if self.alive and not self.cut_off and operator is not None and (told := operator.published.get(self.uid)):
            self.answers = [*self.answers[-1:], told]

    def take(self, place: int = 0) -> None:
        """Take up an answer: the two conversations may overtake each other."""
        if self.alive and self.answers:
            self._take(self.answers.pop(place % len(self.answers)))

    def _take(self, told: Directive) -> None:
        if self.exit_code is not None or (self.ack and (self.ack.action, self.ack.round) == (told.action, told.round)):
            return
        newest = self.round if self.pending is None else self.pending.round
        if told.action == "run":
            if told.round == newest and not self.draining:
                self.ack = Acknowledged(action=told.action, round=told.round)
            if told.round <= newest or self.draining:
                return
            assert told.run is not None, "told to begin a round without being told its part"
        elif told.action != "exit" and told.round < newest:
            return
        if told.action == "wait" and self.group and not self.world.books.life:
            rendezvous = rendezvous_of(self.world.status)
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
            self.to_idle = True
        if told.action == "stop":
            self.agreed = True
        else:
            self.hard = True

    def _start(self) -> None:
        assert self.pending is not None
        told, self.pending = self.pending, None
        order = told.run
        assert order is not None
        self.world.books.round_begins(self.uid, self.index, told)
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
        idle = self.to_idle and outcome == "preempted"
        self.state = "failed" if self.failure else "idle" if idle else outcome
        if self.state == "succeeded":
            self.world.books.done.add((self.round, self.uid))
        if self.exit_code is not None:
            self.world.worker_ends(self, self.exit_code)
        elif self.draining:
            self.world.worker_ends(self, 0 if self.state == "succeeded" else PREEMPTED)
        elif self.pending is not None:
            self._start()
