"""The control loop against an API server that conflicts, forgets, lags and fails; in simulated time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC
from functools import partial
from typing import Any

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Rendezvous, TrainingJobStatus
from edgecloud.protocol import Directive, PollRequest, ProgressReport
from edgecloud_operator.controller import controller as module
from edgecloud_operator.controller.children import PARALLEL_WRITES
from edgecloud_operator.controller.cluster import (
    ConflictError,
    DeniedError,
    GoneError,
    LaterError,
    RefusedError,
    StandbyError,
    UnstartedError,
)
from edgecloud_operator.controller.controller import Controller
from edgecloud_operator.controller.record import LAST_RETRY_SECONDS
from edgecloud_operator.coordinator.admission import Identity
from edgecloud_operator.coordinator.desk import JobKey
from edgecloud_operator.core.members import SILENT_SECONDS
from edgecloud_operator.core.observed import Pod, Termination
from edgecloud_operator.core.plan import Children, Delete, Event, Plan
from tests.unit.controller.memory import Memory, key_of, make_job
from tests.unit.controller.simulated import SimulatedDatetime, SimulatedLoop, now, simulate

pytestmark = pytest.mark.usefixtures("simulated")
KEY = ("team", "digits")


async def eventually(look: Callable[[], object], what: str, saw: Callable[[], object] = lambda: "") -> None:
    """Wait, in simulated time, until there is something to see."""
    await eventually_within(600, look, what, saw)


async def eventually_within(
    seconds: float, look: Callable[[], object], what: str, saw: Callable[[], object] = lambda: ""
) -> None:
    deadline = now() + seconds
    while not look():
        assert now() < deadline, f"never: {what}; saw: {saw()}"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def running(memory: Memory, **options: Any) -> AsyncIterator[Controller]:
    """A controller at work on a server."""
    controller = Controller(memory, **options)
    memory.controller = controller
    await controller.start()
    try:
        yield controller
    finally:
        await controller.stop()
        for task in memory.launchers:
            task.cancel()
        results = await asyncio.gather(*memory.launchers, return_exceptions=True)
        assert [result for result in results if isinstance(result, Exception)] == []


def fails(verb: str, *, job: str = "", about: str = "", until: float = 1e9, error: type[Exception] = OSError) -> Any:
    """A fault: such requests fail until that time."""

    def fault(its_verb: str, its_job: str, its_about: str) -> Exception | None:
        hit = its_verb == verb and its_job.startswith(job) and about in its_about and now() < until
        return error("the API server is away") if hit else None

    return fault


# A job's life


def test_a_job_from_first_to_last() -> None:
    async def scenario() -> None:
        memory = Memory()
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
            pods = memory.pods[KEY].values
            await eventually(lambda: all(pod.dead for pod in pods()), "the launchers go home")
        assert memory.reasons() == ["Accepted", "RoundOpened", "Running", "Succeeded"]
        created = [write.about for write in memory.of("create")]
        assert created == ["Service/digits", "Pod/digits-worker-0", "Pod/digits-worker-1"]
        assert memory.of("delete") == []
        assert memory.most_under_way["digits"] == 2  # the two Pods side by side, and nothing else

    simulate(scenario())


def test_a_watch_that_lags_behind_every_create() -> None:
    """What is not seen yet is asked for again, and is there already."""

    async def scenario() -> None:
        memory = Memory(lag=3.0, answers=False)
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
        assert memory.reasons() == ["Accepted", "RoundOpened", "Running", "Succeeded"]
        assert len(memory.pods[KEY]) == 2
        assert len(memory.of("create")) < 200

    simulate(scenario())


def test_fifty_jobs() -> None:
    async def scenario() -> None:
        memory = Memory()
        async with running(memory):
            names = [f"job-{number}" for number in range(50)]
            for name in names:
                memory.store(make_job(name))
            await eventually(lambda: all(memory.phase(name) == "Succeeded" for name in names), "all succeed")
        for name in names:
            assert memory.reasons(name) == ["Accepted", "RoundOpened", "Running", "Succeeded"]
            assert len(memory.of("create", name)) == 3

    simulate(scenario())


def test_suspended_and_resumed() -> None:
    async def scenario() -> None:
        memory = Memory(steps=1000)
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            memory.change_spec(KEY, suspend=True)
            await eventually(lambda: memory.phase() == "Suspended", "it is suspended", memory.phase)
            memory.change_spec(KEY, suspend=False)
            await eventually(lambda: memory.phase() == "Running", "it runs again", memory.phase)
            memory.remove(KEY)
            await eventually(lambda: memory.controller and not memory.controller._records, "it is forgotten")

    simulate(scenario())


def test_an_operator_that_was_killed_goes_on_where_it_was() -> None:
    async def scenario() -> None:
        memory = Memory(steps=40)
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            assert memory.controller is not None
            await memory.controller.stop()
            memory.controller = None
            await asyncio.sleep(5)
            successor = Controller(memory)
            memory.controller = successor
            await successor.start()
            successor.saw_job(memory.jobs[KEY])
            for pod in memory.pods[KEY].values():
                successor.saw_pod(KEY, pod)
            successor.saw_service(KEY, memory.services[KEY])
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
            await successor.stop()
        status = memory.jobs[KEY].status
        assert status is not None and status.rendezvous is not None
        assert (status.rendezvous.round, status.restarts) == (1, 0)
        assert len(memory.of("create")) == 3

    simulate(scenario())


@pytest.mark.parametrize("done", [False, True], ids=["it trains on", "it is done meanwhile"])
def test_a_leader_that_was_cut_off_takes_nobody_for_silent_before_it_listens_again(done: bool) -> None:
    """It may not write, and workers are sent away; when it may again they come back only after their own pauses."""

    async def scenario() -> None:
        cut = False
        memory = Memory(steps=1000, fault=lambda verb, job, about: StandbyError() if cut else None)
        async with running(memory) as controller:
            memory.store(make_job(minWorkers=1, activeDeadlineSeconds=30 if done else None))
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            await asyncio.sleep(11)
            cut, memory.controller = True, None
            memory.steps = 0 if done else 1000
            await asyncio.sleep(30)
            controller.listen_anew()
            cut = False
            await asyncio.sleep(6)
            assert memory.phase() == "Running"
            status = memory.jobs[KEY].status
            assert status is not None and status.summary is not None and status.summary.workers == "2/2"
            memory.controller = controller
            await asyncio.sleep(30)
        status = memory.jobs[KEY].status
        assert status is not None and status.rendezvous is not None
        assert (status.rendezvous.round, status.restarts) == (1, 0)
        assert status.phase == ("Succeeded" if done else "Running")

    simulate(scenario())


@pytest.mark.parametrize("minutes", [0.4, 480.0], ids=["Ctrl-Z", "a night with the lid closed"])
def test_who_stood_still_takes_nobody_for_silent(minutes: float) -> None:
    """The workers trained on, or stood still as well; their next words come only after their own pauses."""

    async def scenario() -> None:
        memory = Memory(steps=1000)
        async with running(memory) as controller:
            memory.store(make_job(minWorkers=1))
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            await asyncio.sleep(11)
            memory.controller = None
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SimulatedLoop)
            loop.stand_still(60 * minutes)
            await asyncio.sleep(4)
            memory.controller = controller
            await asyncio.sleep(30)
            assert memory.phase() == "Running"
        status = memory.jobs[KEY].status
        assert status is not None and status.rendezvous is not None
        assert (status.rendezvous.round, status.restarts) == (1, 0)

    simulate(scenario(), within=1e5)


def test_a_leader_that_was_cut_off_misses_who_does_not_come_back() -> None:
    """Nobody wakes it but the time: a worker that died meanwhile is silent 15 s after it began to listen again."""

    async def scenario() -> None:
        memory = Memory(steps=1000)
        async with running(memory) as controller:
            memory.store(make_job(minWorkers=1))
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            memory.controller = None
            await asyncio.sleep(5)
            controller.listen_anew()
            await asyncio.sleep(5)
            first = next(pod for pod in memory.pods[KEY].values() if pod.index == 0)
            said = make_report(1000, pod_uid=first.uid, progress=None)
            assert controller.desk.hear(replace(WHO, pod_uid=first.uid), said) is None
            await asyncio.sleep(SILENT_SECONDS - 6)
            status = memory.jobs[KEY].status
            assert status is not None and status.restarts == 0
            await asyncio.sleep(1.5)
            status = memory.jobs[KEY].status
            assert status is not None and status.restarts == 1
            assert status.last_failure is not None and status.last_failure.worker == 1

    simulate(scenario())


def test_workers_that_cannot_reach_the_operator_train_on() -> None:
    """A Service or a NetworkPolicy is in the way: nobody is heard, and nobody is given up for it."""

    async def scenario() -> None:
        memory = Memory(steps=1000)
        async with running(memory) as controller:
            memory.store(make_job(workers=3, minWorkers=2, restartPolicy={"maxRestarts": 0}))
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            memory.controller = None
            await asyncio.sleep(60)
            assert memory.phase() == "Running" and blocked(memory) == "CoordinatorUnreachable"
            memory.controller = controller
            await asyncio.sleep(30)
            status = memory.jobs[KEY].status
            assert status is not None and status.rendezvous is not None
            assert (status.phase, status.rendezvous.round, status.restarts) == ("Running", 1, 0)
            assert blocked(memory) == "NotBlocked"

    simulate(scenario())


# What is written, and how often


def test_progress_is_written_seldom_whatever_is_reported() -> None:
    async def scenario() -> None:
        memory = Memory(steps=600)
        async with running(memory, progress_seconds=10.0):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            began, before = now(), len(memory.of("status"))
            await asyncio.sleep(120)
            written = memory.of("status")[before:]
            # Two workers report twice a second: 480 reports.
            assert 10 <= len(written) <= 13
            times = [began, *(write.at for write in written)]
            assert all(later - earlier > 9 for earlier, later in itertools.pairwise(times[1:]))
            progress = (memory.jobs[KEY].status or TrainingJobStatus()).progress
            assert progress is not None and progress.step is not None and progress.step > 200

    simulate(scenario())


def test_the_display_sees_every_decision() -> None:
    async def scenario() -> None:
        memory, shown = Memory(steps=20), []
        async with running(memory, on_status=lambda job: shown.append(job.status)):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
        steps = [status.progress.step for status in shown if status and status.progress]
        assert steps == sorted(steps) and len(set(steps)) > 15
        assert shown[-1].phase == "Succeeded"

    simulate(scenario())


# Decided by hand: what the loop makes of a plan

POD = {"kind": "Pod", "metadata": {"name": "digits-worker-0", "labels": {"edgecloud.io/worker-index": "0"}}}
SERVICE = {"kind": "Service", "metadata": {"name": "digits"}}
FILES = {"kind": "ConfigMap", "metadata": {"name": "digits-files"}}
GONE = Delete(kind="Pod", name="digits-worker-7", uid="gone")
WAIT = Directive(action="wait", round=0)
ACCEPTED = TrainingJobStatus(phase="Pending", start_time=SimulatedDatetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC))
EVENT = Event(type="Normal", reason="Accepted", message="waiting")


def decide(monkeypatch: pytest.MonkeyPatch, *plans: Plan | Exception) -> list[TrainingJob]:
    """Have these plans decided one after the other, and the last for ever; the jobs that they were decided on."""
    seen: list[TrainingJob] = []

    def scripted(job: TrainingJob, *_rest: Any) -> Plan:
        seen.append(job)
        plan = plans[min(len(seen), len(plans)) - 1]
        if isinstance(plan, Exception):
            raise plan
        return plan

    monkeypatch.setattr(module, "reconcile", scripted)
    return seen


def told(controller: Controller) -> dict[str, Directive]:
    room = controller.desk._rooms.get(KEY)
    return dict(room.directives) if room else {}


def test_a_status_that_comes_first_comes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    everything: dict[str, Any] = {
        "create": (SERVICE, POD), "delete": (GONE,), "directives": {"pod": WAIT}, "requeue_after": 1.0,
    }  # fmt: skip
    first = Plan(status=ACCEPTED, status_first=True, events=(EVENT,), **everything)
    seen = decide(monkeypatch, first, Plan())

    async def scenario() -> None:
        memory = Memory(with_launchers=False)
        async with running(memory) as controller:
            memory.store(make_job())
            await asyncio.sleep(30)
            assert told(controller) == {}
        assert [write.verb for write in memory.writes] == ["status"]
        assert [event for _, event in memory.events] == [EVENT]
        assert seen[1].status == ACCEPTED, "the second decision is made on what then stood there"

    simulate(scenario())


def test_a_status_that_does_not_come_first_comes_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(status=ACCEPTED, create=(FILES, SERVICE, POD), delete=(GONE,), directives={"pod": WAIT})
    decide(monkeypatch, plan, Plan())

    async def scenario() -> None:
        memory = Memory(with_launchers=False)
        async with running(memory) as controller:
            memory.store(make_job())
            await asyncio.sleep(30)
            assert told(controller) == {"pod": WAIT}
        order = [(write.verb, write.about.partition("/")[0]) for write in memory.writes]
        assert order[:3] == [("status", "Pending"), ("create", "ConfigMap"), ("create", "Service")]
        assert set(order[3:]) == {("create", "Pod"), ("delete", "Pod")}

    simulate(scenario())


def test_first_without_a_status_is_nothing_special(monkeypatch: pytest.MonkeyPatch) -> None:
    decide(monkeypatch, Plan(status_first=True, create=(SERVICE,)), Plan())

    async def scenario() -> None:
        memory = Memory()
        async with running(memory):
            memory.store(make_job())
            await asyncio.sleep(10)
        assert [write.verb for write in memory.writes] == ["create"]

    simulate(scenario())


def test_writes_side_by_side_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = tuple(
        {"kind": "Pod", "metadata": {"name": f"p{n}", "labels": {"edgecloud.io/worker-index": str(n)}}}
        for n in range(100)
    )
    decide(monkeypatch, Plan(create=pods), Plan())

    async def scenario() -> None:
        memory = Memory(with_launchers=False)
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: len(memory.pods.get(KEY, {})) == 100, "all are made")
        assert memory.most_under_way["digits"] == PARALLEL_WRITES

    simulate(scenario())


def counted(count: int, built: Callable[[], None]) -> Plan:
    """So many Pods to create; told of each that is built."""

    def build(number: int) -> dict[str, Any]:
        built()
        return {"kind": "Pod", "metadata": {"name": f"p{number}", "labels": {"edgecloud.io/worker-index": str(number)}}}

    return Plan(create=Children(*(partial(build, number) for number in range(count))))


def test_children_are_built_when_their_turn_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand large Pods at once would hold up all jobs."""
    memory, built, most = Memory(with_launchers=False), 0, 0

    def tell() -> None:
        nonlocal built, most
        built += 1
        most = max(most, built - len(memory.pods.get(KEY, {})))

    decide(monkeypatch, counted(100, tell), Plan())

    async def scenario() -> None:
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: len(memory.pods.get(KEY, {})) == 100, "all are made")

    simulate(scenario())
    assert most <= PARALLEL_WRITES + 1, "the first one is looked at for its kind as well"


