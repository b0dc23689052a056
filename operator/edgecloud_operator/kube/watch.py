"""kopf as an informer: it lists, watches and reconnects, and hands every event on. It never writes anything."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import kopf
from kubernetes.aio.client import Configuration

from edgecloud.api.job import API_VERSION, PLURAL
from edgecloud_operator.kube.access import kopf_login
from edgecloud_operator.kube.sight import SELECTOR
from edgecloud_operator.kube.store import WatchedKind

log = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 30.0
STOP_SECONDS: Final = 3.0
"""How long the watch may take to end before it is left to the end of the process."""

Told = Callable[[WatchedKind, str | None, dict[str, Any]], None]
"""Takes an event: kind, type (None for an object of a list, else ADDED, MODIFIED or DELETED), and the object."""


class _Patience:
    """Pauses between attempts of a request, in seconds; there is always one more: an outage is not a crash."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1.0, 2.0, 5.0)
        while True:
            yield 10.0


class _NoMemory(kopf.DiffBaseStorage):
    """Handlers of events need no notion of what has changed; working it out would double the cost of each."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


def settings() -> kopf.OperatorSettings:
    """kopf's settings: server-side selectors, endless patience, no peering, no scanning, no posting."""
    made = kopf.OperatorSettings()
    made.persistence.diffbase_storage = _NoMemory()
    made.scanning.disabled = True
    made.posting.enabled = False
    made.process.ultimate_exiting_timeout = None
    made.networking.request_timeout = REQUEST_SECONDS
    made.networking.error_backoffs = _Patience()
    made.watching.chunk_size = 500
    made.queueing.idle_timeout = 1.0
    made.queueing.exit_timeout = 0.2
    for kind in ("pods", "services"):
        made.watching.label_selectors["v1", kind] = SELECTOR
    return made


def registry(told: Told, login: Callable[[], Any]) -> kopf.OperatorRegistry:
    """The handlers: one of events for each kind, nothing that would make kopf patch an object."""
    made = kopf.OperatorRegistry()

    def on(kind: WatchedKind, *resource: str) -> None:
        async def seen(event: Any, **_: Any) -> None:  # what a handler returns would be written into the object
            told(kind, event["type"], event["object"])

        kopf.on.event(*resource, id=f"saw-{kind.lower()}", registry=made)(seen)

    async def credentials(**_: Any) -> Any:
        return await login()

    kopf.on.login(id="access", registry=made)(credentials)
    on("TrainingJob", API_VERSION, PLURAL)
    on("Service", "v1", "services")
    on("Pod", "v1", "pods")
    return made


class Watch:
    """Runs kopf in a thread of its own.

    kopf takes every task of its loop that it did not know before for its own, and cancels them all when it ends.
    """

    def __init__(self, configuration: Callable[[], Configuration], namespaces: Collection[str], told: Told) -> None:
        """configuration: gives the access of the moment. told: called in the loop that runs `run`."""
        self._configuration = configuration
        self._namespaces = namespaces
        self._told = told

    async def run(self) -> None:
        """Watch until kopf gives up, which it does when a kind is gone or a watch answers something unheard of.

        Raises:
            Exception: whatever it gave up for.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()
        inner: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

        def tell(kind: WatchedKind, what: str | None, raw: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(self._told, kind, what, raw)

        async def operate() -> None:
            stop = asyncio.Event()
            inner.append((asyncio.get_running_loop(), stop))
            await kopf.operator(
                registry=registry(tell, self._login),
                settings=settings(),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=tuple(self._namespaces),
                stop_flag=stop,
            )

        def work() -> None:
            error: BaseException | None = None
            try:
                asyncio.run(operate())
            except BaseException as caught:
                error = caught
            try:
                loop.call_soon_threadsafe(_settle, ended, error)
            except RuntimeError:
                log.debug("the watch ended after everything else")

        thread = threading.Thread(target=work, name="watch", daemon=True)
        thread.start()
        try:
            error = await asyncio.shield(ended)
        except asyncio.CancelledError:
            for its_loop, stop in inner:
                its_loop.call_soon_threadsafe(stop.set)
            await asyncio.wait({ended}, timeout=STOP_SECONDS)
            raise
        if error is not None:
            raise error

    async def _login(self) -> kopf.ConnectionInfo:
        return await kopf_login(self._configuration())


def _settle(ended: asyncio.Future[BaseException | None], error: BaseException | None) -> None:
    if not ended.done():
        ended.set_result(error)
