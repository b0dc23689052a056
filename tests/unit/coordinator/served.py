"""A coordinator on a real socket, workers of two jobs with tokens, and the polls that they send."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, TypeVar

import aiohttp

from edgecloud.protocol import Directive, RunOrder
from edgecloud_operator.coordinator.admission import Identity, Refusal
from edgecloud_operator.coordinator.desk import Desk, JobKey
from edgecloud_operator.coordinator.door import Door
from edgecloud_operator.coordinator.server import Authenticate, CoordinatorServer

DEADLINE: Final = 15.0
T = TypeVar("T")


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a scenario to its end; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(work, 60))


async def eventually(look: Callable[[], object], what: str, saw: Callable[[], object] = lambda: "") -> None:
    """Wait until there is something to see; a failure says what was seen instead."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE
    while not look():
        assert loop.time() < deadline, f"not within {DEADLINE} s: {what}; saw: {saw()}"
        await asyncio.sleep(0.005)


async def soon(answer: Awaitable[T]) -> T:
    """The result of what should not take long."""
    return await asyncio.wait_for(answer, DEADLINE)


def identity(job: str = "digits", index: int = 0, namespace: str = "team") -> Identity:
    """A worker, whose token is `<job>-<index>`."""
    return Identity(namespace=namespace, job=job, job_uid=f"uid-of-{job}", pod_uid=f"pod-{job}-{index}", index=index)


_sequence = count(1)


def report(who: Identity, **fields: Any) -> dict[str, Any]:
    """What the worker's launcher says: that it is idle, unless the fields (in camelCase) say something else."""
    default: dict[str, Any] = {
        "protocol": 1,
        "jobUid": who.job_uid,
        "podUid": who.pod_uid,
        "sequence": next(_sequence),
        "hold": 0,
        "round": 0,
        "state": "idle",
        "address": "10.0.0.1",
        "nextPort": 20000,
    }
    return default | fields


def knows(directive: Directive) -> dict[str, Any]:
    """The acknowledgement of a directive."""
    return {"ack": {"action": directive.action, "round": directive.round}}


def run_directive(number: int, **fields: Any) -> Directive:
    order = RunOrder(
        first_rank=0, world_size=2, processes=1, group_rank=0, group_size=2, master_address="10.0.0.1", master_port=2000
    )
    return Directive(action="run", round=number, run=order, **fields)


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    seconds: float

    @property
    def reason(self) -> str:
        return str(self.body.get("reason"))


@dataclass
class Served:
    """The coordinator that is being tested, and the client's side of it."""

    desk: Desk
    port: int
    session: aiohttp.ClientSession
    identities: dict[str, Identity | Refusal]
    door: Door
    reported: list[JobKey] = field(default_factory=list)
    """The jobs of which a report was taken up, in order."""

    def path(self, who: Identity) -> str:
        return f"/v1/namespaces/{who.namespace}/trainingjobs/{who.job}/workers/{who.index}/poll"

    async def poll(self, who: Identity, **fields: Any) -> Answer:
        """A report of the worker, and the answer."""
        return await self.post(json.dumps(report(who, **fields)).encode(), who)

    async def post(
        self,
        body: Any,
        who: Identity,
        *,
        path: str | None = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Any body to any path with any token; by default the worker's own. token "": without one."""
        token = f"{who.job}-{who.index}" if token is None else token
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        url = f"http://127.0.0.1:{self.port}{path or self.path(who)}"
        started = asyncio.get_running_loop().time()
        async with self.session.post(url, data=body, headers=sent) as response:
            text = await response.text()
            seconds = asyncio.get_running_loop().time() - started
        return Answer(response.status, json.loads(text) if text.startswith("{") else {"text": text}, seconds)

    def publish(self, who: Identity, directive: Directive, *, finished: bool = False) -> None:
        key = (who.namespace, who.job)
        self.desk.publish(key, {who.pod_uid: directive}, current_round=directive.round, finished=finished)

    async def connect(self, text: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which these bytes were sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(text)
        await writer.drain()
        return reader, writer

    def head(self, who: Identity, length: int | None, *more: str) -> bytes:
        """The head of a poll; the body has so many bytes, or is chunked."""
        lines = [
            f"POST {self.path(who)} HTTP/1.1",
            "Host: coordinator",
            f"Authorization: Bearer {who.job}-{who.index}",
            "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}",
            *more,
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@asynccontextmanager
async def serving(
    *workers: Identity, door: Door | None = None, authenticate: Authenticate | None = None
) -> AsyncIterator[Served]:
    """A coordinator that knows these workers, or three of a job and two of another. door: by default a wide one."""
    known = workers or (*(identity("digits", index) for index in range(3)), identity("other", 0), identity("other", 1))
    identities: dict[str, Identity | Refusal] = {f"{who.job}-{who.index}": who for who in known}

    async def known_by_name(token: str) -> Identity | Refusal | None:
        return identities.get(token)

    reported: list[JobKey] = []
    desk = Desk(reported.append, requests_at_once=10**6)
    door = door or Door(of_address=10**6, of_worker=10**6, at_once=10**6)
    server = CoordinatorServer(desk, authenticate or known_by_name, door=door)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.setblocking(False)
        await server.start(listener)
        # A connection that has been idle for a while may be closed by the server at any moment.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=0.3)
        try:
            async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
                yield Served(desk, listener.getsockname()[1], session, identities, door, reported)
        finally:
            await server.stop()
