"""The local run: one job through the same core, coordinator and launchers that a cluster uses, on this machine."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from edgecloud.api.immutable import IMMUTABLE, changes
from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, MeasuringStatus, Rendezvous, TrainingJobStatus
from edgecloud.launcher import linux
from edgecloud_operator.controller.controller import Controller
from edgecloud_operator.coordinator.door import MAX_CONNECTIONS, Door
from edgecloud_operator.coordinator.server import CoordinatorServer
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.core.measurer import measure_on
from edgecloud_operator.core.observed import Pod, Service
from edgecloud_operator.core.plan import Event
from edgecloud_operator.local.cluster import LocalCluster, created
from edgecloud_operator.local.gpus import unseen, visible_gpus
from edgecloud_operator.local.scratch import scratch_folder
from edgecloud_operator.local.workdir import Workdir, WorkdirError
from edgecloud_operator.local.workers import ADDRESS, Workers

log = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 1.0
"""How often mere progress is written to job.yaml."""
GOODBYE_SECONDS: Final = 15.0
"""How long the launchers may take to end by themselves once the job is over."""


class Display(Protocol):
    """Shows a run to a person."""

    def show(self, job: TrainingJob) -> None:
        """The job as it is now; called often."""

    def event(self, event: Event) -> None:
        """Something happened."""

    def note(self, text: str) -> None:
        """A line about the run itself."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a local run ended. signal: what it was stopped by, if it was."""

    job: TrainingJob
    signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        phase = self.job.status.phase if self.job.status else "Pending"
        if phase == "Succeeded":
            return 0
        if self.signal is not None and phase != "Failed":
            return 128 + self.signal
        return 1


def prepare(job: TrainingJob, workdir: Workdir, workers: int | None, *, above: int = 0) -> tuple[TrainingJob, bool]:
    """The job as it should run in a folder, and whether an earlier run there has finished it.

    above: the round of the earlier run whose checkpoints a new job goes on from; its own rounds are higher.

    Raises:
        WorkdirError: the folder holds another job, or this one with changes that are not allowed.
        pydantic.ValidationError: the job can't have so many workers.
    """
    job = TrainingJob.parse(job.dump()) if workers is None else job.with_workers(workers)
    earlier = workdir.load()
    if earlier is None:
        new = created(job, str(uuid.uuid4()))
        return (new.with_status(TrainingJobStatus(rendezvous=Rendezvous(round=above))) if above else new), False
    if earlier.metadata.name != job.metadata.name:
        raise WorkdirError(
            f"{workdir.path} holds the job {earlier.metadata.name}, not {job.metadata.name}: name another --workdir"
        )
    for change in changes(earlier.spec, job.spec):
        if change.path[0] not in IMMUTABLE:
            continue  # the GPUs in resources: no worker is left here that was made with as many as before
        # To the built-in trainer they are another training's then.
        kept = change.path[0] != "trainer" and workdir.has_checkpoints
        keeping = ", with --fresh --keep-checkpoints to go on from its checkpoints" if kept else ""
        raise WorkdirError(
            f"{workdir.path} holds an earlier run of {job.metadata.name}, and spec.{change.path[0]} has changed since:"
            f" start over with --fresh (the earlier run is kept beside it){keeping}, or name another --workdir"
        )
    metadata = earlier.metadata.model_copy(
        update={
            "generation": earlier.metadata.generation + int(earlier.spec != job.spec),
            "resource_version": "0",
            "labels": job.metadata.labels,
            "annotations": job.metadata.annotations,
        }
    )
    status = earlier.status
    if status is not None and status.phase in TERMINAL:
        return earlier, True
    if status is not None:
        # The workers of the earlier run went with it. That it ended is no failure of theirs, so nobody pays for it.
        closed = Rendezvous(round=(status.rendezvous or Rendezvous()).round)
        status = status.model_copy(update={"phase": "Suspended", "rendezvous": closed})
        if status.measuring is not None:
            # Likewise what measured: another process does, at once.
            status = status.model_copy(update={"measuring": MeasuringStatus(since=status.measuring.since)})
    return job.model_copy(update={"metadata": metadata, "status": status}), False


