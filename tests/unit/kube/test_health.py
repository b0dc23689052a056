"""The probes and the metrics, asked over real HTTP."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import aiohttp
import pytest

from edgecloud_operator.kube.health import HealthServer
from edgecloud_operator.kube.metrics import Metrics
from tests.unit.kube.served import finish


@dataclass
class State:
    wrong: str | None = None
    ready: bool = False


async def ask(server: HealthServer, *asked: tuple[str, dict[str, str]]) -> list[tuple[int, str, str]]:
    """Status, content type and text of the answers."""
    found = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        await server.start(listener)
        try:
            async with aiohttp.ClientSession(trust_env=False) as session:
                for where, headers in asked:
                    url = f"http://127.0.0.1:{listener.getsockname()[1]}{where}"
                    async with session.get(url, headers=headers) as answer:
                        found.append((answer.status, answer.headers["Content-Type"], await answer.text()))
        finally:
            await server.stop()
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
