"""The coordinator's HTTP side: who is it, may it say this, and then the desk."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from pydantic import BaseModel, ConfigDict, ValidationError

from edgecloud.protocol import MAX_BODY_BYTES, OLDEST_VERSION, VERSION, PollRequest
from edgecloud_operator.coordinator.admission import STATUS_CODES, Identity, Refusal, belongs
from edgecloud_operator.coordinator.desk import Desk
from edgecloud_operator.subject import about

log = logging.getLogger(__name__)

POLL: Final = "/v1/namespaces/{namespace}/trainingjobs/{name}/workers/{index}/poll"
SHUTDOWN_SECONDS: Final = 1.0
BODY_SECONDS = 10.0
"""How long a request's body may take to arrive."""
IDLE_SECONDS = 60.0
"""How long a connection may be open without a request, or with the beginning of one."""

Authenticate = Callable[[str], Awaitable[Identity | Refusal | None]]
"""From a bearer token to whom it stands for; None if it is nobody's; a Refusal where that is not known yet."""


_http_log: Final = logging.getLogger(f"{__name__}.http")


def _is_ours(record: logging.LogRecord) -> bool:
    """What is our own mistake. What a stranger sends that is no HTTP has its 400, and no traceback in the log each."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))


_http_log.addFilter(_is_ours)


class CoordinatorServer:
    """Serves the worker protocol on one socket."""

    def __init__(self, desk: Desk, authenticate: Authenticate) -> None:
        self._desk = desk
        self._authenticate = authenticate
        self._runner: web.AppRunner | None = None

    async def start(self, listener: socket.socket) -> None:
        """Answer on a socket that is bound already. The socket stays the caller's: a successor can take it over."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(POLL, self._poll)
        app.router.add_get("/healthz", _healthy)
        # Cancelling the handler of a launcher that hung up frees its place at once.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_SECONDS,
            handler_cancellation=True,
            keepalive_timeout=IDLE_SECONDS,
            logger=_http_log,
            auto_decompress=False,  # no launcher compresses, and what a stranger packs can grow a thousandfold
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener.dup()).start()

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _poll(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        identity = await self._authenticate(token) if scheme.lower() == "bearer" else None
        if identity is None:
            return self._refused(
                request, self._desk.refuse(Refusal("unauthorized", "no token, or one that is nobody's"))
            )
        if isinstance(identity, Refusal):
            return self._refused(request, self._desk.refuse(identity))
        key = (identity.namespace, identity.job)
        with about(key, round=self._desk.round_of(key), worker=identity.index):
            return await self._heard(request, identity)

    async def _heard(self, request: web.Request, identity: Identity) -> web.Response:
        """The answer to a worker that is known."""
        body = await _body(request)
        report = body if isinstance(body, Refusal) else _parse(body)
        if isinstance(report, Refusal):
            return self._refused(request, self._desk.refuse(report))
        place = request.match_info
        foreign = belongs(
            identity, namespace=place["namespace"], job=place["name"], index=place["index"], report=report
        )
        refusal = self._desk.refuse(foreign) if foreign else self._desk.hear(identity, report)
        if refusal:
            return self._refused(request, refusal)
        answer = await self._desk.directive(identity, report)
        if isinstance(answer, Refusal):
            return self._refused(request, answer)
        return web.json_response(answer.dump())

    def _refused(self, request: web.Request, refusal: Refusal) -> web.Response:
        times = self._desk.refused[refusal.reason]
        if times & (times - 1) == 0:  # the 1st, 2nd, 4th, 8th...: a flood leaves a line, not a flood
            log.warning("refused (%s, %d so far) %r: %r", refusal.reason, times, request.path[:200], refusal.message)
        return web.json_response(
            {"reason": refusal.reason, "message": refusal.message}, status=STATUS_CODES[refusal.reason]
        )


class _Spoken(BaseModel):
    """What a request says of itself in every version, whatever else it may hold."""

    model_config = ConfigDict(strict=True)

    protocol: int


async def _body(request: web.Request) -> bytes | Refusal:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return Refusal("too-large", f"a request has at most {MAX_BODY_BYTES} bytes")
    except web.RequestPayloadError:
        return Refusal("malformed", "the body breaks off, or is not encoded as its headers say")
    except TimeoutError:
        return Refusal("too-slow", f"the body took more than {BODY_SECONDS:g} s")


def _parse(body: bytes) -> PollRequest | Refusal:
    try:
        protocol = _Spoken.model_validate_json(body).protocol
        if not OLDEST_VERSION <= protocol <= VERSION:
            return Refusal("protocol", f"protocol {protocol} is not spoken here; {OLDEST_VERSION} to {VERSION} are")
        return PollRequest.model_validate_json(body, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return Refusal("malformed", f"{place}: {first['msg']}"[:300])


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")
