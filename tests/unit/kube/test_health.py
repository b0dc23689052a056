"""The probes and the metrics, asked over real HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from edgecloud_operator.kube import health
from edgecloud_operator.kube.health import MAX_CONNECTIONS, MAX_OF_ADDRESS, HealthServer
from edgecloud_operator.kube.metrics import Metrics
from tests.unit.kube.served import finish


@dataclass
class State:
    wrong: str | None = None
    ready: bool = False


@asynccontextmanager
async def listening(server: HealthServer) -> AsyncIterator[int]:
    """The port that it listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        await server.start(listener)
        try:
            yield listener.getsockname()[1]
        finally:
            await server.stop()


async def ask(server: HealthServer, *asked: tuple[str, dict[str, str]]) -> list[tuple[int, str, str]]:
    """Status, content type and text of the answers."""
    found = []
    async with listening(server) as port, aiohttp.ClientSession(trust_env=False) as session:
        for where, headers in asked:
            async with session.get(f"http://127.0.0.1:{port}{where}", headers=headers) as answer:
                found.append((answer.status, answer.headers["Content-Type"], await answer.text()))
    return found


def serve(state: State) -> HealthServer:
    return HealthServer(ailment=lambda: state.wrong, ready=lambda: state.ready, metrics=Metrics().exposition)


@pytest.mark.parametrize(
    ("state", "alive", "ready"),
    [
        (State(), (200, "ok\n"), (503, "no\n")),
        (State(ready=True), (200, "ok\n"), (200, "ok\n")),
        (State(wrong="nothing moves", ready=True), (503, "nothing moves\n"), (200, "ok\n")),
    ],
)
def test_the_probes(state: State, alive: tuple[int, str], ready: tuple[int, str]) -> None:
    (one, _, said), (other, _, said_too) = finish(ask(serve(state), ("/healthz", {}), ("/readyz", {})))
    assert ((one, said), (other, said_too)) == (alive, ready)


def test_the_metrics_come_in_the_format_that_was_asked_for() -> None:
    openmetrics = {"Accept": "application/openmetrics-text;version=1.0.0"}
    nonsense = {"Accept": "application/openmetrics-text;version=nonsense"}
    plain, modern, fallen_back = finish(
        ask(serve(State()), ("/metrics", {}), ("/metrics", openmetrics), ("/metrics", nonsense))
    )
    assert plain[:2] == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert modern[1].startswith("application/openmetrics-text; version=1.0.0")
    assert modern[2].endswith("# EOF\n")
    assert fallen_back[:2] == plain[:2]
    assert "edgecloud_queue_depth 0.0\n" in plain[2]


def test_nothing_else_is_there() -> None:
    assert [status for status, *_ in finish(ask(serve(State()), ("/", {}), ("/metrics/", {})))] == [404, 404]


PROBE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def test_whoever_holds_connections_open_keeps_no_probe_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubelet that gets no answer kills the operator."""
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.0)

    async def scenario() -> None:
        async with listening(serve(State())) as port:
            silent = []
            for number in range(MAX_CONNECTIONS + 2 * MAX_OF_ADDRESS):
                own = (f"127.0.1.{1 + number // MAX_OF_ADDRESS}", 0)
                silent.append(await asyncio.open_connection("127.0.0.1", port, local_addr=own))
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(PROBE)
                answer = await asyncio.wait_for(reader.read(), 15)
                assert answer.startswith(b"HTTP/1.1 200 ") and b"Connection: close" in answer
                writer.close()
            for _, writer in silent:
                writer.close()

    finish(scenario())


def test_neither_long_heads_nor_bodies_are_read() -> None:
    async def scenario() -> None:
        async with listening(serve(State())) as port:
            for head in (PROBE[:-2] + b"X: a\r\n" * 3000, PROBE[:-2] + b"X: " + b"a" * 20_000):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head)
                assert b"200" not in await asyncio.wait_for(reader.read(), 15)
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(PROBE.replace(b"Host", b"Content-Length: 100000000\r\nHost") + b"a" * 100_000)
            assert (await asyncio.wait_for(reader.readline(), 15)).startswith(b"HTTP/1.1 200 ")
            writer.close()

    finish(scenario())
