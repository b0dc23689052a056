"""Files at URLs, through fsspec: what they are, their bytes from any place on, and what went wrong in our words."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from copy import copy
from typing import Any, Final, NamedTuple, Self, cast
from urllib.parse import urlsplit, urlunsplit

from edgecloud.urls import SCHEME, public, without_secrets
from edgecloud_trainer.data.dataset import CHUNK_BYTES, PASSING, DataError, RefusedError, TransferError
from edgecloud_trainer.data.listing import PIECE, links

_URL: Final = re.compile(rf"(?:{SCHEME}::)*{SCHEME}://")
_EXTRAS: Final = {"http": "trainer", "https": "trainer", "s3": "s3", "s3a": "s3"}
_CONNECT_SECONDS: Final = 30.0
_READ_SECONDS: Final = 60.0
_PLAIN: Final = {"Accept-Encoding": "identity"}
"""Else a server may pack what it sends, and sizes and places in the file are others."""
_MAX_DEPTH: Final = 8
MAX_FOLDERS: Final = 300_000
"""That a web server lists below one: 100,000 classes in three splits."""
_MAX_SAID: Final = 200
"""Characters of somebody else's message."""
_PASSING_STATUS: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


class Found(NamedTuple):
    """What is at a URL."""

    is_folder: bool
    size: int | None
    """In bytes; None if its server doesn't say."""
    version: str
    """Of its contents, as far as its server says: another text, other contents. "" if it says no more than a size."""

    @property
    def mark(self) -> str:
        """The version, else the size: another text, other contents; but other contents may have the same text."""
        return self.version or ("" if self.size is None else f"size: {self.size}")

    @property
    def has_etag(self) -> bool:
        """Whether the version says itself which contents they are, byte by byte, by whatever URL."""
        return (_validator(self.version) or "").startswith('"')


class Stream(NamedTuple):
    """A file's bytes from some place on."""

    start: int
    """The place: 0 if the server can't give them from anywhere else."""
    size: int | None
    """Of the whole file; None if its server doesn't say."""
    chunks: Iterator[bytes]


def is_url(text: str) -> bool:
    """Whether a source is a URL and not a path."""
    return _URL.match(text) is not None


def _address(url: str) -> str:
    """A URL without user and password, which don't decide what it leads to."""
    one = urlsplit(url)
    return urlunsplit((one.scheme, one.netloc.rpartition("@")[2], one.path, one.query, ""))


