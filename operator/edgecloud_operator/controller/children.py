"""A plan's creates and deletes, and what becomes of those that the API server does not take."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from edgecloud_operator.controller.cluster import Cluster, LaterError, RefusedError
from edgecloud_operator.controller.record import Record, pause_after
from edgecloud_operator.controller.workqueue import WorkQueue
from edgecloud_operator.coordinator.desk import JobKey
from edgecloud_operator.core.plan import GivenBack, Plan

log = logging.getLogger(__name__)

PARALLEL_WRITES: Final = 16
LAST_REFUSAL_SECONDS: Final = 30.0
"""The longest between two attempts to create what the API server refuses."""


class Children:
    """Makes and deletes jobs' children."""

    def __init__(self, cluster: Cluster, queue: WorkQueue[JobKey]) -> None:
        self._cluster = cluster
        self._queue = queue

    async def change(self, key: JobKey, record: Record, plan: Plan) -> None:
        """Carry out creates and deletes, the Service before the Pods, a bounded number side by side.

        A create that is refused, or put off, holds up the creates alone: members of a round must not wait for a quota.
        """
        job, limit = record.job, asyncio.Semaphore(PARALLEL_WRITES)
        left = record.create_at - asyncio.get_running_loop().time()
        creates = plan.create if left <= 0 else ()
        refusals: list[RefusedError] = []
        put_off: list[LaterError] = []
        elastic = job.spec.min_workers is not None

        async def create(child: dict[str, Any]) -> None:
            try:
                await self._cluster.create(job, child)
            except RefusedError as refusal:
                refusals.append(refusal)
            except LaterError as later:
                put_off.append(later)

        async def one(write: Callable[[], Awaitable[None]]) -> None:
            async with limit:
                try:
                    await write()
                finally:
                    self._queue.move(key)

        pods = 0
        while pods < len(creates) and (child := creates[pods])["kind"] != "Pod":
            if not refusals and not put_off:
                await create(child)
                self._queue.move(key)
            pods += 1

        async def create_pod(place: int) -> None:
            # Behind one that is refused an elastic job's others may find room; of any other job they would be half.
            # Each is built when its turn has come: a thousand large ones at once would hold up all other jobs.
            if elastic or not refusals:
                await create(creates[place])

        writes = [partial(create_pod, place) for place in range(pods, len(creates)) if not refusals]
        writes += [partial(self._cluster.delete, job, target) for target in plan.delete]
        # Each is seen to its end, so that none is still under way when the next decision is made.
        results = await asyncio.gather(*map(one, writes), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if creates and not put_off:
            record.put_off = 0
        if plan.given_back is not None:
            self._given_back(key, record, plan.given_back)
            return
        if refusals:
            self._refused(key, record, refusals[0])
        elif put_off:
            self._put_off(key, record, max(put_off, key=lambda later: later.seconds))
        elif record.refused and (creates or not (plan.create or plan.held)):
            record.refused, record.refused_since, record.refusals = None, None, 0
            self._queue.add(key)
        elif left > 0 and (plan.create or plan.held):
            self._queue.add_after(key, left)

    def _put_off(self, key: JobKey, record: Record, later: LaterError) -> None:
        """Try again at the time that was given; nobody has to do anything, so that the log alone tells of it."""
        record.put_off += 1
        if record.put_off & (record.put_off - 1) == 0:  # the 1st, 2nd, 4th...
            log.info("%s/%s: a child is made %s", *key, later)
        record.create_at = asyncio.get_running_loop().time() + later.seconds
        self._queue.add_after(key, later.seconds)

    def _refused(self, key: JobKey, record: Record, refusal: RefusedError) -> None:
        """Note a refusal, for the Blocked condition, and try again the later the more there were in a row.

        How much later is left to chance: of two jobs that were refused for the same quota in the same moment one would
        for ever take what the other waits for, just before that looks, and give it back just after.
        """
        pause = pause_after(record.refusals, LAST_REFUSAL_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        if record.refused is None or record.refused[0] != refusal.reason:
            log.warning("%s/%s: a child was refused (%s): %s", *key, refusal.reason, refusal.message)
            record.refused_since = datetime.now(UTC)
        self._queue.add(key)  # it is shown, and what was made beside it may have to go
        record.refused = (refusal.reason, refusal.message)
        record.refusals += 1
        record.create_at = asyncio.get_running_loop().time() + pause
        self._queue.add_after(key, pause)

    def _given_back(self, key: JobKey, record: Record, said: GivenBack) -> None:
        """Leave the places to others for a while; of two jobs that gave theirs back together one asks first, by chance.

        For as long it is shown as if the next workers had been refused already.
        """
        log.info("%s/%s: %s", *key, said.message)
        pause = said.pause * random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        record.refused, record.refused_since = ("Unschedulable", said.message), datetime.now(UTC)
        record.create_at = asyncio.get_running_loop().time() + pause
        self._queue.add(key)
        self._queue.add_after(key, pause)
