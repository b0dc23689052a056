"""What the control loop tells of itself: to whoever counts, in the log, and to the probe; in simulated time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud_operator.controller.cluster import ConflictError
from edgecloud_operator.controller.controller import Controller
from edgecloud_operator.controller.meter import Result
from edgecloud_operator.controller.workqueue import Backlog
from edgecloud_operator.core.measures import Measures
from edgecloud_operator.kube.client import REQUEST_SECONDS
from edgecloud_operator.kube.informer import Looked
from edgecloud_operator.kube.vitals import STUCK_SECONDS, ailment
from edgecloud_operator.subject import Subject, subject
from tests.unit.controller.memory import Memory, make_job
from tests.unit.controller.simulated import now, simulate
from tests.unit.controller.test_controller import KEY, eventually, fails, running

pytestmark = pytest.mark.usefixtures("simulated")
HANGS = 10.0**9


@dataclass
class Counted:
    """A meter that keeps what it is told."""

    results: list[tuple[Result, float]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    changes: list[Measures] = field(default_factory=list)

    def reconciled(self, result: Result, seconds: float) -> None:
        self.results.append((result, seconds))

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def changed(self, measures: Measures) -> None:
        self.changes.append(measures)


def test_a_jobs_life_is_counted() -> None:
    counted = Counted()

    async def scenario() -> None:
        memory = Memory()
        async with running(memory, meter=counted, clock=now) as controller:
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
            assert controller.census().jobs["Succeeded"] == 1
            memory.remove(KEY)
            await eventually(lambda: controller.census().jobs["Succeeded"] == 0, "it is forgotten")

    simulate(scenario())
    assert [one.round for one in counted.changes if one.round] == ["first"]
    assert [one.finished for one in counted.changes if one.finished] == ["Succeeded"]
    assert len([one for one in counted.changes if one.started_after is not None]) == 1
    assert {result for result, _ in counted.results} == {"ok"}
    assert any(seconds >= 0.005 for _, seconds in counted.results), "a write takes as long as that"
    assert len(counted.waits) >= len(counted.results)


@pytest.mark.parametrize(("error", "result"), [(ConflictError, "conflict"), (OSError, "error")])
def test_what_fails_is_counted_as_that(error: type[Exception], result: str) -> None:
    counted = Counted()

    async def scenario() -> Memory:
        memory = Memory(fault=fails("status", until=10, error=error))
        async with running(memory, meter=counted, clock=now):
            memory.store(make_job())
            await eventually(lambda: memory.phase() == "Succeeded", "it succeeds", memory.phase)
        return memory

    memory = simulate(scenario())
    assert {one for one, _ in counted.results} == {"ok", result}
    succeeded = [write for write in memory.of("status") if write.at + memory.latency >= 10]
    assert 0 < len(succeeded) < len(memory.of("status"))
    assert len(counted.changes) == len(succeeded), "what was not written has not happened"


# The log


class Lines(logging.Handler):
    """Keeps each line with what it is about, as a formatter would see it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[str, Subject | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), subject()))


@pytest.fixture
def lines() -> Any:
    handler, logger = Lines(), logging.getLogger("edgecloud_operator")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_every_line_about_a_job_carries_its_name_and_round(lines: list[tuple[str, Subject | None]]) -> None:
    class Chatty(Memory):
        """A server whose client logs each write."""

        async def _request(self, verb: str, job: TrainingJob, about: str) -> None:
            await super()._request(verb, job, about)
            logging.getLogger("edgecloud_operator.test").info("%s of %s", verb, job.metadata.name)

    async def scenario() -> None:
        memory = Chatty(fault=fails("create", job="other", about="Pod", until=3))
        async with running(memory):
            memory.store(make_job())
            memory.store(make_job("other"))
            for name in ("digits", "other"):
                await eventually(lambda name=name: memory.phase(name) == "Succeeded", name)  # type: ignore[misc]

    simulate(scenario())
    assert all(about is not None for _, about in lines)
    for text, about in lines:
        assert about is not None
        if " of " in text and "status of" not in text:
            assert about.job == f"team/{text.rpartition(' of ')[2]}", text
    told = [(text, about.round) for text, about in lines if about and about.job == "team/digits" and " of " not in text]
    assert told == [
        ("phase Pending", 0),
        ("round 1 opened with 2 workers: first", 1),
        ("phase Pending -> Starting", 1),
        ("phase Starting -> Running", 1),
        ("phase Running -> Succeeded", 1),
    ]
    assert any("failed" in text and about and about.job == "team/other" for text, about in lines)
    assert subject() is None