class LocalRun:
    """Runs one job to its end, or until it is stopped."""

    def __init__(self, job: TrainingJob, workdir: Workdir, display: Display) -> None:
        """job: as `prepare` made it. The caller has the folder's lock, since before it prepared the job."""
        self._workdir = workdir
        self._display = display
        self._over = asyncio.Event()
        self._cluster = LocalCluster(
            job,
            workdir,
            on_job=self._saw_job,
            on_written=self._written,
            on_service=self._saw_service,
            on_event=display.event,
        )
        self._controller: Controller | None = None
        self._server: CoordinatorServer | None = None
        self._listener: socket.socket | None = None
        self._stopped_by: signal.Signals | None = None
        self._at_once = False
        self._workers: Workers | None = None

    async def run(self) -> Ended:
        """Run until the job is finished or stopped. Nothing it started is left when this returns."""
        linux.become_subreaper()
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            scratch = stack.enter_context(scratch_folder())
            self._listener = stack.enter_context(_listen())
            address = f"http://{ADDRESS}:{self._listener.getsockname()[1]}"
            self._workers = Workers(self._workdir, scratch, address, self._saw_pod)
            self._cluster.workers = self._workers
            for number in _heard():
                loop.add_signal_handler(number, self.stop, number)
                stack.callback(loop.remove_signal_handler, number)
            if measure_on(self._cluster.job) is not None:
                self._display.note(
                    "export.measureOn: measured on this machine; nodeSelector and resources count in a cluster"
                )
            if why := unseen(self._cluster.job.spec, visible_gpus()):
                self._display.note(why)
            try:
                await self.start_controller()
                await self._over.wait()
                if not self._at_once:
                    await self._let_go()
            finally:
                await self._workers.end_all()
                await self.kill_controller()
        return Ended(job=self._cluster.job, signal=self._stopped_by)

    async def start_controller(self) -> None:
        """Start the part that is the operator: with an empty memory, on the address that the workers know."""
        assert self._listener is not None and self._workers is not None
        controller = Controller(
            self._cluster,
            settings=Settings(one_machine=True),
            progress_seconds=PROGRESS_SECONDS,
            on_status=self._display.show,
        )
        self._controller = controller
        self._server = CoordinatorServer(controller.desk, self._workers.authenticate, door=wide_door())
        await controller.start()
        key = (self._cluster.job.metadata.namespace, self._cluster.job.metadata.name)
        controller.saw_job(self._cluster.job)
        controller.saw_service(key, self._cluster.service)
        for pod in self._workers.pods():
            controller.saw_pod(key, pod)
        await self._server.start(self._listener)

    async def kill_controller(self) -> None:
        """End the part that is the operator as if it had been killed: what it knew is lost."""
        server, controller = self._server, self._controller
        self._server = self._controller = None
        if controller is not None:
            await controller.stop()
        if server is not None:
            await server.stop()

    def stop(self, number: signal.Signals) -> None:
        """Stop at a checkpoint; asked a second time, stop now. A terminal that is closed asks twice, and means once."""
        if self._stopped_by is None:
            self._stopped_by = number
            self._cluster.suspend()
            self._display.note(f"{number.name}: stopping at a checkpoint; once more stops at once")
        elif number != signal.SIGHUP:
            self._at_once = True
            self._over.set()

    async def _let_go(self) -> None:
        """The job is over: wait for the launchers, which are told so, to end."""
        assert self._workers is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                while any(not pod.dead for pod in self._workers.pods()):  # noqa: ASYNC110 - ends with the processes
                    await asyncio.sleep(0.02)

    def _written(self, job: TrainingJob) -> None:
        phase = job.status.phase if job.status else "Pending"
        if phase in TERMINAL or (phase == "Suspended" and job.spec.suspend):
            self._over.set()

    def _saw_job(self, job: TrainingJob) -> None:
        if self._controller is not None:
            self._controller.saw_job(job)

    def _saw_service(self, service: Service | None) -> None:
        if self._controller is not None:
            self._controller.saw_service(self._key(), service)

    def _saw_pod(self, pod: Pod, there: bool) -> None:
        if self._controller is None:
            return
        if there:
            self._controller.saw_pod(self._key(), pod)
        else:
            self._controller.lost_pod(self._key(), pod.uid)

    def _key(self) -> tuple[str, str]:
        return (self._cluster.job.metadata.namespace, self._cluster.job.metadata.name)


def wide_door() -> Door:
    """Nobody but this machine's own comes to it, and all of them have one address."""
    return Door(strangers=MAX_CONNECTIONS, of_address=MAX_CONNECTIONS, at_once=MAX_CONNECTIONS)


def _heard() -> tuple[signal.Signals, ...]:
    """The signals that stop a run: without those that who started it has it ignore, as nohup does, and `&` a Ctrl-C."""
    asked = tuple(n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN)
    return (signal.SIGTERM, *asked)


def _listen() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ADDRESS, 0))
    listener.listen(128)
    listener.setblocking(False)
    return listener
