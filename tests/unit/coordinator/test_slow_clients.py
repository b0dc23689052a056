"""Clients that send their heads or bodies a byte at a time, or nothing at all: bounded, and in nobody's way."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket

import pytest

from edgecloud.protocol import Directive
from edgecloud_operator.coordinator import reception, server
from tests.unit.coordinator.served import Served, eventually, finish, identity, report, serving, soon

A, B = identity("digits", 0), identity("digits", 1)
WAIT = Directive(action="wait", round=0)
FEW = 40


async def answers_well(served: Served) -> None:
    served.publish(A, WAIT)
    for _ in range(3):
        answer = await soon(served.poll(A))
        assert answer.status == 200 and answer.seconds < 2


@pytest.mark.parametrize("beginning", [b"", b"POST /v1/names", b"POST / HTTP/1.1\r\nHost: a\r\nX-One: "])
def test_heads_that_never_end(beginning: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "HEAD_SECONDS", 1.0)

    async def scenario() -> None:
        async with serving() as served:
            slow = [await served.connect(beginning) for _ in range(FEW)]
            await answers_well(served)
            loop = asyncio.get_running_loop()
            started = loop.time()

            async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                """A byte now and then keeps nothing open."""
                while True:
                    try:
                        async with asyncio.timeout(0.2):
                            assert await reader.read(100) == b""
                        return
                    except TimeoutError:
                        writer.write(b"a" if beginning else b"")
                    except ConnectionError:
                        return

            await soon(asyncio.gather(*(dribble(*streams) for streams in slow)))
            assert loop.time() - started < 5
            for _, writer in slow:
                writer.close()
            await answers_well(served)

    finish(scenario())


def test_bodies_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.5)

    async def scenario() -> None:
        async with serving() as served:
            slow = [await served.connect(served.head(B, 1000) + b'{"protocol": 1') for _ in range(FEW)]
            slow += [await served.connect(served.head(B, None) + b"1\r\n{\r\n") for _ in range(FEW)]
            await answers_well(served)
            for reader, writer in slow:
                assert b" 408 " in await soon(reader.readline())
                writer.close()
            assert served.desk.refused == {"too-slow": 2 * FEW}
            assert B.pod_uid not in served.desk.launchers(("team", "digits"))
            await answers_well(served)

    finish(scenario())


def test_a_body_that_arrives_in_pieces_is_taken() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(B, WAIT)
            body = json.dumps(report(B)).encode()
            reader, writer = await served.connect(served.head(B, len(body)))
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
            assert b" 200 " in await soon(reader.readline())
            writer.close()

    finish(scenario())


def test_a_stranger_is_answered_before_its_body_is_there() -> None:
    async def scenario() -> None:
        async with serving() as served:
            head = served.head(A, 10_000_000).replace(b"digits-0", b"nobodys-0")
            slow = [await served.connect(head) for _ in range(FEW)]
            for reader, writer in slow:
                assert b" 401 " in await soon(reader.readline())
                writer.close()
            await answers_well(served)

    finish(scenario())


def test_clients_that_do_not_read_their_answers() -> None:
    """Many requests one behind the other, and nobody who takes the answers: the others don't notice."""

    async def scenario() -> None:
        async with serving() as served:
            served.publish(B, WAIT)
            await answers_well(served)
            tasks = len(asyncio.all_tasks())
            writers = []
            for _ in range(5):
                requests = b"".join(
                    served.head(B, len(body)) + body for body in (json.dumps(report(B)).encode() for _ in range(50))
                )
                _, writer = await served.connect(requests)
                writers.append(writer)
            await answers_well(served)
            for writer in writers:
                writer.transport.abort()
            await eventually(lambda: len(asyncio.all_tasks()) <= tasks, "their handlers end", asyncio.all_tasks)

    finish(scenario())


def test_that_there_are_no_descriptors_left_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reception, "FULL_SECONDS", 0.01)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario() -> None:
        async with serving() as served:
            with socket.socket() as client:
                client.setblocking(False)
                free = os.dup(client.fileno())
                os.close(free)
                try:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
                    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", served.port))
                    await eventually(lambda: caplog.messages, "a line about it")
                    for _ in range(5):  # and it is tried again as often, or nearly so
                        await asyncio.sleep(reception.FULL_SECONDS)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, before)
                await answers_well(served)

    finish(scenario())
    (line,) = caplog.messages
    assert line.startswith("no connection can be accepted now: ") and line.endswith(": raise ulimit -n")
