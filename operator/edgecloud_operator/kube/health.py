"""What is asked of the operator from outside: whether it is alive, whether it has seen the cluster, and its metrics."""

from __future__ import annotations

import socket
from collections.abc import Callable

from aiohttp import web
from aiohttp.hdrs import ACCEPT, CONTENT_TYPE


class HealthServer:
    """Answers /healthz, /readyz and /metrics on a socket of its own.

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
        self._runner: web.AppRunner | None = None

    async def start(self, listener: socket.socket) -> None:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self._ailment())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(None if self._ready() else "no")

    async def _scrape(self, request: web.Request) -> web.Response:
        text, content_type = self._metrics(",".join(request.headers.getall(ACCEPT, ())))
        return web.Response(body=text, headers={CONTENT_TYPE: content_type})


def _answer(wrong: str | None) -> web.Response:
    return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)
