"""The coordinator's HTTP side: who is it, may it say this, and then the desk."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from pydantic import BaseModel, ConfigDict, ValidationError

from edgecloud.protocol import MAX_BODY_BYTES, OLDEST_VERSION, VERSION, PollRequest
from edgecloud_operator.coordinator.admission import STATUS_CODES, Identity, Refusal, belongs
from edgecloud_operator.coordinator.desk import Desk
from edgecloud_operator.coordinator.door import Door
from edgecloud_operator.subject import about

log = logging.getLogger(__name__)

POLL: Final = "/v1/namespaces/{namespace}/trainingjobs/{name}/workers/{index}/poll"
SHUTDOWN_SECONDS: Final = 1.0
BODY_SECONDS = 10.0
"""How long a request's body may take to arrive."""
IDLE_SECONDS = 60.0
"""How long a connection may be open without a request, or with the beginning of one."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted: a thousand launchers come back at once when the operator does."""
HANDSHAKE_SECONDS: Final = 10.0
FULL_SECONDS: Final = 0.2
"""Pause when the system has no more file descriptors for connections."""
FULL_REMINDER_SECONDS: Final = 60.0
"""Between two lines that say so."""

Authenticate = Callable[[str], Awaitable[Identity | Refusal | None]]
"""From a bearer token to whom it stands for; None if it is nobody's; a Refusal where that is not known yet."""


_http_log: Final = logging.getLogger(f"{__name__}.http")


def _is_ours(record: logging.LogRecord) -> bool:
    """What is our own mistake. What a stranger sends that is no HTTP has its 400, and no traceback in the log each."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))


_http_log.addFilter(_is_ours)


class _Guest(asyncio.Protocol):
    """Hands everything on to the protocol that speaks HTTP, and tells when the connection is closed."""

    def __init__(self, inner: asyncio.Protocol, gone: Callable[[], None]) -> None:
        self._gone = gone
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]
        self._lost = inner.connection_lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        self._lost(exc)


class CoordinatorServer:
    """Serves the worker protocol on one socket."""

    def __init__(self, desk: Desk, authenticate: Authenticate, *, leading: Callable[[], bool] = lambda: True) -> None:
        """leading: whether this replica speaks for the operator now; while it does not, workers are sent elsewhere."""
        self._desk = desk
        self._authenticate = authenticate
        self._leading = leading
        self._door = Door()
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Answer on a socket that is bound already, over TLS if a context is given.

        The socket stays the caller's: a successor can take it over.
        """
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
        self._listener = listener.dup()
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self._begin(self._accept(self._listener, tls))

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Let connections in one by one: each is counted before a TLS handshake is spent on it."""
        loop, silent_until = asyncio.get_running_loop(), 0.0
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:
                if loop.time() >= silent_until:
                    silent_until = loop.time() + FULL_REMINDER_SECONDS
                    remedy = ": raise ulimit -n" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
                    log.warning("no connection can be accepted now: %s%s", error, remedy)
                await asyncio.sleep(FULL_SECONDS)
                continue
            host = str(address[0])
            if self._door.enter(host):
                self._begin(self._welcome(sock, host, tls))
            else:
                sock.close()
                self._desk.refuse(Refusal("too-many-connections", host))

    async def _welcome(self, sock: socket.socket, host: str, tls: ssl.SSLContext | None) -> None:
        assert self._runner is not None and self._runner.server is not None
        server, inside = self._runner.server, True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                self._door.leave(host)

        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Guest(server(), leave),
                sock,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
            )
        except (OSError, TimeoutError) as error:  # what ssl raises is an OSError
            leave()
            sock.close()
            self._desk.refuse(Refusal("no-tls", str(error)))
        except BaseException:
            leave()
            sock.close()
            raise

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
        if not self._leading():
            return self._elsewhere(request)
        if refusal := self._desk.pace(identity):
            return self._refused(request, refusal)
        body = await _body(request)
        report = body if isinstance(body, Refusal) else _parse(body, self._desk.refuse)
        if isinstance(report, Refusal):
            return self._refused(request, self._desk.refuse(report))
        place = request.match_info
        foreign = belongs(
            identity, namespace=place["namespace"], job=place["name"], index=place["index"], report=report
        )
        refusal = self._desk.refuse(foreign) if foreign else self._desk.hear(identity, report)
        if refusal:
            return self._refused(request, refusal)
        directive = await self._desk.directive(identity, report)
        if not self._leading():  # no longer, since it was asked
            return self._elsewhere(request)
        if isinstance(directive, Refusal):
            return self._refused(request, directive)
        return web.json_response(directive.dump())

    def _elsewhere(self, request: web.Request) -> web.Response:
        answer = self._refused(request, self._desk.refuse(Refusal("not-ready", "another replica leads; ask again")))
        answer.force_close()  # where a new connection goes is the Service's to say
        return answer

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


def _parse(body: bytes, drop: Callable[[Refusal], object]) -> PollRequest | Refusal:
    """What a worker says.

    Progress that can't be taken is dropped, and the rest taken: a worker whose every poll is refused for a value that
    is only to be shown could not even tell of its end. drop: told why.
    """
    try:
        protocol = _Spoken.model_validate_json(body).protocol
        if not OLDEST_VERSION <= protocol <= VERSION:
            return Refusal("protocol", f"protocol {protocol} is not spoken here; {OLDEST_VERSION} to {VERSION} are")
        return PollRequest.model_validate_json(body, by_alias=True, by_name=False)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in errors[0]["loc"])
    refusal = Refusal("malformed", f"{place}: {errors[0]['msg']}"[:300])
    if any(error["loc"][:1] != ("progress",) for error in errors):
        return refusal
    try:
        report = PollRequest.parse(json.loads(body) | {"progress": None})
    except ValueError:  # numbers that pydantic reads, and Python's json does not
        return refusal
    drop(refusal)
    return report


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")
