"""The core in a world where everything goes wrong in any order, with the operator killed between any two writes.

The rules are what may happen; its books hold what must be true after each; at the end all faults stop, and the job has
to come to an end by itself.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.unit.core.build import MEASURED, make_export, make_message
from tests.unit.core.course import calm, everybody_talks, heal, over, pod_of, worker_of
from tests.unit.core.profile import tries
from tests.unit.core.world import World

PLACES = st.integers(0, 2)
PACES = st.integers(0, 7)
FAILURES: list[dict[str, Any]] = [
    {},  # leaves with 143, unasked
    {"exit_code": 1},
    {"exit_code": 1, "reason": "NonFinite"},
    {"exit_code": 3},
    {"exit_code": 75, "reason": "Transient"},
    {"exit_code": None, "reason": "PortTaken"},
    {"signal": "SIGKILL"},
    {"signal": "SIGABRT"},
    {"signal": "SIGSEGV"},
]
FAILED_GATE = make_message(make_export("onnx"), make_export("onnx-int8", gate="failed"))
MEASURED_ENDS: list[tuple[int | None, str]] = [
    (0, make_message()),
    (0, ""),
    (0, make_message(make_export("onnx"))),
    (0, FAILED_GATE),
    (75, '{"error": "connection refused"}'),
    (75, ""),
    (137, ""),
    (None, ""),
    (1, "Traceback"),
    (3, FAILED_GATE),
    (3, ""),
    (2, '{"error": "no model"}'),
]
CALM_ROUNDS = 270
"""Of 2.5 seconds each: enough for the slowest way there is, a stop that nobody answers and a batched growth, and for
the longest pause before a Pod is replaced that never ran."""


class WorldMachine(RuleBasedStateMachine):
    """What may happen."""

    world: World

    @initialize(
        workers=st.integers(1, 3),
        least=st.integers(0, 2),
        processes=st.sampled_from((None, 2)),
        restarts=st.sampled_from((0, 1, 3, 20)),
        files=st.booleans(),
        once=st.booleans(),
        deadlines=st.sampled_from((False, False, False, True)),
        warm=st.integers(3, 10) | st.just(0),
        fuse=st.integers(0, 6),
        measured=st.sampled_from(("no", "no", "yes", "soon", "soon")),
        shrinks=st.booleans(),
    )
    def begin(
        self,
        workers: int,
        least: int,
        processes: int | None,
        restarts: int,
        files: bool,
        once: bool,
        deadlines: bool,
        warm: int,
        fuse: int,
        measured: str,
        shrinks: bool,
    ) -> None:
        spec: dict[str, Any] = {
            "workers": workers,
            "minWorkers": min(least, workers) or None,
            "processesPerWorker": processes,
            "restartPolicy": {"maxRestarts": restarts},
            "ttlSecondsAfterFinished": 3600,
        }
        if measured != "no":
            spec |= MEASURED
            files = once = False
        if files:
            spec["program"] = {"command": ["python", "train.py"], "files": {"train.py": "print()"}}
        if once:
            spec["storage"] = {"claimName": "checkpoints", "accessMode": "ReadWriteOnce"}
        if deadlines:
            spec |= {"startDeadlineSeconds": 120, "activeDeadlineSeconds": 600}
        self.world = World(**spec)
        assert self.world.operator is not None
        self.world.operator.fuse = fuse
        calm(self.world, warm)
        if shrinks and workers > max(least, 1):
            self.world.user_changes(workers=workers - 1)  # of a round that is well, if it is warm
        if measured == "soon":
            self.training_ends()

    def training_ends(self) -> None:
        """A training without faults from here on, up to the moment in which its Pod measures."""
        world = self.world
        for _ in range(20):
            if world.status.measuring is None:
                calm(world, 1, until_end=True)
            elif world.measuring() is None and not world.finished:
                calm(world, 1)

    # The ordinary course of things

    def goes_on(self, pace: int) -> None:
        """How much of the ordinary life comes between this event and the next."""
        world = self.world
        if pace in (1, 3):
            everybody_talks(world)
        if pace == 2 and world.operator is not None:
            world.operator.see()
            world.operator.step()
        if pace in (3, 4, 5) and world.operator is not None:
            world.operator.run()
        if pace in (4, 5) and (worker := worker_of(world, pace)) and world.operator is not None:
            worker.say()
            world.operator.run()
            worker.ask()
            worker.take()
        if pace > 5:
            calm(world, pace - 5)

    @rule(rounds=st.integers(1, 5))
    def all_is_calm(self, rounds: int) -> None:
        calm(self.world, rounds)

    @rule(steps=st.integers(1, 4), backwards=st.booleans(), events=st.integers(0, 3), dies=st.booleans())
    def operator_steps(self, steps: int, backwards: bool, events: int, dies: bool) -> None:
        if self.world.operator is not None:
            self.world.operator.see(events)
            for _ in range(steps):
                self.world.operator.step(backwards=backwards)
            if dies:
                self.world.operator_dies()
                self.world.operator_starts()

    @rule(place=PLACES, talks=st.booleans(), which=st.integers(0, 2))
    def one_launcher_talks(self, place: int, talks: bool, which: int) -> None:
        """Answers may be late, and overtake each other."""
        if worker := worker_of(self.world, place):
            if talks:
                worker.say()
                worker.ask()
            if which < 2:
                worker.take(which)

    @rule(place=PLACES)
    def kubelet_acts(self, place: int) -> None:
        if pod := pod_of(self.world, place):
            self.world.kubelet(pod)

    @rule(place=PLACES, what=st.sampled_from(("step", "checkpoint", "end", "end", "peer", "stop")))
    def program_goes_on(self, place: int, what: str) -> None:
        if worker := worker_of(self.world, place):
            if what in ("step", "checkpoint"):
                self.world.program_steps(worker, checkpoint=what == "checkpoint")
            elif what == "end":
                self.world.program_ends(worker)
            elif what == "peer":
                self.world.program_loses_peer(worker)
            else:
                worker.stops_alone()

    @rule(seconds=st.sampled_from((0.4, 1.0, 5.0, 15.0, 31.0, 61.0)), heard=st.booleans(), pace=PACES)
    def time_passes(self, seconds: float, heard: bool, pace: int) -> None:
        self.world.now += timedelta(seconds=seconds)
        if heard:
            for worker in list(self.world.workers.values()):
                worker.say()
        self.goes_on(pace)

    # What goes wrong

    @rule(place=PLACES, how=st.sampled_from(FAILURES), pace=PACES)
    def program_fails(self, place: int, how: dict[str, Any], pace: int) -> None:
        if worker := worker_of(self.world, place):
            if how:
                self.world.program_fails(worker, how)
            elif worker.group:
                self.world.books.credit += 1
                worker.leaves_unasked()
        self.goes_on(pace)

    @rule(place=PLACES, code=st.sampled_from((1, 75, 137, 139)), out_of_memory=st.booleans(), pace=PACES)
    def container_dies(self, place: int, code: int, out_of_memory: bool, pace: int) -> None:
        if worker := worker_of(self.world, place):
            self.world.worker_dies(worker, code, out_of_memory=out_of_memory)
        self.goes_on(pace)

    @rule(place=PLACES, how=st.sampled_from(("drained", "drained", "vanishes", "lost", "lost", "rejected")), pace=PACES)
    def pod_goes(self, place: int, how: str, pace: int) -> None:
        if pod := pod_of(self.world, place):
            if pod.phase == "Pending" and pod.role == "worker" and not pod.terminating and how in ("rejected", "lost"):
                self.world.node_rejects(pod)
            elif how == "vanishes":
                self.world.pod_vanishes(pod)
            elif how == "lost" and (pod.uid in self.world.workers or pod == self.world.measuring()):
                self.world.node_is_lost(pod)
            else:
                self.world.pod_is_deleted(pod)
        self.goes_on(pace)

    @precondition(lambda self: self.world.measuring() is not None)
    @rule(how=st.sampled_from(MEASURED_ENDS), pace=PACES)
    def measuring_ends(self, how: tuple[int | None, str], pace: int) -> None:
        if pod := self.world.measuring():
            self.world.measurer_ends(pod, *how)
        self.goes_on(pace)

    @precondition(lambda self: self.world.job.spec.export is not None and self.world.status.measuring is None)
    @rule(pace=PACES)
    def training_is_complete(self, pace: int) -> None:
        self.training_ends()
        self.goes_on(pace)

    @rule(place=PLACES, pace=PACES)
    def network_breaks_or_mends(self, place: int, pace: int) -> None:
        if worker := worker_of(self.world, place):
            worker.cut_off = not worker.cut_off
        self.goes_on(pace)

    @rule(starts=st.booleans())
    def operator_dies(self, starts: bool) -> None:
        self.world.operator_dies()
        if starts:
            self.world.operator_starts()

    @rule(writes=st.integers(1, 6), pace=PACES)
    def operator_will_die(self, writes: int, pace: int) -> None:
        """In the middle of whatever it does then."""
        if self.world.operator is not None:
            self.world.operator.fuse = writes
        self.goes_on(pace)

    @precondition(lambda self: self.world.operator is None)
    @rule()
    def operator_starts(self) -> None:
        self.world.operator_starts()

    # What users do

    @rule(workers=st.integers(1, 3), pace=PACES)
    def user_scales(self, workers: int, pace: int) -> None:
        least = self.world.job.spec.min_workers
        self.world.user_changes(workers=max(workers, least or 1))
        self.goes_on(pace)

    @precondition(lambda self: not self.world.job.spec.suspend)
    @rule(pace=PACES, resumes=st.booleans(), after=PACES)
    def user_suspends(self, pace: int, resumes: bool, after: int) -> None:
        self.world.user_changes(suspend=True)
        self.goes_on(pace)
        if resumes:
            self.world.user_changes(suspend=False)
            self.goes_on(after)

    @precondition(lambda self: self.world.job.spec.suspend)
    @rule(pace=PACES)
    def user_resumes(self, pace: int) -> None:
        self.world.user_changes(suspend=False)
        self.goes_on(pace)

    @precondition(lambda self: self.world.books.life < 2)
    @rule(place=st.just(0) | st.integers(1, 100), pace=PACES)
    def user_meddles_with_the_status(self, place: int, pace: int) -> None:
        self.world.user_meddles(place)
        self.goes_on(pace)

    @rule(pace=PACES)
    def user_deletes_the_service(self, pace: int) -> None:
        self.world.user_deletes_service()
        self.goes_on(pace)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        heal(world)
        assert calm(world, CALM_ROUNDS, until_end=True), _where(world)
        if not world.finished:
            world.user_changes(suspend=False)
            assert calm(world, CALM_ROUNDS, until_end=True), _where(world)
        assert world.finished, _where(world)
        phase, restarts = world.status.phase, world.status.restarts
        world.now += timedelta(seconds=60)
        assert calm(world, 3, until_end=True)
        assert world.operator is not None
        world.operator.run()
        assert over(world)
        assert (world.status.phase, world.status.restarts) == (phase, restarts)


def _where(world: World) -> str:
    """Where a world is stuck."""
    workers = [
        (worker.index, worker.uid, worker.round, worker.state, worker.group, worker.draining, worker.ack)
        for worker in world.workers.values()
    ]
    pods = [(pod.name, pod.uid, pod.phase, pod.terminating) for pod in world.pods.values()]
    return f"the job does not come to an end: {world.status}\nworkers: {workers}\npods: {pods}"


WorldMachine.TestCase.settings = tries(100, steps=40, thorough=9000)
TestWorld = WorldMachine.TestCase
