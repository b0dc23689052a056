"""An API server on a real socket that answers as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiohttp import web
from kubernetes.aio.client import Configuration

T = TypeVar("T")
Answer = Callable[[web.Request], Awaitable[web.Response]]


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a scenario to its end; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(work, 60))


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[str]:
    """The address at which every request is answered by that."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def access(host: str, token: str = "") -> Configuration:
    """What reaches it, with that token."""
    configuration = Configuration(host=host)
    configuration.client_session_kwargs = {"trust_env": False}
    if token:
        configuration.api_key = {"BearerToken": token}
        configuration.api_key_prefix = {"BearerToken": "Bearer"}
    return configuration
