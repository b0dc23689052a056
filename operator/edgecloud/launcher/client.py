"""HTTP/1.1 as far as a poll needs it: one POST at a time over a connection that is kept open. Everything is bounded."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgecloud.launcher.config import Endpoint, tls_context

MAX_ANSWER = 64 * 1024
CONNECT_SECONDS = 5.0

T = TypeVar("T")


class ExchangeError(Exception):
    """An exchange failed. `kind` tells equal troubles from new ones; `text` is for the log."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class StaleConnectionError(Exception):
    """A kept connection turned out to have been closed meanwhile: the request may be sent again at once."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


async def within(work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
    """The result of `work`, or ExchangeError after so many seconds. (asyncio.wait_for has lost cancellations.)"""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    if task.cancelled() or not task.done():
        raise ExchangeError("timeout", f"{what} took more than {seconds:g} s")
    return task.result()


class Connection:
    """One connection to the coordinator, opened when it is needed."""

    def __init__(self, endpoint: Endpoint, ca_file: Path | None) -> None:
        self._endpoint = endpoint
        self._ca_file = ca_file
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._fresh = True
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._name = f"{host}:{endpoint.port}"

    async def post(self, body: bytes, token: str, *, seconds: float) -> Answer:
        """Send a body and return the answer, whatever its status.

        Raises:
            ExchangeError: no answer in time, or none that can be read.
            StaleConnectionError: the connection was an old one, and the answer did not even begin.
        """
        try:
            reader, writer = await self._open()
            answer, keep = await within(self._exchange(reader, writer, body, token), seconds, "the answer")
        except BaseException:
            self.close()
            raise
        if not keep:
            self.close()
        return answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and (self._streams[0].at_eof() or self._streams[1].transport.is_closing()):
            self.close()
        if self._streams is None:
            self._fresh = True
            self._streams = await within(self._connect(), CONNECT_SECONDS, f"connecting to {self._name}")
        else:
            self._fresh = False
        return self._streams

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            context = tls_context(self._ca_file) if self._endpoint.tls else None
            return await asyncio.open_connection(
                self._endpoint.host, self._endpoint.port, ssl=context, limit=MAX_ANSWER
            )
        except ConnectionRefusedError:
            raise ExchangeError("refused", f"nobody listens at {self._name}") from None
        except socket.gaierror as error:
            raise ExchangeError(
                "name", f"the name {self._endpoint.host} cannot be resolved: {error.strerror}"
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise ExchangeError(
                "certificate", f"its certificate is not to be trusted: {error.verify_message}"
            ) from None
        except ssl.SSLError as error:
            raise ExchangeError("tls", f"no TLS with {self._name}: {error}") from None
        except OSError as error:
            raise ExchangeError("network", f"cannot connect to {self._name}: {error}") from None

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes, token: str
    ) -> tuple[Answer, bool]:
        head = (
            f"POST {self._endpoint.path} HTTP/1.1\r\n"
            f"Host: {self._name}\r\n"
            f"Authorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\n"
            "Accept: application/json\r\n"
            "User-Agent: edgecloud-launcher\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode("ascii") + body)
            await writer.drain()
            answer_head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError) as error:
            if not self._fresh and not (isinstance(error, asyncio.IncompleteReadError) and error.partial):
                raise StaleConnectionError from None
            raise ExchangeError("closed", "it closed the connection without an answer") from None
        except asyncio.LimitOverrunError:
            raise ExchangeError("answer", "the head of its answer is too long") from None
        status, headers = parse_head(answer_head)
        length = content_length(status, headers)
        try:
            data = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            raise ExchangeError("closed", "it closed the connection within its answer") from None
        keep = answer_head.startswith(b"HTTP/1.1") and headers.get("connection", "").lower() != "close"
        return Answer(status, data), keep


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers (names in lower case) of an answer.

    Raises:
        ExchangeError: it is no HTTP.
    """
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdigit() and len(status) == 3):
        raise ExchangeError("answer", f"its answer is no HTTP/1.1: {lines[0][:60]!r}")
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return int(status), headers


def content_length(status: int, headers: dict[str, str]) -> int:
    """How long the body is.

    Raises:
        ExchangeError: it does not say, or too long.
    """
    if status in (204, 304):
        return 0
    text = headers.get("content-length", "")
    if "transfer-encoding" in headers or not (text.isascii() and text.isdigit()):
        raise ExchangeError("answer", f"its answer (status {status}) does not say how long it is")
    if len(text) > 9 or int(text) > MAX_ANSWER:
        raise ExchangeError("answer", f"its answer is longer than {MAX_ANSWER} bytes")
    return int(text)
