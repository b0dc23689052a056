"""Events on TrainingJobs, as `kubectl describe` shows them: recorded in the background, lost rather than waited for."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from datetime import UTC, datetime
from typing import Any, Final

from edgecloud.api.base import utc
from edgecloud.api.job import API_VERSION, KIND
from edgecloud_operator.core.names import CONTROLLER
from edgecloud_operator.core.plan import Event
from edgecloud_operator.kube.client import MERGE_PATCH, AlreadyExistsError, ApiError, Client, path
from edgecloud_operator.kube.sight import Mark
from edgecloud_operator.subject import about

log = logging.getLogger(__name__)

WAITING: Final = 1000
"""Events that may wait to be recorded; what comes on top is dropped."""
PAUSE_SECONDS: Final = 0.02
"""Between two events: they are for people, and must not crowd out the writes that a training waits for."""


def event_name(job: Mark, event: Event) -> str:
    """The same event of the same job has the same name, whoever records it: it is counted, not piled up."""
    what = "\n".join((job.uid, event.type, event.reason, event.message))
    digest = hashlib.sha256(what.encode("utf-8", "replace")).hexdigest()
    return f"{job.name}.{digest[:16]}"


def build_event(job: Mark, event: Event, now: datetime, instance: str) -> dict[str, Any]:
    """The object of an event that happens for the first time."""
    about = {"apiVersion": API_VERSION, "kind": KIND, "namespace": job.namespace, "name": job.name, "uid": job.uid}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": job.namespace, "name": event_name(job, event)},
        "involvedObject": about,
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "source": {"component": CONTROLLER},
        "reportingComponent": CONTROLLER,
        "reportingInstance": instance,
        "firstTimestamp": utc(now),
        "lastTimestamp": utc(now),
        "count": 1,
    }


class Recorder:
    """Records events, one after the other."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: asyncio.Queue[tuple[Mark, int, Event, datetime]] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None
        self._instance = socket.gethostname()[:128]

    async def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop; what waits is dropped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def room(self) -> int:
        """How many more events may wait to be recorded."""
        return self._waiting.maxsize - self._waiting.qsize()

    def add(self, job: Mark, event: Event, *, round: int = 0) -> None:
        """Record an event soon. round: the newest one of the job."""
        try:
            self._waiting.put_nowait((job, round, event, datetime.now(UTC)))
        except asyncio.QueueFull:
            log.debug("too many events wait; dropped: %s", event)

    async def _work(self) -> None:
        while True:
            job, number, event, at = await self._waiting.get()
            with about((job.namespace, job.name), round=number):
                try:
                    await self._record(job, event, at)
                except ApiError as error:
                    log.debug("an event was not recorded: %s: %s", event, error)
                except Exception:
                    log.exception("an event was not recorded: %s", event)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _record(self, job: Mark, event: Event, at: datetime) -> None:
        body = build_event(job, event, at, self._instance)
        try:
            await self._client.request("POST", path("Event", job.namespace), body=body)
        except AlreadyExistsError:
            where = path("Event", job.namespace, body["metadata"]["name"])
            count = (await self._client.request("GET", where)).get("count")
            again = {"count": count + 1 if isinstance(count, int) else 2, "lastTimestamp": utc(at)}
            await self._client.request("PATCH", where, body=again, content_type=MERGE_PATCH)
