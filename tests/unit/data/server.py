"""A web server on the loopback that serves files, well or badly."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote


@dataclass
class Site:
    """What is served, and how."""

    files: Mapping[str, bytes]
    """By path, such as /a.tar; folders are listed."""
    ranges: bool = True
    etag: str = '"1"'
    heeds_if_range: bool = True
    modified: str = ""
    """Last-Modified."""
    queries: bool = False
    """Whether a query is part of a file's path."""
    cut_after: int | None = None
    """Bytes of a file after which the connection is closed."""
    cuts: int = 1_000_000
    """How often."""
    length_of_head: int | None = None
    length_of_get: int | None = None
    status: int | None = None
    """Instead of any file."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """What listings say beside a file's name."""
    listing: bytes | None = None
    """Instead of the right one."""
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, Range) of each request."""
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _answer(self, *, body: bool) -> None:
        site, path = self.site, unquote(self.path if self.site.queries else self.path.partition("?")[0])
        part = self.headers.get("Range", "")
        site.seen.append((self.command, path, part))
        if path.endswith("/"):
            self._send(200, "text/html", site.listing or self._listing(path), body=body)
        elif site.status is not None:
            self._send(site.status, "text/plain", b"no", body=body)
        elif path not in site.files:
            self._send(404, "text/plain", b"no", body=body)
        else:
            self._file(site.files[path], part, body=body)

    def _listing(self, folder: str) -> bytes:
        below = {path.removeprefix(folder) for path in self.site.files if path.startswith(folder)}
        names = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in below})
        rows = "".join(
            f'<a href="{_link(name)}">{escape(name)}</a> {self.site.beside.get(name, "")}\n' for name in names
        )
        return f'<html><a href="../">up</a><a href="?C=N;O=D">Name</a>{rows}</html>'.encode()

    def _send(self, status: int, kind: str, contents: bytes, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        if body:
            self.wfile.write(contents)

    def _file(self, contents: bytes, part: str, *, body: bool) -> None:
        site, start = self.site, 0
        match = re.fullmatch(r"bytes=(\d+)-", part)
        valid = not site.heeds_if_range or self.headers.get("If-Range") in (None, site.etag, site.modified)
        if site.ranges and match is not None and valid and int(match[1]) < len(contents):
            start = int(match[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(contents) - 1}/{len(contents)}")
        else:
            self.send_response(200)
        said = site.length_of_get if body else site.length_of_head
        length = len(contents) - start if said is None else said
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.modified:
            self.send_header("Last-Modified", site.modified)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if not body:
            return
        rest = contents[start:]
        if site.cut_after is not None and len(rest) > site.cut_after and site.cuts:
            site.cuts -= 1
            rest = rest[: site.cut_after]
            self.close_connection = True
        self.wfile.write(rest)


def _link(name: str) -> str:
    """As Apache writes it."""
    return escape(quote(name, safe="/~!$&'()*,;=:@+"), quote=False)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    """Connections that come at once; one too many would wait for a second."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are nothing to tell of."""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """The site, at `site.url`."""
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