class FileSystem:
    """What a URL's scheme leads to."""

    def __init__(self, url: str) -> None:
        """Some file systems connect at once.

        Raises:
            DataError: it is none, nobody knows its scheme here, it needs a package that isn't installed, or it can't be
                reached.
        """
        self._url = url
        try:
            self.public = public(url)
            self.address = _address(url)
            """With its query, which may be secret: never to be shown or kept as it is."""
        except ValueError as error:
            said = without_secrets(str(error), url)
            raise DataError(f"what begins with {url.partition('://')[0]}:// is no URL ({said}): check it") from error
        scheme = url.partition("://")[0].lower()
        if "::" in url:
            raise DataError(f"{self.public} is a chain of URLs: give the one that the data are at")
        with self._translated():
            try:
                from fsspec.core import url_to_fs  # type: ignore[import-untyped]

                self._fs, self.path = url_to_fs(url, **_options(scheme))
            except ImportError as error:
                extra = _EXTRAS.get(scheme)
                remedy = f"pip install '.[{extra}]' in EdgeCloud's folder" if extra else "install it"
                raise DataError(f"{self.public} needs a package that isn't installed ({error}): {remedy}") from error
            except ValueError as error:
                said = without_secrets(str(error), url)
                raise DataError(f"{self.public} can't be opened ({said}): give a path, or http, https or s3") from error
        self.is_http = scheme in ("http", "https")

    def at(self, path: str) -> Self:
        """The same, with another path of those that `walk` gives."""
        other = copy(self)
        other.path = path
        other.public = public(self._fs.unstrip_protocol(path))
        return other

    def find(self) -> Found:
        """What the URL leads to; of http, a folder's ends in /.

        Raises:
            DataError: nothing, or it can't be reached.
        """
        if self.is_http and urlsplit(self.path).path.endswith("/"):
            return Found(is_folder=True, size=None, version="")
        with self._translated():
            info = self._fs.info(self.path)
        return Found(is_folder=info.get("type") == "directory", size=info.get("size"), version=_version(info))

    def walk(self, most: int) -> Iterator[tuple[str, str, Found]]:
        """Every folder and file below the folder: its path below it, its path for `stream`, and what it is.

        Raises:
            DataError: it can't be listed, or there are more files than `most`.
        """
        below = _links(self._fs, self.path) if self.is_http else _entries(self._fs, self.path)
        with self._translated():
            for count, one in enumerate(below):
                if count >= most:
                    raise DataError(f"{self.public} holds more than {most} files: pack them as a tar file")
                yield one

    def stream(self, path: str, start: int = 0, version: str = "") -> Stream:
        """A file's bytes.

        Args:
            path: `self.path`, or one from `walk`.
            start: from where on, if the server can do that and has shown that it still has the same version.
            version: what `find` said; "" gives the file from its start on.

        Raises:
            DataError: the file can't be read; TransferError: it may be that it can later. Also from the chunks.
        """
        with self._translated():
            return (self._http_stream if self.is_http else self._plain_stream)(path, start, version)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of fsspec, aiohttp and the file systems as ours."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            cause = error
            if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
                cause = error.__cause__  # fsspec says of all that goes wrong when it asks for a size: nothing is there
            raise _problem(self.public, cause, self._url) from error

    def _plain_stream(self, path: str, start: int, version: str) -> Stream:
        info = self._fs.info(path)
        if not version or _version(info) != version:
            start = 0
        file = self._fs.open(path, "rb")
        file.seek(start)
        return Stream(start, info.get("size"), self._chunks(file))

    def _http_stream(self, path: str, start: int, version: str) -> Stream:
        headers = dict(_PLAIN)
        if start and (validator := _validator(version)):
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        # With a block size of 0 it is one request; with a size it doesn't ask for it first.
        file = self._fs.open(path, "rb", block_size=0, size=1, headers=headers)
        response = cast("Any", file).r
        begins, size = 0, response.headers.get("Content-Length")
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != start:
                file.close()
                raise TransferError(
                    f"{self.public} was asked for its bytes from {start} on and sends others: try again"
                )
            if not _agrees(response.headers, version):  # a server that doesn't know If-Range
                file.close()
                return self._http_stream(path, 0, version)
            begins, size = start, None if match[2] == "*" else match[2]
        return Stream(begins, int(size) if size and size.isdigit() else None, self._chunks(file))

    def _chunks(self, file: Any) -> Iterator[bytes]:
        with self._translated(), closing(file):
            while data := file.read(CHUNK_BYTES // 16):
                yield data


def _options(scheme: str) -> dict[str, Any]:
    if scheme not in ("http", "https"):
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}, "headers": _PLAIN, "simple_links": False}


def _version(info: dict[str, Any]) -> str:
    """What a server says of a file's version. Its name is part of it, so that a validator can be found in it.

    A size alone is none: those of tar files are all multiples of 10,240.
    """
    fields = ("ETag", "Last-Modified", "LastModified", "Content-MD5", "etag", "mtime", "md5Hash", "size")
    said = [f"{field}: {info[field]}" for field in fields if info.get(field) is not None]
    return "" if said and said[0].startswith("size: ") else "\n".join(said)


def _said(version: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in version.splitlines())


def _validator(version: str) -> str | None:
    """What If-Range takes: a strong ETag, else the time of the last change."""
    said = _said(version)
    etag = said.get("ETag", "")
    return etag if etag.startswith('"') else said.get("Last-Modified")


def _agrees(headers: Mapping[str, str], version: str) -> bool:
    """Whether an answer is of the version that was asked for, as far as both say."""
    said = _said(version)
    return all(headers.get(field, said[field]) == said[field] for field in ("ETag", "Last-Modified") if field in said)


