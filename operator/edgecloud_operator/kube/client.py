"""Requests to the API server: plain dicts out and in, a time limit on each, and an exception for each way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from edgecloud.api.job import GROUP, PLURAL, VERSION
from edgecloud_operator.controller.cluster import AwayError
from edgecloud_operator.kube.access import AccessError, bearer_token

REQUEST_SECONDS: Final = 20.0
"""How long a request may take in all. One that takes longer is given up, and whoever wanted it tries again."""
PAGE: Final = 500
"""Objects in one page of a list."""
ACCEPT: Final = "application/json, application/jwk-set+json"
"""The latter is what a server's public keys come as; it gives them out as nothing else."""
MERGE_PATCH: Final = "application/merge-patch+json"
DEPTH: Final = 12_000
"""An API server takes objects that are nested 10,000 deep, and lists them beside all others. Python's own limit would
make such a list unreadable, and one user's spec.podTemplate would stop the operator for all. (Of the 8 MiB of a
thread's stack, reading one takes less than half.)"""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Kind = Literal["TrainingJob", "Pod", "Service", "ConfigMap", "Event", "Secret", "Lease"]
_PLACES: Final[dict[Kind, tuple[str, str]]] = {
    "TrainingJob": (f"/apis/{GROUP}/{VERSION}", PLURAL),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Event": ("/api/v1", "events"),
    "Secret": ("/api/v1", "secrets"),
}


class ApiError(Exception):
    """The API server said no.

    status: HTTP status; 0 where there was no answer. reason: Kubernetes' one word for it, such as AlreadyExists.
    """

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}


class BadRequestError(ApiError):
    """400: it does not understand the object."""


class UnauthorizedError(ApiError):
    """401: it does not accept our credentials."""


class ForbiddenError(ApiError):
    """403: not allowed, to us or to anybody: RBAC, a quota, an admission rule."""


class NotFoundError(ApiError):
    """404: no such object, namespace or kind."""


class AlreadyExistsError(ApiError):
    """409 on a create: there is one of that name."""


class ChangedError(ApiError):
    """409 on a change: the object is not the one, or not in the version, that was meant."""


class ExpiredError(ApiError):
    """410: a version of the past that the server no longer has."""


class InvalidError(ApiError):
    """422: it understands the object and finds it wrong."""


class UnavailableError(ApiError, AwayError):
    """429, 5xx, no connection or no answer in time: the same request may succeed later."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    410: ExpiredError,
    422: InvalidError,
    429: UnavailableError,
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some objects of a list, and the list's version of the store; that is empty where the server named none."""

    items: list[dict[str, Any]]
    version: str


def path(kind: Kind, namespace: str | None, name: str | None = None, *, sub: str = "") -> str:
    """Path of a collection (without a name) or of an object; namespace None: of all namespaces."""
    root, plural = _PLACES[kind]
    parts = [root, f"namespaces/{quote(namespace, safe='')}" if namespace is not None else ""]
    parts += [plural, quote(name, safe="") if name is not None else "", sub]
    return "/".join(part for part in parts if part)


def error_of(status: int, body: bytes) -> ApiError:
    """The exception for an answer that is no success. The body is a Status object, or whatever a proxy says."""
    said: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(body)
    if not isinstance(said, dict):
        said = {"message": body[:300].decode("utf-8", "replace").strip()}
    reason, details = said.get("reason"), said.get("details")
    reason = reason if isinstance(reason, str) else ""
    if status == 409:
        kind: type[ApiError] = AlreadyExistsError if reason == "AlreadyExists" else ChangedError
    else:
        kind = _BY_STATUS.get(status) or (UnavailableError if status >= 500 else ApiError)
    return kind(
        str(said.get("message") or "no message"),
        status=status,
        reason=reason,
        details=details if isinstance(details, dict) else None,
    )


class Client:
    """One API server, and a pool of connections to it."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        reload: Callable[[], Awaitable[Configuration]] | None = None,
        seconds: float = REQUEST_SECONDS,
        on_request: Callable[[Method, str, int, float], None] | None = None,
    ) -> None:
        """reload: gives fresh credentials when the present ones are refused. seconds: time limit of a request.

        on_request: told of each that has ended: method, path, HTTP status (0: no answer), and how long it took.
        """
        sys.setrecursionlimit(max(sys.getrecursionlimit(), DEPTH))
        self._configuration = configuration
        self._reload = reload
        self._api = ApiClient(configuration)
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._on_request = on_request

    @property
    def configuration(self) -> Configuration:
        return self._configuration

    async def close(self) -> None:
        await self._api.close()

    async def request(
        self,
        method: Method,
        where: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Make a request and return the object of the answer.

        Raises:
            ApiError: in the class that says why.
        """
        try:
            return await self._request(method, where, query, body, content_type)
        except UnauthorizedError:
            if self._reload is None:
                raise
        await self._renew()
        return await self._request(method, where, query, body, content_type)

    async def _renew(self) -> None:
        """Take the credentials that are on disk now.

        Raises:
            UnauthorizedError: there are none that could be read.
        """
        assert self._reload is not None
        try:
            configuration = await self._reload()
        except AccessError as error:
            raise UnauthorizedError(str(error), status=401) from error
        # Nothing awaits from here on: of requests that are refused side by side, each closes its predecessor's session.
        old, self._api, self._configuration = self._api, ApiClient(configuration), configuration
        # Requests that are under way on the old connections may finish.
        asyncio.get_running_loop().call_later(self._timeout.total or 0.0, lambda: asyncio.ensure_future(old.close()))

    async def _request(
        self,
        method: Method,
        where: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
    ) -> dict[str, Any]:
        url = self._configuration.host + where + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": ACCEPT, "Content-Type": content_type, "User-Agent": "edgecloud-operator"}
        began, status = time.monotonic(), 0
        try:
            if token := await bearer_token(self._configuration):
                headers["Authorization"] = f"Bearer {token}"
            response = await self._api.call_api(method, url, headers, body, _request_timeout=self._timeout)
            data = await response.read()
            status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"{method} {where}: {type(error).__name__} {error}".rstrip()) from error
        finally:
            if self._on_request:
                self._on_request(method, where, status, time.monotonic() - began)
        if not 200 <= response.status < 300:
            raise error_of(response.status, data)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UnavailableError(f"{method} {where}: the answer is no JSON", status=response.status) from error
        if not isinstance(answer, dict):
            raise UnavailableError(f"{method} {where}: the answer is no object", status=response.status)
        return answer

    async def pages(self, kind: Kind, namespace: str | None, *, selector: str = "") -> AsyncIterator[Page]:
        """All objects of a kind, page by page, in one namespace or in all (None), by label selector.

        Raises:
            ExpiredError: the server no longer has the later pages of this list.
            ApiError: in the class that says why.
        """
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        version = ""
        while True:
            page = await self.request("GET", path(kind, namespace), query=query)
            metadata = page.get("metadata") or {}
            version = version or str(metadata.get("resourceVersion") or "")
            yield Page(items=[item for item in page.get("items") or () if isinstance(item, dict)], version=version)
            if not metadata.get("continue"):
                return
            query["continue"] = str(metadata["continue"])
