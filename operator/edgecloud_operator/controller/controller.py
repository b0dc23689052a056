"""Observe, decide, act: the loop around reconcile. It keeps nothing that can't be read back or heard again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, Rendezvous, TrainingJobStatus
from edgecloud_operator.controller.children import Children
from edgecloud_operator.controller.cluster import (
    AwayError,
    Cluster,
    ConflictError,
    DeniedError,
    GoneError,
    LaterError,
    StandbyError,
    UnstartedError,
)
from edgecloud_operator.controller.meter import Meter, NoMeter, Result
from edgecloud_operator.controller.record import LAST_RETRY_SECONDS, Record, pause_after
from edgecloud_operator.controller.workqueue import Backlog, WorkQueue
from edgecloud_operator.coordinator.desk import Desk, JobKey
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.core.measures import Census, census, measured
from edgecloud_operator.core.observed import Observed, Pod, Service
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.reconcile import reconcile
from edgecloud_operator.core.transitions import transitions
from edgecloud_operator.core.writes import write_delay
from edgecloud_operator.subject import about

log = logging.getLogger(__name__)

WORKERS: Final = 8
"""Jobs decided on side by side."""
PROGRESS_SECONDS: Final = 0.25
"""How long mere progress waits to be looked at: that of a thousand workers is one look."""
STANDBY_SECONDS: Final = 1.0
"""Until it is looked again whether this replica may write."""
PULSE_SECONDS: Final = 1.0
AWAY_SECONDS: Final = 5.0
"""A pulse that is this late, by the wall clock: the process was stopped, the machine asleep, or the clock was set."""


class Controller:
    """Runs the control loop for the jobs that a shell shows it."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        settings: Settings | None = None,
        progress_seconds: float = 10.0,
        on_status: Callable[[TrainingJob], None] | None = None,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """progress_seconds: how often mere progress is written. on_status: told of each decided status, for display.

        meter: who counts, if anybody does. clock: what the queue's ages are measured by, in seconds.
        """
        self._cluster = cluster
        self._settings = settings or Settings()
        self._progress_seconds = progress_seconds
        self._on_status = on_status
        self._records: dict[JobKey, Record] = {}
        self._meter: Meter = meter or NoMeter()
        self._clock = clock
        self._queue: WorkQueue[JobKey] = WorkQueue(clock=clock, on_wait=self._meter.waited)
        self._children = Children(cluster, self._queue)
        self._listening_since = self._awake_at = datetime.now(UTC)
        self._tasks: list[asyncio.Task[None]] = []
        self.desk = Desk(self._queue.add, lambda key: self._queue.add_after(key, PROGRESS_SECONDS))

    def use(self, settings: Settings) -> None:
        """What the children that are made from now on are made with."""
        self._settings = settings

    async def start(self) -> None:
        self._listening_since = self._awake_at = datetime.now(UTC)
        self._queue.begin()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        self._tasks.append(asyncio.create_task(self._pulse()))

    async def stop(self) -> None:
        """Stop wherever it is, as a killed process would: nothing is finished first."""
        self._queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def listen_anew(self) -> None:
        """Go on as a process that has just begun, after a time in which workers could speak to nobody.

        Nobody is silent yet; and what the living had said before that is no longer known: they will say what is true
        now. The last word of the dead stays.
        """
        self._listening_since = datetime.now(UTC)
        for key, record in self._records.items():
            living = {pod.uid for pod in record.pods.values() if not pod.dead}
            self.desk.keep_only(key, self.desk.launchers(key).keys() - living)
            self._queue.add(key)

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            self._notice_absence()

    def _notice_absence(self) -> None:
        """Listen anew after a time in which this process did nothing, so heard nobody, or by which the clock jumped.

        Asked before each decision too: that may come before the pulse.
        """
        now = datetime.now(UTC)
        away = (now - self._awake_at).total_seconds()
        self._awake_at = now
        if abs(away) > AWAY_SECONDS:
            log.warning("nothing was heard for %.0f s: this process did not run, or the clock was set", away)
            self.listen_anew()

    def backlog(self) -> Backlog:
        """How the queue stands. While the control loop has not been started, nobody waits, however many there are."""
        backlog = self._queue.backlog()
        return backlog if self._tasks else Backlog(depth=backlog.depth)

    def census(self) -> Census:
        """The jobs that were seen, counted."""
        return census(record.job for record in self._records.values())

    def saw_job(self, job: TrainingJob) -> None:
        """A job as it now stands at the server.

        What a watch tells can be older than what our own last write brought back; that is no step back.
        """
        key = _key(job)
        record = self._records.get(key)
        if record is None or record.job.metadata.uid != job.metadata.uid:
            self._records[key] = Record(job=job)
        elif not _older(job, record.job):
            if job.metadata.generation != record.job.metadata.generation:
                # What was refused may be another thing now, and what failed be wanted no more: no stop is kept waiting.
                record.create_at, record.refusals = 0.0, 0
                record.retry_at, record.failures = 0.0, 0
            record.job = job
        self._queue.add(key)

    def lost_job(self, key: JobKey) -> None:
        """A job is gone."""
        self._records.pop(key, None)
        self._queue.forget(key)
        self.desk.forget(key)

    def saw_pod(self, key: JobKey, pod: Pod) -> None:
        """A Pod as it now is. One of a job that was not seen yet is nobody's: a shell lists the jobs first."""
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
            record = self._records.get(key)
            rendezvous = (_status(record.job).rendezvous if record else None) or Rendezvous()
            try:
                with about(key, round=rendezvous.round):
                    await self._see_to(key)
            finally:
                self._queue.done(key)

    async def _see_to(self, key: JobKey) -> None:
        """Decide, tell the workers, and act, unless acting has just failed."""
        record = self._records.get(key)
        if record is None:
            self.desk.forget(key)  # the last word of a job that is gone
            return
        pause = record.retry_at - asyncio.get_running_loop().time()
        began = self._clock()
        result: Result = "ok"
        try:
            plan = self._decide(key, record)
            if pause <= 0:
                await self._act(key, record, plan)
                record.failures = 0
        except (ConflictError, GoneError):
            result = "conflict"
            self._queue.add_after(key, LAST_RETRY_SECONDS)  # if what is newer, and on its way here, gets lost
        except StandbyError:
            result = "conflict"
            self._queue.add_after(key, STANDBY_SECONDS)
        except (AwayError, DeniedError) as error:
            result = "error"
            if pause <= 0:
                self._try_later(key, record, error)
        except Exception:
            result = "error"
            if pause <= 0:
                self._try_later(key, record)
        self._meter.reconciled(result, self._clock() - began)
        if pause > 0:
            self._queue.add_after(key, pause)

    def _decide(self, key: JobKey, record: Record) -> Plan:
        """What should be done now; what the workers are told of it is published at once.

        That stands in status already, so that no write that fails can keep it from them.
        """
        self._notice_absence()
        status = _status(record.job)
        rendezvous = status.rendezvous or Rendezvous()
        self.desk.keep_only(key, {member.pod_uid for member in rendezvous.members} | set(record.pods))
        pods = sorted(record.pods.values(), key=lambda pod: (pod.index, pod.uid))
        observed = Observed(
            pods=tuple(pod for pod in pods if pod.role == "worker"),
            measurers=tuple(pod for pod in pods if pod.role == "measure"),
            service=record.service,
            launchers=self.desk.launchers(key),
            refused=record.refused,
            refused_since=record.refused_since,
            listening_since=self._listening_since,
        )
        plan = reconcile(record.job, observed, datetime.now(UTC), self._settings)
        if not _status_alone(plan):
            finished = status.phase in TERMINAL
            self.desk.publish(key, plan.directives, current_round=rendezvous.round, finished=finished)
        if self._on_status:
            self._on_status(record.job.with_status(plan.status or record.job.status))
        return plan

    def _try_later(self, key: JobKey, record: Record, why: AwayError | DeniedError | None = None) -> None:
        """After a failure: log it, and wait the longer the more there were in a row. why: None for a bug."""
        pause = pause_after(record.failures)
        record.failures += 1
        if why is None:
            log.exception("%s/%s: a decision, or a write, failed; it is tried again in %.0f s", *key, pause)
        elif isinstance(why, UnstartedError):
            log.warning("%s/%s: %s; it is tried again in %.0f s", *key, why, pause)
        elif isinstance(why, AwayError):
            log.warning("%s/%s: a write failed; it is tried again in %.0f s: %s", *key, pause, why)
        elif record.failures & (record.failures - 1) == 0:  # the 1st, 2nd, 4th...: it may stay so for days
            log.error("%s/%s: %s; it is tried again in %.0f s", *key, why, pause)
        record.retry_at = asyncio.get_running_loop().time() + pause
        self._queue.add_after(key, pause)

    async def _act(self, key: JobKey, record: Record, plan: Plan) -> None:
        """Make the plan's writes: the status alone where it comes first, and else whatever is due."""
        if plan.status is not None:
            try:
                await self._write(key, record, plan.status, plan)
            except LaterError as later:
                self._queue.add_after(key, later.seconds)
                if _status_alone(plan):
                    return
        if _status_alone(plan):
            self._queue.add(key)  # decide again on what now stands there
            return
        await self._children.change(key, record, plan)
        if plan.requeue_after is not None:
            self._queue.add_after(key, plan.requeue_after)

    async def _write(self, key: JobKey, record: Record, status: TrainingJobStatus, plan: Plan) -> None:
        """Write a plan's status if it is due, and the events that it stands for."""
        now = datetime.now(UTC)
        if not plan.status_first:
            delay = write_delay(
                record.job.status,
                status,
                last_write=record.last_write,
                now=now,
                progress_seconds=self._progress_seconds,
            )
            if delay > 0:
                self._queue.add_after(key, delay)
                return
        job = record.job
        written = await self._cluster.write_status(job, status)
        self._queue.move(key)
        record.last_write = now
        if not _older(written, record.job):
            record.job = written
        self._tell(job, status)
        for event in plan.events:
            await self._cluster.emit(written, event)

    def _tell(self, job: TrainingJob, status: TrainingJobStatus) -> None:
        """Count, and log, what the status that was just written changes. job: as it was until then."""
        created_at, now = job.metadata.creation_timestamp, datetime.now(UTC)
        self._meter.changed(measured(job.status, status, created_at=created_at, now=now))
        number = (status.rendezvous or Rendezvous()).round
        for transition in transitions(job.status, status):
            with about(_key(job), round=number, worker=transition.worker):
                log.info("%s", transition.text)


def _key(job: TrainingJob) -> JobKey:
    return (job.metadata.namespace, job.metadata.name)


def _status(job: TrainingJob) -> TrainingJobStatus:
    return job.status or TrainingJobStatus()


def _status_alone(plan: Plan) -> bool:
    """Whether the status is to be written before anything else of the plan is done."""
    return plan.status_first and plan.status is not None


def _older(job: TrainingJob, than: TrainingJob) -> bool:
    """Whether this is an earlier state of the resource: resourceVersions are numbers that rise."""
    ours, theirs = job.metadata.resource_version or "", than.metadata.resource_version or ""
    return ours.isdecimal() and theirs.isdecimal() and int(ours) < int(theirs)
