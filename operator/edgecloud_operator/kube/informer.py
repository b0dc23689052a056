"""Keeps the store true: a full list first, then a watch, and a list every so often for what the watch has missed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from edgecloud_operator.kube.client import ApiError, Client, ExpiredError, ForbiddenError, NotFoundError, path
from edgecloud_operator.kube.sight import SELECTOR, mark
from edgecloud_operator.kube.store import CHILDREN, KINDS, Store, Stranger, WatchedKind
from edgecloud_operator.kube.watch import Watch

log = logging.getLogger(__name__)

RESYNC_SECONDS: Final = 240.0
"""Between two full lists."""
SOON_SECONDS: Final = 3.0
"""Until the one that follows a list of the watch's: what was deleted just before that, no watch ever tells."""
STRANGER_SECONDS: Final = 10.0
"""Between two looks at what stands in a child's place and no watch tells of."""
MAX_LISTINGS: Final = 3
"""A list whose later pages have expired on the server is begun anew; so often at most."""
LEFT_OUT: Final = (
    "namespace %s is left out until it can be listed: take it from --namespaces (the chart's value namespaces) if it is"
    " gone, else give the operator its Role there: %s"
)
FIRST_PAUSE, LAST_PAUSE = 0.5, 10.0
"""Seconds between attempts to list, and to begin the watch anew."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """How the looking has gone so far.

    heard_ago: seconds since the cluster was last heard of, by an event or a page of a list. tried_ago: the same, or
    since it was last asked for such a page. restarts: of the watch. relists: lists that the watch made by itself, those
    close together counted once. resyncs, failed_resyncs: full lists after the first.
    """

    heard_ago: float = 0.0
    tried_ago: float = 0.0
    restarts: int = 0
    relists: int = 0
    resyncs: int = 0
    failed_resyncs: int = 0


class Informer:
    """Shows a store what there is in the cluster, or in some namespaces of it."""

    def __init__(
        self,
        client: Client,
        store: Store,
        namespaces: Collection[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """namespaces: those to look at; none: all."""
        self._client = client
        self._store = store
        self._scope: tuple[str | None, ...] = tuple(dict.fromkeys(namespaces)) or (None,)
        self._left_out: dict[str | None, str] = dict.fromkeys(namespaces, "")
        """Of a list of namespaces those that have not been seen as a whole, and why: what the server said, once."""
        self._relisted = asyncio.Event()
        self._clock = clock
        self._heard_at = self._tried_at = clock()
        self._restarts = self._relists = self._resyncs = self._failed_resyncs = 0
        self._watch = Watch(lambda: client.configuration, namespaces, self._told)

    def looked(self) -> Looked:
        """How it has gone until now."""
        now = self._clock()
        return Looked(
            heard_ago=now - self._heard_at,
            tried_ago=now - max(self._tried_at, self._heard_at),
            restarts=self._restarts,
            relists=self._relists,
            resyncs=self._resyncs,
            failed_resyncs=self._failed_resyncs,
        )

    def leaves_out(self, namespace: str) -> bool:
        """Whether a namespace that is named is left out, for it can't be listed."""
        return namespace in self._left_out

    async def prime(self) -> None:
        """List everything, jobs first; as often as it takes."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self.list_all()
                return
            except NotFoundError as error:
                log.error(
                    "there are no TrainingJobs here; is the CRD installed? trying again in %.1f s (%s)", pause, error
                )
            except ApiError as error:
                log.error("the cluster cannot be listed; trying again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    async def list_all(self) -> None:
        """List everything once. Of several namespaces one that is forbidden is left out until it is listed again: one
        that is deleted takes our Role there with it, and must not stop the operator for the others. (Where none of the
        resource is found it is missing in all of them: a namespace that isn't there has an empty list.)

        Raises:
            ApiError: something could not be listed; ForbiddenError: nowhere.
        """
        # What belongs to jobs comes first where jobs were not shown yet: they would seem to be without.
        order = [(kind, namespace) for namespace in self._left_out for kind in CHILDREN]
        order += [(kind, namespace) for kind in KINDS for namespace in self._scope]
        forbidden: dict[str | None, str] = {}
        for kind, namespace in order:
            if namespace in forbidden:
                continue
            try:
                await self._list(kind, namespace)
            except ForbiddenError as error:
                forbidden[namespace] = str(error)
                if len(forbidden) == len(self._scope):
                    raise
        self._leave_out(forbidden)

    def _leave_out(self, forbidden: dict[str | None, str]) -> None:
        for namespace, why in forbidden.items():
            if not self._left_out.get(namespace):
                log.error(LEFT_OUT, namespace, why)
        for namespace, why in self._left_out.items():
            if why and namespace not in forbidden:
                log.info("namespace %s can be listed again", namespace)
        self._left_out = forbidden

    async def _list(self, kind: WatchedKind, namespace: str | None) -> None:
        for attempt in range(1, MAX_LISTINGS + 1):
            try:
                await self._list_once(kind, namespace)
                return
            except ExpiredError:
                if attempt == MAX_LISTINGS:
                    raise

    async def _list_once(self, kind: WatchedKind, namespace: str | None) -> None:
        """Of the pages that were shown only the uids are kept: a big cluster's objects are big."""
        uids: set[str] = set()
        version = ""
        self._tried_at = self._clock()
        async for page in self._client.pages(kind, namespace, selector="" if kind == "TrainingJob" else SELECTOR):
            self._heard_at = self._clock()
            version = page.version
            for raw in page.items:
                self._store.saw(kind, raw)
                if which := mark(raw):
                    uids.add(which.uid)
        self._store.listed(kind, uids, version, namespace)

    async def run(self) -> None:
        """Follow what happens, for ever; after `prime`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._resync())
            group.create_task(self._look_at_strangers())

    async def _follow(self) -> None:
        pause = FIRST_PAUSE
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._watch.run()
                log.error("the watch has ended; it begins anew in %.1f s", pause)
            except Exception as error:
                log.error("the watch has broken off and begins anew in %.1f s: %r", pause, error)
            self._restarts += 1
            await asyncio.sleep(pause)
            lasted = asyncio.get_running_loop().time() - began
            pause = FIRST_PAUSE if lasted > 60.0 else min(2 * pause, LAST_PAUSE)
            await self.prime()

    def _told(self, kind: WatchedKind, what: str | None, raw: dict[str, Any]) -> None:
        """An event of the watch's."""
        self._heard_at = self._clock()
        try:
            if what is None:
                self._relists += not self._relisted.is_set()
                self._relisted.set()
            if self._is_early(kind, what, raw):
                self._relisted.set()  # it is time to try and list its namespace
            elif what == "DELETED":
                self._store.gone(kind, raw)
            else:
                self._store.saw(kind, raw)
        except Exception:
            log.exception("a %s was not understood", kind)

    def _is_early(self, kind: WatchedKind, what: str | None, raw: dict[str, Any]) -> bool:
        """Whether this is a job that was not seen before, and whose Pods may be there unseen."""
        which = mark(raw) if kind == "TrainingJob" and what != "DELETED" else None
        return (
            which is not None
            and which.namespace in self._left_out
            and self._store.job((which.namespace, which.name)) is None
        )

    async def _resync(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RESYNC_SECONDS):
                    await self._relisted.wait()
                await asyncio.sleep(SOON_SECONDS)
            except TimeoutError:
                pass
            self._relisted.clear()
            try:
                await self.list_all()
                self._resyncs += 1
            except ApiError as error:
                self._failed_resyncs += 1
                log.warning("the cluster could not be listed again: %s", error)
            except Exception:
                self._failed_resyncs += 1
                log.exception("the cluster could not be listed again")

    async def _look_at_strangers(self) -> None:
        while True:
            await asyncio.sleep(STRANGER_SECONDS)
            for stranger in self._store.strangers():
                try:
                    await self._look_at(stranger)
                except ApiError as error:
                    log.debug("%s was not seen: %s", stranger, error)

    async def _look_at(self, stranger: Stranger) -> None:
        try:
            raw = await self._client.request("GET", path(stranger.kind, stranger.namespace, stranger.name))
        except NotFoundError:
            self._store.missing(stranger)
            return
        which = mark(raw)
        if which is not None and which.uid != stranger.uid:
            self._store.missing(stranger)
        self._store.saw(stranger.kind, raw)
