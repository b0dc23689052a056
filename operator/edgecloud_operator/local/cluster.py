"""The API server of a local run: one job, kept in job.yaml, its children played by processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, TrainingJobStatus
from edgecloud_operator.controller.cluster import AwayError, ConflictError, LaterError, UnstartedError
from edgecloud_operator.core.names import COMPONENT_LABEL, INDEX_LABEL, MEASURER
from edgecloud_operator.core.observed import Service
from edgecloud_operator.core.plan import Delete, Event
from edgecloud_operator.local.workdir import Workdir
from edgecloud_operator.local.workers import Workers

log = logging.getLogger(__name__)

SAVE_AGAIN_SECONDS: Final = 1.0
"""Until job.yaml is written again after that has failed."""


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
        self._unsaved = ""
        """Why job.yaml could not be written the last time; "" if it was."""

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
        """Keep a job. What can't be saved (a full disk) has not happened, and can be tried again.

        Unless it is about the end: a stop that was asked for, or how the training came out. Nothing begins after it
        that a later run would have to know of, and that run finds the checkpoints.

        Raises:
            LaterError: it can't be saved.
        """
        version = self._version + 1
        metadata = job.metadata.model_copy(update={"resource_version": str(version)})
        job = job.model_copy(update={"metadata": metadata})
        try:
            self._workdir.save(job)
        except OSError as error:
            self._say_unsaved(error.strerror or str(error))
            if not (job.spec.suspend or (job.status and job.status.phase in TERMINAL)):
                raise LaterError(SAVE_AGAIN_SECONDS) from error
        else:
            self._say_unsaved("")
        self._version, self.job = version, job
        self._on_written(job)

    def _say_unsaved(self, why: str) -> None:
        """Once, and not at each attempt."""
        if why and why != self._unsaved:
            log.warning(
                "%s can't be written: %s: free some space, or let it be written; a later run goes on from what it says",
                self._workdir.job_file,
                why,
            )
        elif self._unsaved and not why:
            log.warning("%s is written again", self._workdir.job_file)
        self._unsaved = why

    async def create(self, job: TrainingJob, child: dict[str, Any]) -> None:
        try:
            await self._create(job, child)
        except OSError as error:  # a full disk again, or no more processes: a line, and another attempt
            words = f"{error.filename or child['metadata']['name']}: {error.strerror or error}"
            if child["kind"] == "Pod":
                who = child["metadata"]["labels"].get(INDEX_LABEL)
                whom = "the measuring process" if who is None else f"worker {who}"
                raise UnstartedError(f"{whom} can't be started: {words}") from error
            raise AwayError(words) from error

    async def _create(self, job: TrainingJob, child: dict[str, Any]) -> None:
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
                path, content = self._workdir.files / name, text.encode()
                if not (path.is_file() and path.read_bytes() == content):  # a worker may be reading it
                    path.write_bytes(content)

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
