"""Polls that are kept back: answered as soon as there is news, at the end of their time, or when a newer one comes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from edgecloud.protocol import Directive
from edgecloud_operator.coordinator import desk
from tests.unit.coordinator.served import (
    Answer,
    Served,
    eventually,
    finish,
    identity,
    knows,
    report,
    run_directive,
    serving,
    soon,
)

A, B, OTHER = identity("digits", 0), identity("digits", 1), identity("other", 0)
WAIT, RUN = Directive(action="wait", round=1), run_directive(1)
LONG = 10.0
"""A hold that no test waits for."""


async def held(served: Served, who: Any = A, **fields: Any) -> asyncio.Task[Answer]:
    """A poll that has arrived and is being kept back."""
    before = last_heard(served, who)
    task = asyncio.create_task(served.poll(who, **({"hold": LONG} | fields)))
    await eventually(lambda: last_heard(served, who) > before, "the poll arrives")
    return task


def last_heard(served: Served, who: Any = A) -> int:
    """Sequence of a worker's newest poll that was taken up."""
    launcher = served.desk.launchers((who.namespace, who.job)).get(who.pod_uid)
    return launcher.report.sequence if launcher else 0


def test_news_is_told_at_once() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            poll = await held(served, **knows(WAIT))
            served.publish(A, RUN)
            answer = await soon(poll)
            assert (answer.status, answer.body["action"], answer.body["round"]) == (200, "run", 1)
            assert answer.body["run"]["masterAddress"] == "10.0.0.1"
            assert answer.seconds < LONG / 2

    finish(scenario())


def test_without_news_it_is_held_to_the_end() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            answer = await served.poll(A, hold=0.3, **knows(WAIT))
            assert answer.status == 200 and answer.body["action"] == "wait"
            assert 0.3 <= answer.seconds < LONG / 2

    finish(scenario())


def test_the_same_directive_again_is_no_news() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, RUN)
            poll = await held(served, **knows(RUN))
            for _ in range(3):
                served.publish(A, RUN)
                served.publish(B, WAIT)
                served.publish(OTHER, WAIT)
            done, _ = await asyncio.wait({poll}, timeout=0.2)
            assert not done
            served.publish(A, WAIT)
            assert (await soon(poll)).body["action"] == "wait"

    finish(scenario())


def test_a_changed_order_for_the_round_that_is_known_is_no_news() -> None:
    """Whoever runs in the round has what it needs; a new address comes with a new round."""

    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, RUN)
            answer = asyncio.create_task(served.poll(A, hold=0.3, **knows(RUN)))
            await eventually(lambda: served.reported, "the poll arrives")
            served.publish(A, RUN.model_copy(update={"report_seconds": 5.0}))
            assert (await soon(answer)).seconds >= 0.3
            assert answer.result().body["reportSeconds"] == 5.0

    finish(scenario())


@pytest.mark.parametrize("ack", [{}, knows(WAIT), {"ack": {"action": "run", "round": 0}}])
def test_what_is_not_acknowledged_is_told_at_once(ack: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, RUN)
            answer = await soon(served.poll(A, hold=LONG, **ack))
            assert answer.body["action"] == "run" and answer.seconds < LONG / 2

    finish(scenario())


def test_without_hold_the_answer_is_there_at_once() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            poll = await held(served, **knows(WAIT))
            answer = await soon(served.poll(A, **knows(WAIT)))
            assert answer.body["action"] == "wait" and answer.seconds < LONG / 2
            assert not poll.done(), "a report beside it leaves the open poll as it is"
            served.publish(A, RUN)
            assert (await soon(poll)).body["action"] == "run"

    finish(scenario())


@pytest.mark.parametrize("newer_knows", [True, False])
def test_a_newer_poll_takes_the_place_of_an_older(newer_knows: bool) -> None:
    """A launcher waits in one poll at a time: whoever asks in the older one has hung up, or is a zombie."""

    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            older = await held(served, **knows(WAIT))
            newer = await held(served, **(knows(WAIT) if newer_knows else {}))
            answer = await soon(older)
            assert answer.status == 200 and answer.body["action"] == "wait"
            assert answer.seconds < LONG / 2
            if newer_knows:
                assert not newer.done()
                served.publish(A, RUN)
                assert (await soon(newer)).body["action"] == "run"
            else:
                assert (await soon(newer)).body["action"] == "wait"

    finish(scenario())


def test_of_many_polls_of_one_worker_the_newest_is_open() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            polls = [await held(served, **knows(WAIT)) for _ in range(10)]
            beside = await held(served, B, **{})
            answers = await soon(asyncio.gather(*polls[:-1]))
            assert all(answer.status == 200 and answer.seconds < LONG / 2 for answer in answers)
            assert not polls[-1].done() and not beside.done()
            served.publish(A, RUN)
            served.publish(B, WAIT)
            assert (await soon(polls[-1])).body["action"] == "run"
            assert (await soon(beside)).body["action"] == "wait"

    finish(scenario())


# The first word


@pytest.mark.parametrize("hold", [0, LONG])
def test_the_first_word_is_waited_for(hold: float) -> None:
    """What a worker reports first is decided on at once; its answer says what was decided."""

    async def scenario() -> None:
        async with serving() as served:
            poll = asyncio.create_task(served.poll(A, hold=hold))
            await eventually(lambda: served.reported == [("team", "digits")], "the poll arrives")
            served.publish(A, RUN)
            answer = await soon(poll)
            assert (answer.status, answer.body["action"]) == (200, "run")

    finish(scenario())


@pytest.mark.parametrize("hold", [0, 0.3])
def test_when_nothing_is_decided_it_is_not_ready(hold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "FIRST_WORD_SECONDS", 0.2)

    async def scenario() -> None:
        async with serving() as served:
            answer = await served.poll(A, hold=hold)
            assert (answer.status, answer.reason) == (503, "not-ready")
            assert max(0.2, hold) <= answer.seconds < LONG / 2
            assert served.desk.refused == {"not-ready": 1}
            assert A.pod_uid in served.desk.launchers(("team", "digits")), "it was heard all the same"

    finish(scenario())


def test_a_row_of_polls_does_not_make_the_first_word_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "FIRST_WORD_SECONDS", 0.5)

    async def scenario() -> None:
        async with serving() as served:
            first = asyncio.create_task(served.poll(A))
            await eventually(lambda: served.reported, "the poll arrives")
            others = []
            while not first.done():
                others.append(await held(served, hold=0.2))
                await asyncio.wait({first}, timeout=0.05)
            assert first.result().status == 503 and first.result().seconds < LONG / 2
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    finish(scenario())


# What is forgotten


def test_a_pod_that_is_gone_is_forgotten() -> None:
    async def scenario() -> None:
        async with serving() as served:
            key = ("team", "digits")
            for who in (A, B):
                served.publish(who, WAIT)
            polls = [await held(served, who, **knows(WAIT)) for who in (A, B)]
            served.desk.keep_only(key, {B.pod_uid})
            assert set(served.desk.launchers(key)) == {B.pod_uid}
            answer = await soon(polls[0])
            assert (answer.status, answer.reason) == (503, "not-ready")
            assert not polls[1].done()
            served.publish(B, RUN)
            assert (await soon(polls[1])).body["action"] == "run"

    finish(scenario())


def test_nothing_is_kept_of_a_job_that_is_gone() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            served.publish(OTHER, WAIT)
            poll = await held(served, **knows(WAIT))
            served.desk.forget(("team", "digits"))
            assert (await soon(poll)).status == 503
            assert served.desk.launchers(("team", "digits")) == {}
            assert set(served.desk._rooms) == {("team", "other")}

    finish(scenario())


def test_waiting_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "FIRST_WORD_SECONDS", 0.05)

    async def scenario() -> None:
        async with serving() as served:
            key = ("team", "digits")
            for hold in (0, 0.1):
                assert (await served.poll(A, hold=hold)).status == 503
            served.desk.keep_only(key, ())
            room = served.desk._rooms[key]
            assert (room.launchers, room.directives, room.changed, room.holding) == ({}, {}, {}, {})

    finish(scenario())


def test_a_finished_job_is_reported_once_for_each_worker() -> None:
    """What its launchers go on to say changes nothing any more; each is heard once, to be sent home."""

    async def scenario() -> None:
        async with serving() as served:
            leave = Directive(action="exit", round=1)
            served.publish(A, leave, finished=True)
            for _ in range(3):
                assert (await served.poll(A, round=1)).body["action"] == "exit"
            assert served.reported == [("team", "digits")]

    finish(scenario())


# Many at a time, and those that go away


def test_five_hundred_open_polls() -> None:
    crowd = [identity("crowd", index) for index in range(500)]

    async def scenario() -> None:
        async with serving(*crowd, A) as served:
            everyone = {who.pod_uid: WAIT for who in crowd}
            served.desk.publish(("team", "crowd"), everyone, current_round=1, finished=False)
            polls = [asyncio.create_task(served.poll(who, hold=LONG, **knows(WAIT))) for who in crowd]
            await eventually(lambda: len(served.reported) == 500, "all arrive", lambda: len(served.reported))
            served.publish(A, WAIT)
            beside = await soon(served.poll(A))
            assert beside.status == 200 and beside.seconds < 2
            served.desk.publish(("team", "crowd"), {who.pod_uid: RUN for who in crowd}, current_round=1, finished=False)
            answers = await soon(asyncio.gather(*polls))
            assert {(answer.status, answer.body["action"]) for answer in answers} == {(200, "run")}
            assert served.desk.refused.total() == 0

    finish(scenario())


def test_a_client_that_hangs_up_frees_its_place() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            tasks = len(asyncio.all_tasks())
            for _ in range(20):
                body = json.dumps(report(A, hold=LONG, **knows(WAIT))).encode()
                before = last_heard(served)
                _, writer = await served.connect(served.head(A, len(body)) + body)
                await eventually(lambda before=before: last_heard(served) > before, "the poll arrives")  # type: ignore[misc]
                writer.transport.abort()
            await eventually(lambda: len(asyncio.all_tasks()) <= tasks, "its handlers end", asyncio.all_tasks)
            poll = await held(served, **knows(WAIT))
            served.publish(A, RUN)
            assert (await soon(poll)).body["action"] == "run"

    finish(scenario())


def test_a_stop_ends_every_open_poll() -> None:
    """A successor takes the socket over: nobody waits for an answer of the one before."""

    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            poll = await held(served, **knows(WAIT))
            stopped = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - stopped < 5
        with pytest.raises(Exception, match=r"disconnected|closed"):
            await soon(poll)

    finish(scenario())
