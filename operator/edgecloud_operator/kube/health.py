"""What is asked of the operator from outside: whether it is alive, whether it has seen the cluster, and its metrics."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.hdrs import ACCEPT, CONTENT_TYPE

from edgecloud_operator.coordinator.door import Door
from edgecloud_operator.coordinator.reception import Reception

MAX_CONNECTIONS: Final = 100
"""The oldest makes room: a kubelet's probe comes in whoever else is there."""
PATIENCE_SECONDS: Final = 0.2
MAX_OF_ADDRESS: Final = 20
"""A node's kubelet has three probes, Prometheus one connection."""


class HealthServer:
    """Answers /healthz, /readyz and /metrics on a socket of its own; each connection is for one request without a body.

    /healthz is 200 for as long as the loop turns and `ailment` finds nothing, else 503 with what it found; /readyz is
    200 once `ready` says so, else 503. An API server that is away makes neither fail: a restart would not bring it
    back.
    """

    def __init__(
        self,
        *,
        ailment: Callable[[], str | None],
        ready: Callable[[], bool],
        metrics: Callable[[str], tuple[bytes, str]],
    ) -> None:
        """metrics: from an Accept header to the metrics and their content type."""
        self._ailment = ailment
        self._ready = ready
        self._metrics = metrics
        door = Door(strangers=MAX_CONNECTIONS, of_address=MAX_OF_ADDRESS, patience=PATIENCE_SECONDS)
        self._reception = Reception(door, lambda _refusal: None, body=0)

    async def start(self, listener: socket.socket) -> None:
        routes = [
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._scrape),
        ]
        await self._reception.start(routes, listener, None)

    async def stop(self) -> None:
        await self._reception.stop()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self._ailment())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(None if self._ready() else "no")

    async def _scrape(self, request: web.Request) -> web.Response:
        text, content_type = self._metrics(",".join(request.headers.getall(ACCEPT, ())))
        return web.Response(body=text, headers={CONTENT_TYPE: content_type})


def _answer(wrong: str | None) -> web.Response:
    return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)
