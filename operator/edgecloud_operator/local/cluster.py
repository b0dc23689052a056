"""The API server of a local run: one job, kept in job.yaml, its children played by processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud_operator.controller.cluster import ConflictError
from edgecloud_operator.core.names import COMPONENT_LABEL, INDEX_LABEL, MEASURER
from edgecloud_operator.core.observed import Service
from edgecloud_operator.core.plan import Delete, Event
from edgecloud_operator.local.workdir import Workdir
from edgecloud_operator.local.workers import Workers

log = logging.getLogger(__name__)


class LocalCluster:
    """Implements the control loop's Cluster for one job on this machine."""

    def __init__(
        self,
        job: TrainingJob,
        workdir: Workdir,
        *,
        on_job: Callable[[TrainingJob], None],
        on_written: Callable[[TrainingJob], None],
        on_service: Callable[[Service | None], None],
        on_event: Callable[[Event], None],
    ) -> None:
        self.job = job
        self.service: Service | None = None
        self.workers: Workers | None = None
        self._workdir = workdir
        self._on_job = on_job
        self._on_written = on_written
        self._on_service = on_service
        self._on_event = on_event
        self._version = 0

    def suspend(self) -> None:
        """Ask for a checkpoint and a stop, as `kubectl patch` with suspend: true would."""
        spec = self.job.spec.model_copy(update={"suspend": True})
        metadata = self.job.metadata.model_copy(update={"generation": self.job.metadata.generation + 1})
        self._store(self.job.model_copy(update={"spec": spec, "metadata": metadata}))
        self._on_job(self.job)

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        if job.metadata.resource_version != self.job.metadata.resource_version:
            raise ConflictError
        self._store(self.job.with_status(status))
        return self.job

    def _store(self, job: TrainingJob) -> None:
        """Keep a job. What can't be saved (a full disk) has not happened, and can be tried again."""
        version = self._version + 1
        metadata = job.metadata.model_copy(update={"resource_version": str(version)})
        job = job.model_copy(update={"metadata": metadata})
        self._workdir.save(job)
        self._version, self.job = version, job
        self._on_written(job)

    async def create(self, job: TrainingJob, child: dict[str, Any]) -> None:
        if child["kind"] == "Pod":
            assert self.workers is not None
            labels = child["metadata"]["labels"]
            if labels[COMPONENT_LABEL] == MEASURER:
                await self.workers.measure(job)
            else:
                await self.workers.start(job, int(labels[INDEX_LABEL]))
        elif child["kind"] == "Service":
            # Every worker is at the loopback address and needs no name; that the Service is there still counts.
            self.service = Service(name=child["metadata"]["name"], uid=f"service-{job.metadata.uid}")
            self._on_service(self.service)
        elif child["kind"] == "ConfigMap":
            self._workdir.files.mkdir(exist_ok=True)
            for name, text in child["data"].items():
                (self._workdir.files / name).write_text(text, encoding="utf-8")

    async def delete(self, job: TrainingJob, target: Delete) -> None:
        if target.kind == "Pod":
            assert self.workers is not None
            self.workers.delete(target.uid)
        else:
            log.debug("a local job keeps its %s", target.kind)

    async def emit(self, job: TrainingJob, event: Event) -> None:
        self._on_event(event)


def created(job: TrainingJob, uid: str) -> TrainingJob:
    """A job as the server returns it when it was created, whatever another server had noted in its file."""
    update = {
        "uid": uid,
        "generation": 1,
        "creation_timestamp": datetime.now(UTC).replace(microsecond=0),
        "deletion_timestamp": None,
        "resource_version": "0",
    }
    return job.model_copy(update={"metadata": job.metadata.model_copy(update=update), "status": None})
