"""The probes: whether the operator is alive, and whether it has seen the cluster."""

from __future__ import annotations

import socket
from collections.abc import Callable

from aiohttp import web


class HealthServer:
    """Answers /healthz and /readyz on a socket of its own.

    /healthz is 200 for as long as the loop turns and `alive` says so; /readyz once `ready` says so, else 503. An API
    server that is away makes neither fail: a restart would not bring it back.
    """

    def __init__(self, *, alive: Callable[[], bool], ready: Callable[[], bool]) -> None:
        self._alive = alive
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self, listener: socket.socket) -> None:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self._alive())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self._ready())


def _answer(good: bool) -> web.Response:
    return web.Response(text="ok\n" if good else "no\n", status=200 if good else 503)
