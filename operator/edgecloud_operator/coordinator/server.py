"""The coordinator's HTTP side: who is it, may it say this, and then the desk."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from edgecloud.protocol import MAX_BODY_BYTES, OLDEST_VERSION, VERSION, PollRequest
from edgecloud_operator.coordinator.admission import STATUS_CODES, Identity, Refusal, belongs
from edgecloud_operator.coordinator.desk import Desk
from edgecloud_operator.coordinator.door import Door
from edgecloud_operator.coordinator.reception import Reception, visit_of
from edgecloud_operator.coordinator.waiting import MAX_WAITING
from edgecloud_operator.subject import about

log = logging.getLogger(__name__)

POLL: Final = "/v1/namespaces/{namespace}/trainingjobs/{name}/workers/{index}/poll"
BODY_SECONDS = 10.0
"""How long a request's body may take to arrive."""

_CLOSING: Final = (401, 429)
"""Status of what is tried again at once for as long as the connection is open."""

Authenticate = Callable[[str], Awaitable[Identity | Refusal | None]]
"""From a bearer token to whom it stands for; None if it is nobody's; a Refusal where that is not known yet."""


class CoordinatorServer:
    """Serves the worker protocol on one socket."""

    def __init__(
        self,
        desk: Desk,
        authenticate: Authenticate,
        *,
        leading: Callable[[], bool] = lambda: True,
        door: Door | None = None,
    ) -> None:
        """leading: whether this replica speaks for the operator now; while it does not, workers are sent elsewhere."""
        self._desk = desk
        self._authenticate = authenticate
        self._leading = leading
        self._door = door or Door()
        self._reception = Reception(self._door, desk.refuse, body=MAX_BODY_BYTES, waiting=MAX_WAITING)

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Answer on a socket that is bound already, over TLS if a context is given.

        The socket stays the caller's: a successor can take it over.
        """
        await self._reception.start([web.post(POLL, self._poll), web.get("/healthz", _healthy)], listener, tls)

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        await self._reception.stop()

    async def _poll(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            identity = await self._authenticate(token) if scheme.lower() == "bearer" else None
        except Exception as error:
            # Our own mistake; but whoever has found it must not fill the log with it, nor go uncounted.
            refusal = self._desk.refuse(Refusal("bad-token", "the token cannot be read"))
            return self._refused(request, refusal, error)
        if identity is None:
            return self._refused(
                request, self._desk.refuse(Refusal("unauthorized", "no token, or one that is nobody's"))
            )
        if isinstance(identity, Refusal):
            if identity.reason == "not-ready" and (visit := visit_of(request)):
                self._door.forgive(visit)
            return self._refused(request, self._desk.refuse(identity))
        key = (identity.namespace, identity.job)
        with about(key, round=self._desk.round_of(key), worker=identity.index):
            return await self._heard(request, identity)

    async def _heard(self, request: web.Request, identity: Identity) -> web.Response:
        """The answer to a worker that is known."""
        visit = visit_of(request)
        if not self._leading():
            if visit is not None and not visit.worker:
                self._door.forgive(visit)
            return self._elsewhere(request)
        if refusal := self._desk.pace(identity):
            return self._refused(request, refusal)
        if visit is not None:
            self._door.know(visit, identity.pod_uid)
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

    def _refused(self, request: web.Request, refusal: Refusal, error: Exception | None = None) -> web.Response:
        times, status = self._desk.refused[refusal.reason], STATUS_CODES[refusal.reason]
        if times & (times - 1) == 0:  # the 1st, 2nd, 4th, 8th...: a flood leaves a line, not a flood
            words = (refusal.reason, times, request.path[:200], refusal.message)
            log.warning("refused (%s, %d so far) %r: %r", *words, exc_info=error)
        answer = web.json_response({"reason": refusal.reason, "message": refusal.message}, status=status)
        if status in _CLOSING:
            answer.force_close()
        return answer


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
