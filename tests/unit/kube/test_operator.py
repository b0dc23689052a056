"""From when on an operator in a cluster is heard: by its Lease, and by the label that leads workers to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web

from edgecloud_operator.kube import operator as module
from edgecloud_operator.kube.client import Client
from edgecloud_operator.kube.elector import Elector
from edgecloud_operator.kube.lease import DURATION_SECONDS
from edgecloud_operator.kube.metrics import Metrics
from edgecloud_operator.kube.operator import Options, PodPlace, _Operator
from tests.unit.kube.served import access, finish, served

PLACE = PodPlace(namespace="system", name="op-1", selector="app=op")


@dataclass
class Server:
    """Keeps a Lease, and takes labels, while it is there."""

    away: bool = False
    refuses: int = 0
    """How many requests it is too busy for yet."""
    lease: dict[str, Any] = field(default_factory=dict)
    writes: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.refuses -= 1
        if self.away or self.refuses >= 0:
            return web.json_response({"message": "the server is currently unable to handle the request"}, status=503)
        if "leases" not in request.path:
            return web.json_response({})
        if request.method == "GET":
            return web.json_response(self.lease) if self.lease else web.json_response({}, status=404)
        self.writes += 1
        self.lease = await request.json()
        self.lease["metadata"]["resourceVersion"] = str(self.writes)
        return web.json_response(self.lease)


class Watched:
    """An operator of which nothing is started, and the moments since when it listened."""

    def __init__(self, client: Client) -> None:
        options = Options(
            namespaces=(),
            listen=("127.0.0.1", 0),
            coordinator_address="http://op",
            trainer_image="",
            edge_image="",
            launcher_image="",
            worker_user=None,
            progress_seconds=10.0,
            give_back_seconds=300.0,
            liveness=None,
            lease=("system", "op"),
            identity="op-1",
        )
        self.operator = _Operator(options, client, client, None, None, Metrics())  # type: ignore[arg-type]
        assert self.operator._elector is not None
        self.elector: Elector = self.operator._elector
        self.now = 0.0
        self.elector._clock = lambda: self.now
        self.spoke: list[bool] = []
        listen_anew = self.elector._on_regained

        def noted() -> None:
            self.spoke.append(self.elector.speaks)
            listen_anew()

        self.elector._on_regained = noted

    @property
    def since(self) -> datetime:
        return self.operator._controller._listening_since

    async def renews(self, after: float) -> bool:
        self.now += after
        return await self.elector._try()


@asynccontextmanager
async def watched(server: Server) -> AsyncIterator[Watched]:
    async with served(server.answer) as host:
        client = Client(access(host))
        try:
            yield Watched(client)
        finally:
            await client.close()


def test_whoever_could_not_renew_its_lease_listens_anew_before_it_speaks() -> None:
    async def scenario() -> None:
        server = Server()
        async with watched(server) as it:
            assert await it.renews(0) and it.elector.speaks
            began = it.since
            server.away = True
            assert not await it.renews(DURATION_SECONDS - 2)
            server.away = False
            assert await it.renews(1)
            assert (it.spoke, it.since) == ([], began), "workers were answered all the while"
            server.away = True
            assert not await it.renews(DURATION_SECONDS) and not it.elector.speaks
            server.away = False
            assert await it.renews(12) and it.elector.speaks
            assert it.spoke == [False], "once, and before anybody is answered"
            assert it.since > began
            assert await it.renews(1)
            assert it.spoke == [False]

    finish(scenario())


def test_whoever_is_labelled_late_listens_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)

    async def scenario() -> None:
        server = Server()
        async with watched(server) as it:
            began = it.since
            await it.operator._point(PLACE)
            assert it.since == began
            server.refuses = 2
            await it.operator._point(PLACE)
            assert it.since > began

    finish(scenario())
