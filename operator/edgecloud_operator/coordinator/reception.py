"""Takes connections to an HTTP server in: counted at the door, and none with more than a head of bounded size and time.

aiohttp alone would take a megabyte of headers from whoever connects, and keep it for as long as they don't end.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler

from edgecloud_operator.coordinator.admission import Refusal
from edgecloud_operator.coordinator.door import Door, Visit
from edgecloud_operator.coordinator.waiting import Waiting

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 60.0
"""How long the connection of somebody who is known may be open without a request."""
HEAD_SECONDS = 10.0
"""How long a request's head may take to arrive: the first one from the beginning, others from their first byte."""
HEAD_BYTES: Final = 16 * 1024
"""A launcher's has some 200 beside its token, which has two thousand, and eight thousand at most."""
HEADERS: Final = 64
"""A launcher sends six; what stands between it and a coordinator without TLS may add some."""
READ_BYTES: Final = 16 * 1024
"""Bytes of a body after which no more is read for a while, if nobody asks for them."""
LINGER_SECONDS: Final = 2.0
"""How long a body that nobody asks for is thrown away, so that its sender can read the answer."""

BACKLOG: Final = 1024
"""Connections that wait to be accepted: a thousand launchers come back at once when the operator does."""
HANDSHAKE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.02
"""Between two looks at those who wait for room."""
IN_AT_ONCE: Final = 50
"""How many come in at a look, or in a turn of the loop: what those had whose room they take is given back only then."""
WAITING_BYTES: Final = 4 * 1024
"""What the system keeps of whom is not read yet, before it doubles it: the beginning of a handshake fits."""
READING_BYTES: Final = 64 * 1024
"""The same once it is."""
FULL_SECONDS: Final = 0.2
"""Pause when the system has no more file descriptors for connections."""
FULL_REMINDER_SECONDS: Final = 60.0
"""Between two lines that say so."""
_END: Final = b"\r\n\r\n"

_http_log: Final = logging.getLogger(f"{__name__}.http")


def _is_ours(record: logging.LogRecord) -> bool:
    """What is our own mistake. What a stranger sends that is no HTTP has its 400, and no traceback in the log each."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))


_http_log.addFilter(_is_ours)


class _Guest(asyncio.Protocol):
    """Stands before the protocol that speaks HTTP: hands on to it what is not too much, and says who is leaving.

    It counts the bytes of a head until that ends, and then those of the body, and of whatever comes behind it unasked,
    until there is an answer.
    """

    def __init__(self, inner: asyncio.Protocol, visit: Visit, door: Door, body: int, on_refused: OnRefused) -> None:
        self.visit = visit
        self._inner = inner
        self._door = door
        self._body = body
        self._on_refused = on_refused
        self._transport: asyncio.Transport | None = None
        self._left = HEAD_BYTES
        self._in_head = True
        self._tail = b""
        """The end of what has arrived of a head: its end may come in pieces."""
        self._timer: asyncio.TimerHandle | None = None
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.visit.close = transport.abort
        self._time()
        self._inner.connection_made(transport)
        if not self.visit.inside:  # another one took its place during the handshake
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._untime()
        self._door.leave(self.visit)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            end = (self._tail + data).find(_END)
            head = len(data) if end < 0 else end + len(_END) - len(self._tail)
            self._left -= head
            if self._left < 0:
                self._turn_away(Refusal("too-large", f"the head of a request has at most {HEAD_BYTES} bytes"))
                return
            if end >= 0:
                self.begin()
                self._left -= len(data) - head
            else:
                self._tail = (self._tail + data)[1 - len(_END) :]
                self._time()
        elif self._left > 0:
            self._left -= len(data)
        else:
            return  # more than is ever read; the connection ends with the answer
        self._inner.data_received(data)

    def begin(self) -> None:
        """A head has ended; what comes now is to be answered."""
        self._in_head, self._left, self._tail = False, self._body + HEAD_BYTES, b""
        self._untime()

    def done(self) -> None:
        """It is answered: what comes now is the next head."""
        self._in_head, self._left = True, HEAD_BYTES

    @property
    def deaf(self) -> bool:
        """Whether something that has arrived may have been thrown away."""
        return self._left <= 0

    def _time(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._late)

    def _untime(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._turn_away(Refusal("too-slow", f"the head of a request took more than {HEAD_SECONDS:g} s"))

    def _turn_away(self, refusal: Refusal) -> None:
        assert self._transport is not None
        self._on_refused(refusal)
        self._untime()
        self._left, self._in_head = 0, False
        self._transport.close()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)


OnRefused = Callable[[Refusal], object]


def visit_of(request: web.Request) -> Visit | None:
    """The connection that a request came over; None if it is no more."""
    guest = _guest_of(request)
    return guest.visit if guest else None


def _guest_of(request: web.Request) -> _Guest | None:
    guest = request.transport.get_protocol() if request.transport is not None else None
    return guest if isinstance(guest, _Guest) else None


@web.middleware
async def _one_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A stranger's connection ends with its first answer; everybody's does if what they sent was not all read."""
    guest = _guest_of(request)
    if guest is None:
        return web.Response(status=503)  # nobody will read it
    guest.begin()
    try:
        answer = await handler(request)
    except web.HTTPException as error:
        error.force_close()
        raise
    if not guest.visit.worker or guest.deaf or not request.content.is_eof():
        answer.force_close()
    elif answer.keep_alive is not False:
        guest.done()
    return answer


