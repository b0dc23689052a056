"""A key stands once, is worked on by one at a time, and comes back when it was added meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud_operator.controller.workqueue import Backlog, WorkQueue
from tests.unit.controller.simulated import now, simulate


async def drained(queue: WorkQueue[str]) -> list[str]:
    """Every key that is there now, each seen to before the next."""
    keys = []
    while True:
        try:
            async with asyncio.timeout(0):
                key = await queue.get()
        except TimeoutError:
            return keys
        keys.append(key)
        queue.done(key)


def test_in_the_order_in_which_they_came() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in "abcab":
            queue.add(key)
        assert await drained(queue) == ["a", "b", "c"]
        assert await drained(queue) == []

    simulate(scenario())


def test_what_is_added_while_it_is_worked_on_comes_again() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("a")
        queue.add("b")
        assert await drained(queue) == ["b"], "nobody else gets it meanwhile"
        queue.done("a")
        assert await drained(queue) == ["a"], "once, however often it was added"

    simulate(scenario())


def test_who_waits_gets_the_next() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        for key in "ab":
            queue.add(key)
        done, _ = await asyncio.wait(waiting, timeout=1)
        assert sorted(task.result() for task in done) == ["a", "b"]
        for task in waiting:
            task.cancel()

    simulate(scenario())


def test_one_that_stops_waiting_takes_nothing_with_it() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await drained(queue) == ["a"]

    simulate(scenario())


@pytest.mark.parametrize(
    ("delays", "times"),
    [((5.0,), [5]), ((5.0, 2.0), [2]), ((2.0, 5.0), [2]), ((2.0, 2.0), [2]), ((0.0,), [0]), ((-1.0, 3.0), [0])],
)
def test_the_shortest_delay_wins(delays: tuple[float, ...], times: list[float]) -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for delay in delays:
            queue.add_after("a", delay)
        found = []
        while now() < 20:
            try:
                async with asyncio.timeout_at(20):
                    key = await queue.get()
            except TimeoutError:
                break
            found.append(round(now(), 3))
            queue.done(key)
        assert found == times

    simulate(scenario())


def test_after_a_delay_there_can_be_another() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for at in (3.0, 6.0, 9.0):
            queue.add_after("a", 3.0)
            assert await queue.get() == "a"
            assert now() == pytest.approx(at)
            queue.done("a")

    simulate(scenario())


@pytest.mark.parametrize("how", ["forget", "close"])
def test_a_delay_that_is_dropped(how: str) -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 1.0)
        queue.forget("a") if how == "forget" else queue.close()
        await asyncio.sleep(5)
        assert await drained(queue) == []

    simulate(scenario())


# Any sequence of words


@dataclass
class Model:
    """What the queue should be, in the plainest way."""

    ready: list[str] = field(default_factory=list)
    again: set[str] = field(default_factory=set)
    working: set[str] = field(default_factory=set)
    due: dict[str, float] = field(default_factory=dict)

    def add(self, key: str) -> None:
        if key in self.working:
            self.again.add(key)
        elif key not in self.ready:
            self.ready.append(key)

    def done(self, key: str) -> None:
        self.working.discard(key)
        if key in self.again:
            self.again.discard(key)
            self.ready.append(key)

    def pass_time(self, until: float) -> None:
        for key, at in sorted(self.due.items(), key=lambda entry: entry[1]):
            if at <= until:
                del self.due[key]
                self.add(key)


KEYS = st.sampled_from("abc")
WORDS = st.one_of(
    st.tuples(st.just("add"), KEYS),
    st.tuples(st.just("get")),
    st.tuples(st.just("done"), KEYS),
    st.tuples(st.just("after"), KEYS, st.integers(0, 40).map(lambda tenths: tenths + 0.25)),
    st.tuples(st.just("forget"), KEYS),
    st.tuples(st.just("sleep"), st.integers(0, 30).map(float)),
)


async def compare(words: list[tuple[Any, ...]]) -> None:
    queue: WorkQueue[str] = WorkQueue()
    model = Model()
    for place, (word, *rest) in enumerate(words):
        if word == "add":
            queue.add(rest[0])
            model.add(rest[0])
        elif word == "get":
            try:
                async with asyncio.timeout(0):
                    key = await queue.get()
            except TimeoutError:
                assert model.ready == []
            else:
                assert key == model.ready.pop(0)
                model.working.add(key)
        elif word == "done" and rest[0] in model.working:
            queue.done(rest[0])
            model.done(rest[0])
        elif word == "after":
            delay = rest[1] + place / 1000  # no two at the same moment: their order is nobody's concern
            queue.add_after(rest[0], delay)
            model.due[rest[0]] = min(model.due.get(rest[0], 1e9), now() + delay)
        elif word == "forget":
            queue.forget(rest[0])
            model.due.pop(rest[0], None)
        elif word == "sleep":
            await asyncio.sleep(rest[0])
            model.pass_time(now())
    for key in list(model.working):
        queue.done(key)
        model.done(key)
    await asyncio.sleep(1000)
    model.pass_time(now())
    assert await drained(queue) == model.ready
    queue.close()


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=30))
def test_against_a_model(words: list[tuple[Any, ...]]) -> None:
    work: Coroutine[Any, Any, None] = compare(words)
    simulate(work, within=1e7)


# How it stands


def test_how_long_keys_wait_and_are_worked_on() -> None:
    async def scenario() -> None:
        waits: list[float] = []
        queue: WorkQueue[str] = WorkQueue(clock=now, on_wait=waits.append)
        assert queue.backlog() == Backlog()
        await asyncio.sleep(100)
        assert queue.backlog() == Backlog(), "where nobody waits nothing is idle"
        queue.add("a")
        await asyncio.sleep(3)
        queue.add("b")
        queue.add("a")
        await asyncio.sleep(4)
        assert queue.backlog() == Backlog(depth=2, oldest=7, idle=7)
        assert await queue.get() == "a"
        queue.add("a")
        await asyncio.sleep(5)
        assert queue.backlog() == Backlog(depth=1, oldest=9, idle=5, stuck=5), "one in work does not wait"
        queue.move("a")
        queue.move("b")
        await asyncio.sleep(2)
        assert queue.backlog() == Backlog(depth=1, oldest=11, idle=2, stuck=2)
        queue.done("a")
        await asyncio.sleep(1)
        assert queue.backlog() == Backlog(depth=2, oldest=12, idle=1)
        assert await drained(queue) == ["b", "a"]
        assert waits == [7, 12, 1]
        assert queue.backlog() == Backlog()

    simulate(scenario())