def test_children_that_would_be_refused_are_not_even_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[float] = []
    seen = decide(monkeypatch, counted(100, lambda: built.append(now())))
    monkeypatch.setattr(random, "uniform", max)

    async def scenario() -> None:
        memory = Memory(fault=lambda verb, *_: RefusedError("QuotaExceeded", "no") if verb == "create" else None)
        async with running(memory) as controller:
            job = memory.store(make_job())
            for _ in range(50):
                await asyncio.sleep(0.015)
                controller.saw_job(job)
        assert len(seen) > 40
        assert len(built) <= PARALLEL_WRITES + 1

    simulate(scenario())


def test_one_decision_at_a_time_for_each_job(monkeypatch: pytest.MonkeyPatch) -> None:
    decide(monkeypatch, Plan(create=(SERVICE,)))

    async def scenario() -> None:
        memory = Memory(latency=1.0)
        async with running(memory) as controller:
            jobs = [memory.store(make_job(name)) for name in ("a", "b", "c")]
            for _ in range(200):
                for job in jobs:
                    controller.saw_job(job)
                await asyncio.sleep(0.05)
        assert memory.most_under_way == {"a": 1, "b": 1, "c": 1}
        assert all(8 <= len(memory.of("create", name)) <= 11 for name in "abc"), "10 s, one second each"

    simulate(scenario())


