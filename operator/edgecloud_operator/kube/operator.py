"""The operator in a cluster: control loop, coordinator and informer put together."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from dataclasses import dataclass
from typing import Final

from edgecloud_operator.controller.controller import Controller
from edgecloud_operator.coordinator.server import CoordinatorServer
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.kube.access import load_access
from edgecloud_operator.kube.client import Client
from edgecloud_operator.kube.cluster import KubeCluster
from edgecloud_operator.kube.events import Recorder
from edgecloud_operator.kube.health import HealthServer
from edgecloud_operator.kube.identity import UNVERIFIED, Identities
from edgecloud_operator.kube.informer import Informer
from edgecloud_operator.kube.metrics import Metrics, Readings
from edgecloud_operator.kube.store import Store
from edgecloud_operator.kube.vitals import ailment

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
"""Connections that wait to be accepted: a thousand launchers come back at once when the operator does."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says.

    namespaces: none for all. listen, liveness: host and port; a liveness of None is not served.
    """

    namespaces: tuple[str, ...]
    listen: tuple[str, int]
    coordinator_address: str
    trainer_image: str
    launcher_image: str
    progress_seconds: float
    liveness: tuple[str, int] | None


async def operate(options: Options) -> None:
    """Run until SIGTERM or SIGINT. Nothing is finished first: the workers train on, and a successor takes over.

    Raises:
        AccessError: there is no way to an API server.
        OSError: an address cannot be listened on.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    configuration = await load_access()
    coordinator_socket = _listen(options.listen)
    liveness_socket = _listen(options.liveness) if options.liveness else None
    metrics = Metrics()
    client = Client(configuration, reload=load_access, on_request=metrics.requested)
    try:
        await _Operator(options, client, coordinator_socket, liveness_socket, metrics).run(stopped)
    finally:
        await client.close()
        for listener in (coordinator_socket, liveness_socket):
            if listener is not None:
                listener.close()


class _Operator:
    """The parts, and the order in which they come and go."""

    def __init__(
        self,
        options: Options,
        client: Client,
        coordinator_socket: socket.socket,
        liveness_socket: socket.socket | None,
        metrics: Metrics,
    ) -> None:
        self._options = options
        self._client = client
        self._sockets = (coordinator_socket, liveness_socket)
        self._primed = False
        self._store = Store()
        self._recorder = Recorder(client)
        self._informer = Informer(client, self._store, options.namespaces)
        self._controller = Controller(
            KubeCluster(client, self._store, self._recorder),
            settings=Settings(
                trainer_image=options.trainer_image,
                launcher_image=options.launcher_image,
                coordinator=options.coordinator_address,
            ),
            progress_seconds=options.progress_seconds,
            meter=metrics,
        )
        self._store.connect(self._controller)
        self._server = CoordinatorServer(self._controller.desk, Identities(self._store).authenticate)
        metrics.read(
            Readings(
                backlog=self._controller.backlog,
                census=self._controller.census,
                refused=lambda: self._controller.desk.refused,
                heard=self._controller.desk.heard,
                looked=self._informer.looked,
            )
        )
        self._health = HealthServer(
            ailment=lambda: ailment(self._controller.backlog(), self._informer.looked()),
            ready=lambda: self._primed,
            metrics=metrics.exposition,
        )

    async def run(self, stopped: asyncio.Event) -> None:
        options = self._options
        scope = ", ".join(options.namespaces) or "all namespaces"
        log.info(
            "operator of %s on %s; workers ask %s", scope, self._client.configuration.host, options.coordinator_address
        )
        log.warning(UNVERIFIED)
        coordinator_socket, liveness_socket = self._sockets
        if liveness_socket is not None:
            await self._health.start(liveness_socket)
        # Workers that ask before everything was seen are asked to come again.
        await self._server.start(coordinator_socket)
        work = asyncio.create_task(self._work())
        waiter = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({work, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            log.info("stopping; the workers train on")
        finally:
            waiter.cancel()
            await self._controller.stop()
            work.cancel()
            await asyncio.gather(work, waiter, return_exceptions=True)
            await self._recorder.stop()
            await self._server.stop()
            await self._health.stop()

    async def _work(self) -> None:
        await self._recorder.start()
        await self._informer.prime()
        counts = self._store.counts()
        log.info("seen: %d jobs, %d Services, %d Pods", *(counts[kind] for kind in ("TrainingJob", "Service", "Pod")))
        # What was seen is decided on from here on; before, half of it could have been taken for the whole.
        await self._controller.start()
        self._primed = True
        await self._informer.run()


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener
