"""Connections: what a stranger may send over one, how long it lasts, and what a known worker's is good for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from itertools import count

import pytest

from edgecloud.protocol import Directive
from edgecloud_operator.coordinator import waiting
from edgecloud_operator.coordinator.admission import Identity, Refusal
from edgecloud_operator.coordinator.door import MAX_OF_ADDRESS, Door
from edgecloud_operator.coordinator.reception import HEAD_BYTES
from tests.unit.coordinator.served import Served, eventually, finish, identity, knows, report, serving, soon

A = identity("digits", 0)
WAIT = Directive(action="wait", round=0)
LONG_HEAD = b"POST / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(20))
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def exchange(streams: Streams, text: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer."""
    reader, writer = streams
    writer.write(text)
    first, *lines = (await soon(reader.readuntil(b"\r\n\r\n"))).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    await soon(reader.readexactly(int(headers["content-length"])))
    return int(first.split()[1]), headers


async def is_closed(streams: Streams) -> bool:
    """Whether the other side ends the connection; soon."""
    try:
        return await soon(streams[0].read(100)) == b""
    except ConnectionError:
        return True
    finally:
        streams[1].close()


def poll(served: Served, **fields: object) -> bytes:
    body = json.dumps(report(A, **fields)).encode()
    return served.head(A, len(body)) + body


def test_a_head_that_is_too_long_is_not_taken() -> None:
    """A stranger could send a megabyte of it, and 230 of them took all the memory that an operator has."""

    async def scenario() -> None:
        async with serving() as served:
            for beginning in (LONG_HEAD, LONG_HEAD + b"\r\n", b"a" * 2 * HEAD_BYTES):
                assert await is_closed(await served.connect(beginning))
            slow = await served.connect(LONG_HEAD[: HEAD_BYTES - 10])
            slow[1].write(b"a" * 20)
            assert await is_closed(slow)
            assert served.desk.refused == {"too-large": 4}

    finish(scenario())


def test_nor_is_that_of_a_known_workers_next_request() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            streams = await served.connect(b"")
            for _ in range(3):
                assert (await exchange(streams, poll(served)))[0] == 200
            streams[1].write(LONG_HEAD)
            assert await is_closed(streams)
            assert served.desk.refused == {"too-large": 1}

    finish(scenario())


def test_what_comes_unasked_behind_a_request_is_not_kept() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            streams = await served.connect(poll(served, hold=9, **knows(WAIT)))
            await eventually(lambda: served.reported, "the poll is held")
            for _ in range(50):
                streams[1].write(LONG_HEAD)
                await streams[1].drain()
            served.publish(A, WAIT.model_copy(update={"round": 1}))
            with contextlib.suppress(ConnectionError):
                assert b"connection: close" in (await soon(streams[0].read())).lower()
            streams[1].close()

    finish(scenario())


def test_a_request_that_comes_byte_by_byte() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            streams = await served.connect(b"")
            for _ in range(2):
                *bytes_, last = (bytes([byte]) for byte in poll(served))
                for byte in bytes_:
                    streams[1].write(byte)
                    await asyncio.sleep(0)
                assert (await exchange(streams, last))[0] == 200
            assert served.desk.refused == {}
            streams[1].close()

    finish(scenario())


def test_a_strangers_connection_ends_with_its_first_answer() -> None:
    async def scenario() -> None:
        async with serving() as served:
            nobody = served.head(A, 0).replace(b"digits-0", b"nobodys")
            for request, status in (
                (nobody, 401),
                (served.head(A, 0).replace(b"Authorization", b"X"), 401),
                (served.head(A, 0).replace(b"/poll", b"/pole"), 404),
                (served.head(A, 0).replace(b"POST", b"PUT"), 405),
                (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            ):
                streams = await served.connect(b"")
                answer, headers = await exchange(streams, request)
                assert (answer, headers.get("connection")) == (status, "close")
                assert await is_closed(streams)

    finish(scenario())


def test_a_known_workers_connection_stays_unless_it_is_refused_for_what_would_come_again() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            streams = await served.connect(b"")
            foreign = poll(served).replace(b"/workers/0/", b"/workers/1/")
            for request, status in ((poll(served), 200), (foreign, 403), (poll(served, port=0), 400)):
                assert (await exchange(streams, request))[0] == status
            assert (await exchange(streams, poll(served)))[0] == 200
            answer, headers = await exchange(streams, poll(served).replace(b"Bearer digits-0", b"Bearer nobodys"))
            assert (answer, headers.get("connection")) == (401, "close")
            assert await is_closed(streams)

    finish(scenario())


def test_who_asks_too_often_has_to_come_again() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(A, WAIT)
            served.desk._requests_at_once = 2
            streams = await served.connect(b"")
            assert [(await exchange(streams, poll(served)))[0] for _ in range(2)] == [200, 200]
            assert (await exchange(streams, poll(served)))[0] == 429
            assert await is_closed(streams)

    finish(scenario())


def test_who_says_nothing_makes_room() -> None:
    async def scenario() -> None:
        async with serving(door=Door(strangers=5, patience=0.0)) as served:
            served.publish(A, WAIT)
            silent = [await served.connect(b"POST /") for _ in range(5)]
            for _ in range(3):
                assert (await soon(served.poll(A))).status == 200
            assert await is_closed(silent[0])
            for _, writer in silent:
                writer.close()

    finish(scenario())


def test_hundreds_of_workers_behind_one_address_come_in() -> None:
    """All connect before the first of them can say who it is; a silent one of another address has no part in it."""
    workers = [identity("digits", number) for number in range(150)]

    async def scenario() -> None:
        async with serving(*workers, door=Door()) as served:
            served.desk.publish(
                ("team", "digits"), {who.pod_uid: WAIT for who in workers}, current_round=0, finished=False
            )
            streams = await asyncio.gather(*(served.connect(b"") for _ in range(2 * len(workers))))
            await eventually(lambda: served.door.open == MAX_OF_ADDRESS, "as many are in as may be strangers")
            await asyncio.gather(*(exchanged(served, who, one) for who, one in zip(2 * workers, streams, strict=True)))
            assert (served.door.open, served.desk.refused) == (len(streams), {})
            for _, writer in streams:
                writer.close()

    async def exchanged(served: Served, who: Identity, one: Streams) -> None:
        body = json.dumps(report(who, sequence=next(sequence))).encode()
        status, _ = await exchange(one, served.head(who, len(body)) + body)
        assert status in (200, 409)  # its other connection may have been faster

    sequence = count(1)
    finish(scenario())


def test_who_waits_for_room_in_vain_is_sent_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0.05)

    async def scenario() -> None:
        async with serving(door=Door(of_address=2)) as served:
            silent = [await served.connect(b"POST /") for _ in range(5)]
            for late in silent[2:]:
                assert await is_closed(late)
            assert (served.door.open, served.desk.refused) == (2, {"too-many-connections": 3})
            waits = [await served.connect(b"") for _ in range(2)]
        for one in (*silent[:2], *waits):
            assert await is_closed(one), "nor does one wait for a server that has stopped"

    finish(scenario())


def test_a_worker_that_opens_ever_more_connections() -> None:
    async def scenario() -> None:
        async with serving(door=Door(of_worker=2)) as served:
            served.publish(A, WAIT)
            streams = [await served.connect(b"") for _ in range(3)]
            assert [(await exchange(one, poll(served)))[0] for one in streams] == [200, 200, 200]
            assert await is_closed(streams[0]), "the oldest makes room: it may have broken off unnoticed"
            await eventually(lambda: served.door.open == 2, "and the others stay")
            for one in streams[1:]:
                assert (await exchange(one, poll(served)))[0] == 200
                one[1].close()

    finish(scenario())


def test_a_mistake_of_ours_about_a_token_is_a_refusal_like_others(caplog: pytest.LogCaptureFixture) -> None:
    """One that a stranger had found was a traceback in the log for each request, and went uncounted."""

    async def authenticate(_token: str) -> Identity | Refusal | None:
        raise TypeError("unhashable type: 'list'")

    async def scenario() -> None:
        async with serving(authenticate=authenticate) as served:
            for _ in range(20):
                answer = await served.poll(A)
                assert (answer.status, answer.reason) == (401, "bad-token")
            assert served.desk.refused == {"bad-token": 20}

    with caplog.at_level(logging.WARNING):
        finish(scenario())
    assert len(caplog.records) == 5 and all(record.exc_info for record in caplog.records)


def test_a_server_that_stops_ends_every_connection() -> None:
    async def scenario() -> None:
        async with serving() as served:
            streams = [await served.connect(b"POST /") for _ in range(3)]
        for one in streams:
            assert await is_closed(one)
        assert served.door.open == 0

    finish(scenario())
