"""An export's files, from a folder or from a URL. Whoever serves them may be slow, broken or hostile."""

from __future__ import annotations

import errno
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import SplitResult, urlsplit, urlunsplit

from edgecloud.urls import public, without_secrets

TIMEOUT_SECONDS: Final = 30.0
"""Without a byte."""
DEADLINE_SECONDS: Final = 900.0
"""For a file."""
_PIECE: Final = 2**18
_REQUEST_TIMEOUT, _TOO_MANY = 408, 429
_GONE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP))


class FetchError(Exception):
    """A file can't be had. The message says why, and what to do; it holds no secret of the URL's."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing
        """Whether a second try makes sense."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def is_url(place: str) -> bool:
    """Whether it isn't the path of a folder."""
    return "://" in place


def fetch(base: str, name: str, target: Path, *, most: int, sha256: str | None = None) -> None:
    """Copy one file from below a URL.

    Args:
        base: URL of the folder: http and https by the standard library, any other scheme by fsspec. A query, such as
            an access token, is kept.
        name: of the file in it.
        target: file to write.
        most: bytes that it may have.
        sha256: that it must have.

    Raises:
        FetchError: it isn't there, is too large, another one, or can't be had now.
    """
    url = _joined(base, name)
    shown = public(urlunsplit(url))
    opened = _http if url.scheme in ("http", "https") else _fsspec
    with _written(target) as file, opened(url, shown) as source:
        digest = _copied(source, file, shown, most, time.monotonic() + DEADLINE_SECONDS)
    if sha256 is not None and digest != sha256:
        raise FetchError(
            f"{shown} is another file than report.json tells of (sha256 {digest}, not {sha256}): export again, "
            "and copy the whole folder",
            passing=False,
        )


def _joined(base: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(base)
        with_password = parts.username is not None or parts.password is not None
        _ = parts.port  # raises where it is none
    except ValueError as error:
        raise FetchError(
            f"the URL of the export can't be read ({without_secrets(str(error), base)}): write scheme://host/path",
            passing=False,
        ) from None
    if with_password and parts.scheme in ("http", "https"):
        raise FetchError(
            f"{public(base)}: user name and password in a URL end up in logs: use an address with a token in its "
            "query, or one that needs none",
            passing=False,
        )
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}", fragment="")


class _Body:
    """An answer's body as it comes: to wait for a full piece may take for ever, if its bytes come one by one."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer
        self._is_announced = answer.length is not None
        self.missing = answer.length or 0
        """Bytes that were announced and are yet to come."""

    def read(self, size: int, /) -> bytes:
        if self._is_announced and not self.missing:
            return b""
        data = self._answer.read1(min(size, self.missing) if self._is_announced else size)
        self.missing -= min(self.missing, len(data))
        return data


@contextmanager
def _http(url: SplitResult, shown: str) -> Iterator[_Readable]:
    """An answer's body. Redirections are followed to http and https only."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    try:
        answer = opener.open(urlunsplit(url), timeout=TIMEOUT_SECONDS)
        with answer:
            body = _Body(answer)
            yield body
            if body.missing:  # a piecewise read says nothing of a connection that breaks off
                raise FetchError(f"{shown} breaks off {body.missing} bytes too early: look at the server", passing=True)
    except urllib.error.HTTPError as error:
        error.close()
        passing = error.code >= 500 or error.code in (_REQUEST_TIMEOUT, _TOO_MANY)
        remedy = "look at the server" if passing else "check the address, and that it may be read from here"
        raise FetchError(f"{shown} answers {error.code}: {remedy}", passing=passing) from None
    except (http.client.InvalidURL, ValueError) as error:
        said = without_secrets(str(error), urlunsplit(url))
        raise FetchError(f"{shown} can't be asked for ({said}): check the address", passing=False) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        why = without_secrets(str(getattr(error, "reason", None) or error), urlunsplit(url)) or type(error).__name__
        raise FetchError(f"{shown} can't be reached ({why}): check the address and the network", passing=True) from None


@contextmanager
def _fsspec(url: SplitResult, shown: str) -> Iterator[_Readable]:
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError:
        raise FetchError(
            f"{shown}: {url.scheme}:// needs fsspec, which isn't installed here: use http(s), or add it to the image",
            passing=False,
        ) from None
    try:
        with fsspec.open(urlunsplit(url), "rb") as file:
            yield file
    except FetchError:
        raise
    except (ImportError, ValueError) as error:
        said = without_secrets(str(error), urlunsplit(url))
        raise FetchError(
            f"{shown} can't be opened ({said}): use http(s), or add what it needs", passing=False
        ) from None
    except OSError as error:
        raise _of_the_system(error, shown, urlunsplit(url)) from None
    except Exception as error:  # each of its file systems has errors of its own
        raise FetchError(f"{shown} can't be read ({type(error).__name__}): check the address", passing=True) from None


@contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    """A file that is there only if all went well."""
    try:
        with target.open("wb") as file:
            yield file
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copied(source: _Readable, target: BinaryIO, shown: str, most: int, deadline: float) -> str:
    """Copy it piece by piece; its sha256."""
    digest, size = hashlib.sha256(), 0
    while piece := source.read(min(_PIECE, most + 1 - size)):
        size += len(piece)
        if size > most:
            raise FetchError(f"{shown} has more than {most} bytes: that is no file of an export", passing=False)
        if time.monotonic() > deadline:
            raise FetchError(f"{shown} comes too slowly ({size} bytes in {DEADLINE_SECONDS:.0f} s)", passing=True)
        digest.update(piece)
        _write(target, piece)
    return digest.hexdigest()


def _write(target: BinaryIO, piece: bytes) -> None:
    try:
        target.write(piece)
    except OSError as error:
        raise FetchError(
            f"{target.name} can't be written ({error.strerror or error}): give the Pod more ephemeral storage",
            passing=True,
        ) from None


def _of_the_system(error: OSError, shown: str, url: str = "") -> FetchError:
    """url: what is shown, with what may be secret."""
    said = without_secrets(error.strerror or str(error), url)
    gone = error.errno in _GONE or isinstance(error, FileNotFoundError | PermissionError)
    return FetchError(f"{shown} can't be read ({said}): check it and its rights", passing=not gone)


def read(path: Path, most: int) -> bytes:
    """A small file of a folder.

    Raises:
        FetchError: it isn't there, is too large, or can't be read now.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise _of_the_system(error, str(path)) from None
    if len(data) > most:
        raise FetchError(f"{path} has more than {most} bytes: that is no file of an export", passing=False)
    return data