# The probe


class Hanging(Memory):
    """A server whose client forgets its time limit: a write of one job's status never comes back."""

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        if job.metadata.name == "stuck":
            await asyncio.sleep(HANGS)
        return await super().write_status(job, status)


def test_a_write_that_never_ends_is_an_ailment() -> None:
    async def scenario() -> None:
        memory = Hanging()
        async with running(memory, clock=now) as controller:
            memory.store(make_job("stuck"))
            memory.store(make_job())
            await asyncio.sleep(STUCK_SECONDS - 10)
            assert ailment(controller.backlog(), Looked()) is None
            assert memory.phase() == "Succeeded", "the others go on"
            await asyncio.sleep(20)
            assert "without a write's having ended" in str(ailment(controller.backlog(), Looked()))

    simulate(scenario())


def test_keys_that_nobody_takes_are_an_ailment() -> None:
    async def scenario() -> None:
        memory = Memory()
        async with running(memory, clock=now) as controller:
            for task in controller._tasks:  # as if each had come upon something that nobody thought of
                task.cancel()
            await asyncio.sleep(1)
            memory.store(make_job())
            await asyncio.sleep(STUCK_SECONDS - 10)
            assert ailment(controller.backlog(), Looked()) is None
            await asyncio.sleep(20)
            assert "1 jobs wait" in str(ailment(controller.backlog(), Looked()))

    simulate(scenario())


class Away(Memory):
    """A server from which, after a while, no answer comes any more; to Pods none ever came."""

    given_up: int = 0

    async def _request(self, verb: str, job: TrainingJob, about: str) -> None:
        if now() < 100 and not about.startswith("Pod/"):
            await super()._request(verb, job, about)
            return
        await asyncio.sleep(REQUEST_SECONDS)
        self.given_up += 1
        raise TimeoutError("no answer")


def test_a_replica_that_stands_by_is_well() -> None:
    """It sees the jobs and decides on none; when its turn comes, nobody has waited for it."""
    counted = Counted()

    async def scenario() -> None:
        memory = Memory()
        controller = memory.controller = Controller(memory, meter=counted, clock=now)
        for number in range(50):
            memory.store(make_job(f"job-{number}"))
        await asyncio.sleep(3600)
        assert controller.backlog() == Backlog(depth=50)
        assert ailment(controller.backlog(), Looked()) is None
        await controller.start()
        assert ailment(controller.backlog(), Looked()) is None
        await eventually(lambda: memory.phase("job-49") != "-", "it is decided on")
        await controller.stop()
        for task in memory.launchers:
            task.cancel()
        await asyncio.gather(*memory.launchers, return_exceptions=True)

    simulate(scenario(), within=1e5)
    assert max(counted.waits) < 10


def test_a_server_that_hangs_is_none() -> None:
    """Two hundred jobs wait, and one has a thousand Pods to make: all in all for ever, but requests are given up."""

    async def scenario() -> None:
        memory = Away(with_launchers=False)
        async with running(memory, clock=now) as controller:
            await asyncio.sleep(90)
            memory.store(make_job("large", workers=1000))
            await asyncio.sleep(STUCK_SECONDS)
            assert 100 < memory.given_up < 1000, "it is being worked on all the time"
            for number in range(200):
                memory.store(make_job(f"job-{number}"))
            waited = 0.0
            for _ in range(200):
                await asyncio.sleep(10)
                waited = max(waited, controller.backlog().oldest)
                assert ailment(controller.backlog(), Looked()) is None
            assert waited > STUCK_SECONDS, "they did wait"
            assert memory.given_up > 1000

    simulate(scenario(), within=1e5)