def _links(fs: Any, root: str) -> Iterator[tuple[str, str, Found]]:
    """The folders and files that a web server's listings lead to, below a folder."""
    from urllib.parse import unquote

    folders, met = [root], 1
    while folders:
        folder = folders.pop()
        for url, beside in sorted(_listed(fs, folder).items()):
            relative = unquote(url.removeprefix(root))
            if not url.startswith(folder) or url == folder or "?" in url or _climbs(relative):
                continue
            if url.endswith("/"):
                if relative.count("/") > _MAX_DEPTH:
                    raise DataError(f"{public(url)} is more than {_MAX_DEPTH} folders deep: give a folder below it")
                folders.append(url)
                met += 1
                if met > MAX_FOLDERS:
                    raise DataError(f"{public(root)} holds more than {MAX_FOLDERS} folders: pack them as a tar file")
                yield relative.rstrip("/"), url, Found(is_folder=True, size=None, version="")
            else:
                yield relative, url, Found(is_folder=False, size=None, version=beside and f"listed: {beside}")


def _listed(fs: Any, folder: str) -> dict[str, str]:
    with closing(fs.open(folder, "rb", block_size=0, size=1, headers=_PLAIN)) as page:
        kind = page.r.headers.get("Content-Type", "text/html").partition(";")[0].strip().lower()
        return links(iter(lambda: page.read(PIECE), b""), folder, public(folder)) if kind == "text/html" else {}


def _entries(fs: Any, root: str) -> Iterator[tuple[str, str, Found]]:
    prefix = root.rstrip("/") + "/"
    for path, info in fs.find(root, detail=True, withdirs=True).items():
        relative = str(path).removeprefix(prefix)
        if str(path).startswith(prefix) and not _climbs(relative):
            is_folder = info.get("type") == "directory" or relative.endswith("/")
            version = "" if is_folder else _version(info)
            yield relative.rstrip("/"), path, Found(is_folder=is_folder, size=info.get("size"), version=version)


def _climbs(relative: str) -> bool:
    return not relative or relative.startswith("/") or ".." in relative.split("/") or "\\" in relative


def _problem(url: str, error: Exception, source: str) -> DataError:
    """What an error comes to. source: the URL with what may be secret, and what the error says may have that in it."""
    text, status = without_secrets(str(error), source), getattr(error, "status", None)
    if isinstance(status, int) and status > 0:
        message = without_secrets(str(getattr(error, "message", "")), source)
        reason = f"its server answers {status} {_short(message)}".strip()
        if status in _PASSING_STATUS:
            return TransferError(f"{url} can't be read now ({reason}): try again later")
        remedy = "check its rights" if status in (401, 403) else "check the URL"
        return RefusedError(f"{url} can't be read ({reason}): {remedy}")
    if isinstance(error, FileNotFoundError):
        return DataError(f"{url} isn't there: check the URL")
    if isinstance(error, PermissionError):
        return DataError(
            f"{url} can't be read ({without_secrets(error.strerror or '', source) or text}): check its rights"
        )
    if type(error).__name__.endswith("CredentialsError"):
        return DataError(f"{url} can't be read ({text}): give credentials in the environment, as its client wants them")
    if isinstance(error, ImportError):
        return DataError(f"{url} needs a package that isn't installed ({text}): install it")
    if type(error).__name__ == "ClientPayloadError":
        return TransferError(f"{url} breaks off (its server closes the connection): try again later")
    said = _short(text) or type(error).__name__
    if type(error).__name__ == "error_perm":  # of FTP: it will be the same the next time
        return DataError(f"{url} can't be read ({said}): check the URL, its user and its password")
    if isinstance(error, OSError) and error.errno is not None and error.errno not in PASSING and not _of_network(error):
        return DataError(f"{url} can't be read ({said}): check the URL")
    return TransferError(f"{url} can't be reached, or breaks off ({said}): check the URL and the network")


def _short(text: str) -> str:
    """In one line."""
    return " ".join(text.split())[:_MAX_SAID]


def _of_network(error: Exception) -> bool:
    # A name server's silence has numbers of its own, which are none of the system's.
    return (
        isinstance(error, (ConnectionError, socket.gaierror)) or type(error).__module__.partition(".")[0] == "aiohttp"
    )
