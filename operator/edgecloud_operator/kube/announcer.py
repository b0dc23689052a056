"""Tells running workers of new certificates: the annotation on their Pods is what their launchers read."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from edgecloud_operator.core.names import CA_ANNOTATION
from edgecloud_operator.kube.client import MERGE_PATCH, ApiError, ChangedError, Client, NotFoundError, path
from edgecloud_operator.kube.store import Store

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.02
"""Between two Pods: there is a day's time, and others write too."""

DEAF: Final = (
    "%d running workers cannot be told how to trust the coordinator, and get no answer: they began %s a ca.crt for its"
    " certificate, which comes %s one now. Suspend and resume their jobs, or put the former certificate back"
)


class Announcer:
    """Goes through the Pods that go by other certificates."""

    def __init__(self, client: Client, store: Store) -> None:
        self._client = client
        self._store = store
        self._deaf = 0

    async def announce(self, ca: str) -> None:
        """Tell every worker that doesn't know them yet. Those that could not be told are told next time; how many never
        can be is said when there are more than before.

        ca: certificates to trust, as PEM; empty: those that images trust anyway, or there is no TLS.
        """
        deaf = self._store.deaf(ca)
        if deaf > self._deaf:
            log.warning(DEAF, deaf, *(("without", "with") if ca else ("with", "without")))
        self._deaf = deaf
        untold = self._store.untold(ca)
        failed = 0
        for which in untold:
            metadata = {"uid": which.uid, "annotations": {CA_ANNOTATION: ca}}
            where = path("Pod", which.namespace, which.name)
            try:
                await self._client.request("PATCH", where, body={"metadata": metadata}, content_type=MERGE_PATCH)
            except (NotFoundError, ChangedError):
                continue
            except ApiError as error:
                failed += 1
                log.debug("%s/%s was not told of new certificates: %s", which.namespace, which.name, error)
            await asyncio.sleep(PAUSE_SECONDS)
        if untold:
            log.info("%d workers were told of new certificates", len(untold) - failed)