def test_again_after_the_time_that_the_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = decide(monkeypatch, Plan(requeue_after=7.0))

    async def scenario() -> None:
        memory = Memory()
        async with running(memory):
            memory.store(make_job())
            await asyncio.sleep(71)
        assert len(seen) == 11

    simulate(scenario())


# What goes wrong


def test_a_conflict_writes_nothing_else_and_the_decision_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(status=ACCEPTED, status_first=True, create=(SERVICE,), events=(EVENT,))
    seen = decide(monkeypatch, plan, plan, Plan(create=(SERVICE,)), Plan())

    async def scenario() -> None:
        memory = Memory(lag=2.0)  # the watch is slow: our first write meets a newer resource
        async with running(memory) as controller:
            controller.saw_job(memory.store(make_job()))
            memory.change_spec(KEY, suspend=True)
            await asyncio.sleep(30)
        assert [write.verb for write in memory.writes] == ["status", "status", "create"]
        assert memory.events == [("digits", EVENT)], "no event of a write that failed"
        assert [job.spec.suspend for job in seen[:2]] == [False, True]

    simulate(scenario())


@pytest.mark.parametrize("error", [ConflictError, GoneError])
@pytest.mark.parametrize("first", [True, False], ids=["first", "not first"])
def test_nothing_is_made_on_a_decision_about_what_is_no_more(
    error: type[Exception], first: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decide(
        monkeypatch, Plan(status=ACCEPTED, status_first=first, create=(SERVICE, POD), delete=(GONE,), events=(EVENT,))
    )

    async def scenario() -> None:
        memory = Memory(fault=fails("status", error=error))
        async with running(memory):
            memory.store(make_job())
            await asyncio.sleep(60)
        assert memory.of("create") == [] == memory.of("delete")
        assert memory.events == []
        assert 1 <= len(memory.of("status")) <= 60 / LAST_RETRY_SECONDS + 1

    simulate(scenario())
    assert caplog.records == [], "neither is worth a line"


def test_a_job_that_is_deleted_in_mid_write() -> None:
    async def scenario() -> None:
        memory = Memory(latency=1.0)
        async with running(memory) as controller:
            memory.store(make_job())
            await eventually(lambda: memory.of("status"), "the first write is under way")
            memory.remove(KEY)
            await asyncio.sleep(60)
            assert memory.of("create") == []
            assert controller._records == {} and controller.desk._rooms == {}

    simulate(scenario())


@pytest.mark.parametrize("about", ["Service", "Pod/broken-worker-0", "Pod"])
def test_a_create_that_fails_is_tried_again_and_other_jobs_go_on(about: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        memory = Memory(fault=fails("create", job="broken", about=about, until=100))
        async with running(memory):
            memory.store(make_job("broken"))
            for name in ("a", "b"):
                memory.store(make_job(name))
            await eventually(lambda: memory.phase("a") == memory.phase("b") == "Succeeded", "the others succeed")
            assert now() < 30
            await asyncio.sleep(100 - now())
            failed = [write for write in memory.of("create", "broken") if about in write.about]
            pauses = [later.at - earlier.at for earlier, later in itertools.pairwise(failed)]
            longer = [pause for pause in pauses if pause > 0.1]
            assert longer == pytest.approx([1, 2, 4, 8, 15, 15, 15, 15, 15][: len(longer)], abs=0.5), failed
            await eventually(lambda: memory.phase("broken") == "Succeeded", "it succeeds as well", memory.phase)
            assert now() < 130
        assert memory.reasons("broken") == ["Accepted", "RoundOpened", "Running", "Succeeded"]

    with caplog.at_level(logging.ERROR):
        simulate(scenario())
    lines = [record.getMessage() for record in caplog.records]
    assert lines and all("team/broken" in line and "tried again in" in line for line in lines)


def test_what_is_told_to_the_workers_does_not_wait_for_a_write_that_fails() -> None:
    """An elastic job goes on with the workers that it has while its other Pod is refused (a quota)."""

    async def scenario() -> None:
        memory = Memory(fault=fails("create", about="worker-2"), steps=30)
        async with running(memory):
            memory.store(make_job(workers=3, minWorkers=2))
            await eventually(lambda: memory.phase() == "Succeeded", "two of three do it", memory.phase)
        attempts = [write for write in memory.of("create") if "worker-2" in write.about]
        assert 1 < len(attempts) < 12, "and the reports that come in all the time don't bring it back each"

    simulate(scenario())


def test_writes_of_a_plan_are_each_seen_to_their_end() -> None:
    """One of three creates fails at once; the next decision waits for the slow ones."""

    async def scenario() -> None:
        memory = Memory(with_launchers=False)
        slow = memory._request

        async def uneven(verb: str, job: TrainingJob, about: str) -> None:
            if verb == "create" and "worker-0" in about and now() < 5:
                raise OSError("refused at once")
            if verb == "create" and "Pod" in about:
                memory.latency = 10.0
            await slow(verb, job, about)
            memory.latency = 0.005

        memory._request = uneven  # type: ignore[method-assign]
        async with running(memory):
            memory.store(make_job(workers=3))
            await eventually(lambda: len(memory.pods.get(KEY, {})) == 3, "all three are there in the end")
        made = [write.about for write in memory.of("create") if "Pod" in write.about]
        assert sorted(made) == sorted(set(made)), "none was asked for twice while it was under way"

    simulate(scenario())


def test_status_writes_that_fail_for_a_while() -> None:
    async def scenario() -> None:
        memory = Memory(fault=fails("status", until=40), steps=20)
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
            failed = [write for write in memory.of("status") if write.at < 40]
            assert 4 <= len(failed) <= 8
        assert memory.reasons() == ["Accepted", "RoundOpened", "Running", "Succeeded"]

    simulate(scenario())


def test_an_outage_in_mid_training_disturbs_nobody() -> None:
    async def scenario() -> None:
        memory = Memory(steps=200)
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            memory.fault = lambda verb, job, about: OSError("away") if 20 < now() < 80 else None
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
        status = memory.jobs[KEY].status
        assert status is not None and status.rendezvous is not None
        assert (status.rendezvous.round, status.restarts) == (1, 0)

    simulate(scenario())


def test_faults_of_every_kind_at_random() -> None:
    """One request in four fails, in one way or another; every job gets there, and each event is emitted once."""
    dice = random.Random(7)

    def fault(verb: str, _job: str, _about: str) -> Exception | None:
        errors: list[Exception | None] = [OSError("reset"), TimeoutError(), RuntimeError("500")]
        errors += [ConflictError()] if verb == "status" else [ValueError("403")]
        return dice.choice(errors) if dice.random() < 0.25 else None

    async def scenario() -> None:
        memory = Memory(fault=fault, lag=0.2, answers=False, steps=20)
        async with running(memory):
            names = [f"job-{number}" for number in range(12)]
            for name in names:
                memory.store(make_job(name))
            await eventually(
                lambda: all(memory.phase(name) == "Succeeded" for name in names),
                "all succeed",
                lambda: [memory.phase(name) for name in names],
            )
        for name in names:
            reasons = memory.reasons(name)
            assert [*dict.fromkeys(reasons)] == reasons and reasons[0] == "Accepted" and reasons[-1] == "Succeeded"
            status = memory.jobs["team", name].status
            assert status is not None and status.restarts == 0
            assert len(memory.pods["team", name]) == 2

    simulate(scenario())


def test_a_decision_that_fails_is_tried_again_at_its_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decide(monkeypatch, ValueError("a bug"), ValueError("a bug"), Plan(create=(SERVICE,)), Plan())

    async def scenario() -> None:
        memory = Memory()
        async with running(memory):
            memory.store(make_job())
            await asyncio.sleep(10)
        (create,) = memory.of("create")
        assert create.at == pytest.approx(3, abs=0.1), "a pause of 1 s, and one of 2 s"

    simulate(scenario())
    assert len(caplog.records) == 2 and all(record.exc_info for record in caplog.records)


def test_a_decision_that_always_fails_does_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decide(monkeypatch, ValueError("a bug"))

    async def scenario() -> None:
        memory = Memory()
        async with running(memory) as controller:
            job = memory.store(make_job())
            for _ in range(600):
                controller.saw_job(job)
                await asyncio.sleep(0.1)

    simulate(scenario())
    assert 4 <= len(caplog.records) <= 9, "a minute, and ten reports a second"


def test_stopped_it_does_not_finish_anything_first() -> None:
    async def scenario() -> None:
        memory = Memory(latency=5.0)
        async with running(memory) as controller:
            memory.store(make_job())
            await eventually(lambda: len(memory.of("create")) == 3, "the Pods are under way")
            await controller.stop()
            began, requests = now(), len(memory.writes)
            assert memory.pods == {}
            await asyncio.sleep(60)
            assert len(memory.writes) == requests and now() > began
        assert memory.pods == {}

    simulate(scenario())


# What a watch tells


def version(job: TrainingJob, number: str) -> TrainingJob:
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"resource_version": number})})


