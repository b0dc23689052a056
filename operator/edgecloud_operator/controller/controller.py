"""Observe, decide, act: the loop around reconcile. It keeps nothing that can't be read back or heard again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, Rendezvous, TrainingJobStatus
from edgecloud_operator.controller.cluster import Cluster, ConflictError, GoneError
from edgecloud_operator.controller.workqueue import WorkQueue
from edgecloud_operator.coordinator.desk import Desk, JobKey
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.core.observed import Observed, Pod, Service
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.reconcile import reconcile
from edgecloud_operator.core.writes import write_delay

log = logging.getLogger(__name__)

WORKERS: Final = 8
"""Jobs decided on side by side."""
PARALLEL_WRITES: Final = 16
RETRY_SECONDS: Final = 1.0


@dataclass
class _Record:
    """What was seen of one job."""

    job: TrainingJob
    pods: dict[str, Pod] = field(default_factory=dict)
    service: Service | None = None
    last_write: datetime | None = None
    newest: TrainingJobStatus | None = None
    """The status as decided, written or not."""


class Controller:
    """Runs the control loop for the jobs that a shell shows it."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        settings: Settings | None = None,
        progress_seconds: float = 10.0,
        on_status: Callable[[TrainingJob], None] | None = None,
    ) -> None:
        """progress_seconds: how often mere progress is written. on_status: told of each decided status, for display."""
        self._cluster = cluster
        self._settings = settings or Settings()
        self._progress_seconds = progress_seconds
        self._on_status = on_status
        self._records: dict[JobKey, _Record] = {}
        self._queue: WorkQueue[JobKey] = WorkQueue()
        self._listening_since = datetime.now(UTC)
        self._tasks: list[asyncio.Task[None]] = []
        self.desk = Desk(self._queue.add)

    async def start(self) -> None:
        self._listening_since = datetime.now(UTC)
        self._tasks = [asyncio.create_task(self._work()) for _ in range(WORKERS)]

    async def stop(self) -> None:
        """Stop wherever it is, as a killed process would: nothing is finished first."""
        self._queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def saw_job(self, job: TrainingJob) -> None:
        """A job as it now stands at the server."""
        key = _key(job)
        record = self._records.get(key)
        if record is None or record.job.metadata.uid != job.metadata.uid:
            self._records[key] = _Record(job=job)
        else:
            record.job = job
        self._queue.add(key)

    def lost_job(self, key: JobKey) -> None:
        """A job is gone."""
        self._records.pop(key, None)
        self._queue.forget(key)
        self.desk.forget(key)

    def saw_pod(self, key: JobKey, pod: Pod) -> None:
        if record := self._records.get(key):
            record.pods[pod.uid] = pod
            self._queue.add(key)

    def lost_pod(self, key: JobKey, uid: str) -> None:
        if record := self._records.get(key):
            record.pods.pop(uid, None)
            self._queue.add(key)

    def saw_service(self, key: JobKey, service: Service | None) -> None:
        if record := self._records.get(key):
            record.service = service
            self._queue.add(key)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._decide_and_act(key)
            except Exception:
                log.exception("%s/%s: the decision failed; it is tried again in %.0f s", *key, RETRY_SECONDS)
                self._queue.add_after(key, RETRY_SECONDS)
            finally:
                self._queue.done(key)

    async def _decide_and_act(self, key: JobKey) -> None:
        record = self._records.get(key)
        if record is None:
            return
        members = {member.pod_uid for member in (_status(record.job).rendezvous or Rendezvous()).members}
        self.desk.keep_only(key, members | set(record.pods))
        observed = Observed(
            pods=tuple(sorted(record.pods.values(), key=lambda pod: (pod.index, pod.uid))),
            service=record.service,
            launchers=self.desk.launchers(key),
            listening_since=self._listening_since,
        )
        plan = reconcile(record.job, observed, datetime.now(UTC), self._settings)
        written = await self._write(key, record, plan)
        if not written and plan.status_first and plan.status is not None:
            return
        if plan.status_first and plan.status is not None:
            self._queue.add(key)  # decide again on what now stands there
            return
        await self._act(record, plan)
        status = _status(record.job)
        number = (status.rendezvous or Rendezvous()).round
        self.desk.publish(key, plan.directives, current_round=number, finished=status.phase in TERMINAL)
        if plan.requeue_after is not None:
            self._queue.add_after(key, plan.requeue_after)

    async def _write(self, key: JobKey, record: _Record, plan: Plan) -> bool:
        """Write the plan's status if it is due; whether it was written."""
        record.newest = plan.status or record.job.status
        if self._on_status:
            self._on_status(record.job.with_status(record.newest))
        if plan.status is None:
            return False
        now = datetime.now(UTC)
        delay = 0.0
        if not plan.status_first:
            delay = write_delay(
                record.job.status,
                plan.status,
                last_write=record.last_write,
                now=now,
                progress_seconds=self._progress_seconds,
            )
        if delay > 0:
            self._queue.add_after(key, delay)
            return False
        try:
            record.job = await self._cluster.write_status(record.job, plan.status)
        except ConflictError:
            return False  # the newer one is on its way here, and brings the key back
        except GoneError:
            return False
        record.last_write = now
        for event in plan.events:
            await self._cluster.emit(record.job, event)
        return True

    async def _act(self, record: _Record, plan: Plan) -> None:
        """Carry out creates and deletes, the Service before the Pods, a bounded number side by side."""
        job, limit = record.job, asyncio.Semaphore(PARALLEL_WRITES)

        async def one(write: Coroutine[Any, Any, None]) -> None:
            async with limit:
                await write

        others = [child for child in plan.create if child["kind"] != "Pod"]
        pods = [child for child in plan.create if child["kind"] == "Pod"]
        for child in others:
            await self._cluster.create(job, child)
        writes = [self._cluster.create(job, pod) for pod in pods]
        writes += [self._cluster.delete(job, target) for target in plan.delete]
        await asyncio.gather(*(one(write) for write in writes))


def _key(job: TrainingJob) -> JobKey:
    return (job.metadata.namespace, job.metadata.name)


def _status(job: TrainingJob) -> TrainingJobStatus:
    return job.status or TrainingJobStatus()