class Reception:
    """An aiohttp application's connections on one socket."""

    def __init__(self, door: Door, on_refused: OnRefused, *, body: int, waiting: int = 0) -> None:
        """on_refused: told of whom is not let in. body: bytes that a request's body has at most. waiting: how many may
        wait until there is room for them."""
        self._door = door
        self._waiting: Waiting[socket.socket] = Waiting(door, waiting)
        self._tls: ssl.SSLContext | None = None
        self._look: asyncio.TimerHandle | None = None
        self._on_refused = on_refused
        self._body = body
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, routes: list[web.RouteDef], listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Answer on a socket that is bound already, over TLS if a context is given.

        The socket stays the caller's: a successor can take it over.
        """
        app = web.Application(client_max_size=self._body or 1, middlewares=[_one_request])
        app.router.add_routes(routes)
        # Cancelling the handler of a launcher that hung up frees its place at once.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_SECONDS,
            handler_cancellation=True,
            keepalive_timeout=IDLE_SECONDS,
            logger=_http_log,
            auto_decompress=False,  # no launcher compresses, and what a stranger packs can grow a thousandfold
            max_headers=HEADERS,
            read_bufsize=READ_BYTES,
            lingering_time=LINGER_SECONDS,
        )
        await self._runner.setup()
        self._listener = listener.dup()
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self._tls = tls
        self._begin(self._accept(self._listener))

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        for task in list(self._tasks):
            task.cancel()
        if self._look is not None:
            self._look.cancel()
            self._look = None
        for sock in self._waiting.clear():
            sock.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        """Let connections in one by one: each is counted before a TLS handshake is spent on it."""
        loop, silent_until = asyncio.get_running_loop(), 0.0
        for number in itertools.count(1):
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:
                if loop.time() >= silent_until:
                    silent_until = loop.time() + FULL_REMINDER_SECONDS
                    remedy = ": raise ulimit -n" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
                    log.warning("no connection can be accepted now: %s%s", error, remedy)
                await asyncio.sleep(FULL_SECONDS)
                continue
            self._came(sock, str(address[0]), loop.time())
            if number % IN_AT_ONCE == 0:
                # A burst must not be over before the first of it have been heard; but not one by one, for a turn of the
                # loop may take as long as a decision about a thousand workers.
                await asyncio.sleep(0)

    def _came(self, sock: socket.socket, host: str, now: float) -> None:
        visit = None if self._waiting.has(host) else self._door.enter(host, now)
        if visit is not None:
            self._let_in(sock, visit)
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WAITING_BYTES)
        if out := self._waiting.join(host, sock, now):
            self._send_off(*out)
        self._look_again()

    def _look_again(self) -> None:
        if self._look is None and self._waiting:
            self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look_out)

    def _look_out(self) -> None:
        """See to those who wait: in comes who has room, and off goes who has waited too long."""
        self._look, now = None, asyncio.get_running_loop().time()
        for sock, visit in itertools.islice(self._waiting.admit(now), IN_AT_ONCE):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READING_BYTES)
            self._let_in(sock, visit)
        for host, sock in self._waiting.late(now):
            self._send_off(host, sock)
        self._look_again()

    def _let_in(self, sock: socket.socket, visit: Visit) -> None:
        task = self._begin(self._welcome(sock, visit, self._tls))
        task.add_done_callback(partial(_shut, sock))
        visit.close = task.cancel

    def _send_off(self, host: str, sock: socket.socket) -> None:
        sock.close()
        self._on_refused(Refusal("too-many-connections", host))

    async def _welcome(self, sock: socket.socket, visit: Visit, tls: ssl.SSLContext | None) -> None:
        assert self._runner is not None and self._runner.server is not None
        server = self._runner.server
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Guest(server(), visit, self._door, self._body, self._on_refused),
                sock,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
                ssl_shutdown_timeout=LINGER_SECONDS if tls else None,
            )
        except (OSError, TimeoutError) as error:  # what ssl raises is an OSError
            self._door.leave(visit)
            sock.close()
            self._on_refused(Refusal("no-tls", str(error)))
        except BaseException:
            self._door.leave(visit)
            raise


def _shut(sock: socket.socket, welcome: asyncio.Task[None]) -> None:
    """Of one that did not come to be a guest; it may have been turned away before it was even looked at."""
    if welcome.cancelled() or welcome.exception():
        sock.close()