@pytest.mark.parametrize(
    ("held", "told", "taken"),
    [
        ("10", "11", True),
        ("10", "9", False),
        ("10", "10", True),
        ("9", "10", True),
        (None, "1", True),
        ("x", "1", True),
    ],
)
def test_a_watch_that_lags_takes_nothing_back(held: Any, told: str, taken: bool) -> None:
    async def scenario() -> None:
        controller = Controller(Memory())
        controller.saw_job(version(make_job(), held))
        controller.saw_job(version(make_job(workers=5), told))
        assert (controller._records[KEY].job.spec.workers == 5) == taken

    simulate(scenario())


def test_another_job_of_the_same_name_is_another_job() -> None:
    async def scenario() -> None:
        controller = Controller(Memory())
        controller.saw_job(version(make_job(), "10"))
        controller.saw_pod(KEY, Pod(name="p", uid="p", index=0, phase="Running", created_at=SimulatedDatetime.now(UTC)))
        renewed = make_job()
        metadata = renewed.metadata.model_copy(update={"uid": "another", "resource_version": "9"})
        controller.saw_job(renewed.model_copy(update={"metadata": metadata}))
        record = controller._records[KEY]
        assert (record.job.metadata.uid, record.pods) == ("another", {})

    simulate(scenario())


def test_an_answer_that_is_older_than_what_the_watch_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our write is stored, a user changes the spec, the watch tells so, and only then does our answer arrive."""
    seen = decide(monkeypatch, Plan(status=ACCEPTED, status_first=True), Plan())

    async def scenario() -> None:
        memory = Memory()
        store = memory.store

        async def slow_answer(job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
            written = store(job.with_status(status))
            memory.change_spec(KEY, suspend=True)
            await asyncio.sleep(5)
            return written

        memory.write_status = slow_answer  # type: ignore[method-assign]
        async with running(memory):
            memory.store(make_job())
            await asyncio.sleep(30)
        assert [job.spec.suspend for job in seen] == [False] + [True] * (len(seen) - 1)
        assert all(job.status == ACCEPTED for job in seen[1:])

    simulate(scenario())


def test_what_is_told_of_unknown_jobs_is_nobodys() -> None:
    async def scenario() -> None:
        memory = Memory()
        async with running(memory) as controller:
            pod = Pod(name="p", uid="p", index=0, phase="Running", created_at=SimulatedDatetime.now(UTC))
            controller.saw_pod(KEY, pod)
            controller.lost_pod(KEY, "p")
            controller.saw_service(KEY, None)
            controller.lost_job(KEY)
            await asyncio.sleep(5)
            assert controller._records == {}

    simulate(scenario())


def make_report(sequence: int, **fields: Any) -> PollRequest:
    default: dict[str, Any] = {
        "protocol": 1, "job_uid": "uid-of-digits", "pod_uid": "p", "sequence": sequence, "round": 1,
        "state": "running", "address": "10.0.0.1", "next_port": 2000,
        "progress": ProgressReport(step=sequence, reported_at=1.0),
    }  # fmt: skip
    return PollRequest(**(default | fields))


WHO = Identity(namespace="team", job="digits", job_uid="uid-of-digits", pod_uid="p", index=0)


def test_the_last_word_of_a_job_that_is_gone_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        memory = Memory()
        async with running(memory) as controller:
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Running", "it runs")
            memory.remove(KEY)
            await asyncio.sleep(1)
            for sequence in (1, 2, 3):
                assert controller.desk.hear(WHO, make_report(sequence)) is None
            await asyncio.sleep(1)
            assert controller.desk._rooms == {}

    simulate(scenario())


def test_a_thousand_reports_are_two_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = decide(monkeypatch, Plan())

    async def scenario() -> None:
        memory = Memory()
        async with running(memory) as controller:
            memory.store(make_job())
            await asyncio.sleep(1)
            decided = len(seen)
            for sequence in range(1, 1001):
                assert controller.desk.hear(WHO, make_report(sequence)) is None
            await asyncio.sleep(1)
            assert len(seen) == decided + 2  # one on the first word, at once; one on all the progress, a little later

    simulate(scenario())


def test_a_member_that_is_gone_is_remembered_as_long_as_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher said of the round's end counts although its Pod has gone since."""
    decide(monkeypatch, Plan())

    async def scenario() -> None:
        memory = Memory(with_launchers=False)
        async with running(memory) as controller:
            job = memory.store(make_job())
            member = {"index": 0, "podUid": "p"}
            rendezvous = Rendezvous.parse({"round": 1, "members": [member]})
            memory.store(job.with_status(ACCEPTED.model_copy(update={"rendezvous": rendezvous})))
            await asyncio.sleep(1)
            controller.desk.hear(WHO, make_report(1))
            await asyncio.sleep(0.1)
            assert set(controller.desk.launchers(key_of(job))) == {"p"}
            controller.listen_anew()
            assert set(controller.desk.launchers(key_of(job))) == {"p"}, "nobody else will say it again"
            pod = Pod(name="p", uid="p", index=0, phase="Running", created_at=SimulatedDatetime.now(UTC))
            controller.saw_pod(KEY, pod)
            controller.listen_anew()
            assert set(controller.desk.launchers(key_of(job))) == set(), "it lives, and will"

    simulate(scenario())


# What the server does not take


def blocked(memory: Memory) -> str:
    status = memory.jobs[KEY].status
    return next((one.reason for one in status.conditions if one.type == "Blocked"), "") if status else ""


def test_a_refused_child_is_shown_and_tried_again() -> None:
    async def scenario() -> None:
        def fault(verb: str, _job: str, about: str) -> Exception | None:
            hit = verb == "create" and about == "Pod/digits-worker-1" and now() < start + 60
            return RefusedError("QuotaExceeded", "exceeded quota: pods") if hit else None

        start = now()
        memory = Memory(fault=fault)
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: blocked(memory) == "QuotaExceeded", "it is shown")
            await eventually(lambda: not memory.pods[KEY], "the other worker's place is given back")
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds once there is room", memory.phase)
        assert blocked(memory) == "NotBlocked"
        assert 5 <= len([write for write in memory.of("create") if write.about == "Pod/digits-worker-1"]) <= 10
        assert len(memory.of("status")) < 12

    simulate(scenario())


class Held(Memory):
    """Notes from when to when a job has Pods. Seconds."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.spans: list[tuple[float, float]] = []
        """Those that have ended."""
        self._since: float | None = None

    def put_pod(self, key: JobKey, pod: Pod, *, at_once: bool = False) -> None:
        self._since = now() if self._since is None else self._since
        super().put_pod(key, pod, at_once=at_once)

    async def delete(self, job: TrainingJob, target: Delete) -> None:
        await super().delete(job, target)
        if self._since is not None and not self.pods.get(key_of(job)):
            self.spans.append((self._since, now()))
            self._since = None


@pytest.mark.parametrize(("chance", "share"), [(min, 0.5), (max, 1.0)])
def test_half_a_gang_holds_nothing_but_for_moments(monkeypatch: pytest.MonkeyPatch, chance: Any, share: float) -> None:
    """Ten minutes under a quota of three Pods of four: what the attempts hold does not add up to two seconds."""
    monkeypatch.setattr(random, "uniform", chance)

    async def scenario() -> None:
        room = 3
        memory = Held(with_launchers=False)

        def fault(verb: str, _job: str, about: str) -> Exception | None:
            full = verb == "create" and about.startswith("Pod/") and len(memory.pods.get(KEY, {})) >= room
            return RefusedError("QuotaExceeded", f"exceeded quota: {about}") if full else None

        memory.fault = fault
        async with running(memory):
            memory.store(make_job(workers=4, storage={"claimName": "checkpoints"}))
            await asyncio.sleep(600)
            assert blocked(memory) == "QuotaExceeded"
            attempts = [write for write in memory.of("create") if write.about == "Pod/digits-worker-0"]
            assert 600 / (30 * share + 1) < len(attempts) < 600 / (30 * share - 1) + 6
            assert len(attempts) - 1 <= len(memory.spans) <= len(attempts), "each holds something, and gives it back"
            times = [end - begin for begin, end in memory.spans]
            assert (sum(times) < 2, max(times) < 0.2) == (True, True), (sum(times), max(times))
            assert not memory.pods.get(KEY), "nothing is held now"
            written = len(memory.of("status"))
            assert written < 6 + 600 / 60, "other words for the same are written once in a while"
            assert memory.reasons().count("QuotaExceeded") == 1
            room = 4
            await eventually(lambda: len(memory.pods.get(KEY, {})) == 4, "all are made once there is room")

    simulate(scenario())


class Slow(Memory):
    """Pods are gone two seconds after they were deleted."""

    async def delete(self, job: TrainingJob, target: Delete) -> None:
        key = key_of(job)
        pod = self.pods.get(key, {}).get(target.uid)
        if target.kind == "Pod" and pod is not None:
            self.put_pod(key, replace(pod, terminating=True))
            await asyncio.sleep(2)
        await super().delete(job, target)


def test_two_jobs_that_wait_for_the_same_room_do_not_keep_each_other_out() -> None:
    """Both lose a worker, and there is room for two. The first job gives back what it gets, as it needs two, and tries
    anew: not each time just before the second looks, which needs one more."""

    async def scenario() -> None:
        memory = Slow(steps=1000)
        full = False

        def fault(verb: str, _job: str, about: str) -> Exception | None:
            there = sum(not pod.dead for pods in memory.pods.values() for pod in pods.values())
            hit = full and verb == "create" and about.startswith("Pod/") and there >= 2
            return RefusedError("QuotaExceeded", "exceeded quota: pods") if hit else None

        memory.fault = fault
        async with running(memory):
            memory.store(make_job("first", storage={"claimName": "checkpoints"}))
            memory.store(make_job())
            for name in ("first", "digits"):
                await eventually(lambda name=name: memory.phase(name) == "Running", "it runs")  # type: ignore[misc]
            full = True
            for launcher in memory.launchers:
                launcher.cancel()
            for name in ("first", "digits"):
                pod = next(pod for pod in memory.pods["team", name].values() if pod.index == 1)
                memory.put_pod(("team", name), replace(pod, phase="Failed", termination=Termination(exit_code=137)))
                await asyncio.sleep(1.2)  # so that by the clock alone it would be each time
            await eventually(lambda: not memory.pods["team", "first"], "the first gives back what it holds")
            await eventually(
                lambda: sum(not pod.dead for pod in memory.pods[KEY].values()) == 2, "the second gets what it needs"
            )

    simulate(scenario())


class Nodes(Slow):
    """A scheduler with so many nodes, each of which has room for one worker: who waits longest gets the next one."""

    def __init__(self, nodes: int, **more: Any) -> None:
        super().__init__(**more)
        self.names = [f"node-{number}" for number in range(nodes)]

    def _start(self, job: TrainingJob, name: str, index: int) -> None:
        self._made += 1
        moment = SimulatedDatetime.now(UTC)
        pod = Pod(name=name, uid=f"{name}-{self._made}", index=index, phase="Pending", created_at=moment)
        self.put_pod(key_of(job), replace(pod, blocked=("Unschedulable", "0/4 nodes are available")), at_once=True)
        self.schedule()

    async def delete(self, job: TrainingJob, target: Delete) -> None:
        await super().delete(job, target)
        self.schedule()

    def put_pod(self, key: JobKey, pod: Pod, *, at_once: bool = False) -> None:
        super().put_pod(key, pod, at_once=at_once)
        if pod.dead:
            self.schedule()

    def schedule(self, job: str = "") -> None:
        """Find nodes for the workers of one job, or of all."""
        pods = [(key, pod) for key, own in self.pods.items() for pod in own.values() if not pod.dead]
        free = set(self.names) - {pod.node for _, pod in pods}
        waiting = sorted((pod.created_at, key, pod.uid) for key, pod in pods if not pod.node and not pod.terminating)
        waiting = [one for one in waiting if job in ("", one[1][1])]
        for (_, key, uid), node in zip(waiting, sorted(free), strict=False):
            found = replace(self.pods[key][uid], node=node, blocked=None, phase="Running")
            found = replace(found, running_since=SimulatedDatetime.now(UTC))
            self.put_pod(key, found)
            self.launchers.append(asyncio.create_task(self._play(self.jobs[key], found)))

    def holds(self, name: str) -> int:
        return sum(bool(pod.node) and not pod.dead for pod in self.pods.get(("team", name), {}).values())


@pytest.mark.parametrize("jobs", [2, 3])
def test_jobs_that_each_hold_a_part_of_the_nodes_run_one_after_the_other(jobs: int) -> None:
    """Four nodes, jobs of four workers, and each has got some of the nodes: nobody could ever train."""
    names = ["first", "second", "third"][:jobs]

    async def scenario() -> None:
        memory = Nodes(0)
        async with running(memory):
            for name in names:
                memory.store(make_job(name, workers=4))
                await eventually(lambda name=name: len(memory.pods.get(("team", name), {})) == 4, "all Pods are made")  # type: ignore[misc]
            for number in range(4):
                memory.names.append(f"node-{number}")
                memory.schedule(names[number % jobs])
            held = {2: [2, 2], 3: [2, 1, 1]}[jobs]
            assert [memory.holds(name) for name in names] == held
            await asyncio.sleep(250)
            assert [memory.holds(name) for name in names] == held, "there may yet be more nodes"
            began = now()
            for name in names:
                done = partial(memory.phase, name)
                await eventually_within(1800, lambda done=done: done() == "Succeeded", f"{name} succeeds", done)  # type: ignore[misc]
            assert now() - began < 1500
        for name in names:
            status = memory.jobs["team", name].status
            assert status is not None
            assert (status.restarts, status.last_failure) == (0, None)
            assert memory.reasons(name).count("Unschedulable") < 6

    simulate(scenario())


@pytest.mark.parametrize("seconds", [10, 100])
def test_a_short_refusal_costs_no_worker_that_has_trained_its_place(seconds: int) -> None:
    async def scenario() -> None:
        memory = Memory(steps=1000)
        full = False

        def fault(verb: str, _job: str, about: str) -> Exception | None:
            hit = full and verb == "create" and about.startswith("Pod/") and now() < lost + seconds
            return RefusedError("QuotaExceeded", "exceeded quota: pods") if hit else None

        memory.fault = fault
        async with running(memory):
            memory.store(make_job(workers=3, storage={"claimName": "checkpoints"}))
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            full, lost = True, now()
            place, pod = next(enumerate(memory.pods[KEY].values()))
            memory.launchers[place].cancel()
            memory.put_pod(KEY, replace(pod, phase="Failed", termination=Termination(exit_code=137)))
            await asyncio.sleep(40)
            given = [write.at - lost for write in memory.of("delete") if write.about != f"Pod/{pod.name}"]
            assert given == pytest.approx([30.0, 30.0] if seconds > 40 else [], abs=0.5)
            assert memory.phase() == ("Recovering" if seconds > 40 else "Running")

    simulate(scenario())


def test_a_remedy_in_the_spec_is_tried_at_once() -> None:
    async def scenario() -> None:
        memory = Memory(with_launchers=False)

        def fault(verb: str, _job: str, about: str) -> Exception | None:
            full = verb == "create" and about.startswith("Pod/") and len(memory.pods.get(KEY, {})) >= 2
            return RefusedError("QuotaExceeded", "exceeded quota") if full else None

        memory.fault = fault
        async with running(memory):
            memory.store(make_job(workers=3))
            await asyncio.sleep(100)
            asked = now()
            memory.change_spec(KEY, workers=2)
            await eventually(lambda: len(memory.pods[KEY]) == 2 and blocked(memory) == "NotBlocked", "it goes on")
            assert now() - asked < 1

    simulate(scenario())


def test_a_stop_does_not_wait_for_a_start_that_fails_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        memory = Memory(fault=fails("create", about="Pod", error=UnstartedError))
        async with running(memory):
            memory.store(make_job())
            await asyncio.sleep(40)
            asked = now()
            memory.change_spec(KEY, suspend=True)
            await eventually(lambda: memory.phase() == "Suspended", "it is suspended", memory.phase)
            assert now() - asked < 1

    simulate(scenario())
    assert caplog.messages[0] == "team/digits: the API server is away; it is tried again in 1 s"


@pytest.mark.parametrize("least", [None, 1])
def test_behind_a_refused_worker_only_an_elastic_job_tries_the_others(least: int | None) -> None:
    """Of pools that are unlike, the second may find the room that the first does not."""

    async def scenario() -> None:
        def fault(verb: str, _job: str, about: str) -> Exception | None:
            hit = verb == "create" and about == "Pod/digits-worker-0"
            return RefusedError("QuotaExceeded", "exceeded quota: GPUs") if hit else None

        memory = Memory(fault=fault, with_launchers=False)
        async with running(memory):
            memory.store(make_job(workers=40, minWorkers=least))
            await eventually(lambda: blocked(memory) == "QuotaExceeded", "it is shown")
            await asyncio.sleep(1)
            assert len(memory.pods[KEY]) == (39 if least else 0)
            tried = {write.about for write in memory.of("create")} - {"Service/digits"}
            assert (len(tried) == 40) is (least is not None)

    simulate(scenario())


def test_a_refused_child_holds_up_nothing_else() -> None:
    """An elastic job whose last worker does not fit the quota goes through its rounds as quickly as any other."""

    async def scenario() -> None:
        def fault(verb: str, _job: str, about: str) -> Exception | None:
            hit = verb == "create" and about == "Pod/digits-worker-2"
            return RefusedError("QuotaExceeded", "exceeded quota: pods") if hit else None

        memory = Memory(fault=fault, steps=1000)
        async with running(memory):
            memory.store(make_job(workers=3, minWorkers=1))
            await eventually(lambda: memory.phase() == "Running", "two of three run", memory.phase)
            await asyncio.sleep(100)
            asked = now()
            memory.change_spec(KEY, suspend=True)
            await eventually(lambda: memory.phase() == "Suspended", "it is suspended", memory.phase)
            assert now() - asked < 5

    simulate(scenario())


def test_a_service_that_is_refused_comes_before_the_pods_all_the_same() -> None:
    async def scenario() -> None:
        def fault(verb: str, _job: str, about: str) -> Exception | None:
            hit = verb == "create" and about == "Service/digits" and now() < start + 20
            return RefusedError("AdmissionDenied", "no Services here") if hit else None

        start = now()
        memory = Memory(fault=fault)
        async with running(memory):
            memory.store(make_job())
            await eventually(lambda: blocked(memory) == "AdmissionDenied", "it is shown")
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)

    simulate(scenario())


@pytest.mark.parametrize("about", ["ConfigMap", "Service", "Pod/digits-worker-2"])
def test_a_child_that_is_put_off_holds_up_no_other_write(about: str, caplog: pytest.LogCaptureFixture) -> None:
    """What goes by itself is no reason to be blocked; the files come before the Service all the same."""

    async def scenario() -> None:
        def fault(verb: str, _job: str, its_about: str) -> Exception | None:
            hit = verb == "create" and about in its_about and now() < start + 9.5
            return LaterError(1.0, "it is left of an earlier job") if hit else None

        start = now()
        memory = Memory(fault=fault)
        async with running(memory):
            program = {"command": ["python", "train.py"], "files": {"a.py": "1"}}
            memory.store(make_job(workers=3, minWorkers=1, program=program))
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
        made = [write for write in memory.of("create") if about in write.about]
        again = [10] if about == "ConfigMap" else []  # beside the Pods
        assert [write.at - start for write in made] == pytest.approx([*range(11), *again], abs=0.3)
        others = [write.at - start for write in memory.of("create") if write not in made]
        if about == "ConfigMap":
            assert min(others) > 9
        assert blocked(memory) == "NotBlocked"
        assert memory.reasons() == ["Accepted", "RoundOpened", "Running", "Succeeded"]

    with caplog.at_level(logging.INFO, logger="edgecloud_operator.controller.children"):
        simulate(scenario())
    lines = [one.getMessage() for one in caplog.records if one.name.endswith("children")]
    assert lines == 4 * ["team/digits: a child is made in 1.0 s: it is left of an earlier job"]


def test_a_write_that_is_denied_is_a_line_now_and_then_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        memory = Memory(fault=fails("status", until=now() + 3600, error=DeniedError))
        async with running(memory):
            memory.store(make_job())
            await asyncio.sleep(3600)
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds once it is allowed", memory.phase)

    simulate(scenario(), within=7200)
    assert 2 <= len(caplog.records) <= 9
    assert all(record.levelname == "ERROR" and record.exc_info is None for record in caplog.records)
    assert caplog.messages[0] == "team/digits: the API server is away; it is tried again in 1 s"


def test_a_write_whose_turn_comes_later_is_made_then_with_what_is_true_then() -> None:
    async def scenario() -> None:
        allowed = 0.0

        def fault(verb: str, _job: str, _about: str) -> Exception | None:
            return LaterError(allowed - now()) if verb == "status" and now() < allowed else None

        memory = Memory(fault=fault, steps=100)
        async with running(memory):
            allowed = now() + 2.0
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Running", "it runs", memory.phase)
            assert now() >= allowed
            tries = len(memory.of("status"))
            assert tries < 10
            allowed = now() + 40.0
            await asyncio.sleep(39)
            old = memory.jobs[KEY].status
            await eventually(lambda: memory.jobs[KEY].status != old, "the newest progress is written")
            status = memory.jobs[KEY].status
            assert status and status.progress and (status.progress.step or 0) > 50
            assert now() < allowed + 12

    simulate(scenario())


def test_an_outage_of_hours_ends_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Attempts are counted; their number must not break the arithmetic of the pauses."""
    caplog.set_level(logging.CRITICAL)

    async def scenario() -> None:
        start = now()
        memory = Memory(fault=fails("status", until=start + 10 * 3600))
        async with running(memory):
            memory.store(make_job())
            while now() < start + 10 * 3600:  # noqa: ASYNC110 - simulated time
                await asyncio.sleep(60)
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)

    simulate(scenario(), within=12 * 3600)
