"""The operator in a cluster: control loop, coordinator, informer and election put together."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from asyncio import sslproto
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edgecloud_operator.controller.controller import Controller
from edgecloud_operator.coordinator.server import CoordinatorServer
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.kube.access import load_access
from edgecloud_operator.kube.announcer import Announcer
from edgecloud_operator.kube.certificates import CertificateError
from edgecloud_operator.kube.client import ApiError, Client
from edgecloud_operator.kube.cluster import KubeCluster
from edgecloud_operator.kube.elector import Elector
from edgecloud_operator.kube.events import Recorder
from edgecloud_operator.kube.health import HealthServer
from edgecloud_operator.kube.identity import Identities
from edgecloud_operator.kube.informer import Informer
from edgecloud_operator.kube.keys import Keys, read_cluster_keys
from edgecloud_operator.kube.metrics import Metrics, Readings
from edgecloud_operator.kube.signpost import Signpost
from edgecloud_operator.kube.sockets import bind
from edgecloud_operator.kube.store import Store
from edgecloud_operator.kube.tls import FolderTls, SecretTls, Tls
from edgecloud_operator.kube.vitals import ailment

log = logging.getLogger(__name__)

TLS_SECONDS: Final = 20.0
"""Between two looks at the certificates."""
RETRY_SECONDS: Final = 2.0
LEASE_REQUEST_SECONDS: Final = 3.0
UNENCRYPTED: Final = (
    "the coordinator speaks HTTP without TLS: whoever sees the traffic can take a worker's token from it, and answer in"
    " the operator's place. Give it an https:// address"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says.

    namespaces: none for all. listen, liveness: host (empty: every address) and port; a liveness of None
    is not served. tls_secret, lease:
    namespace and name; None: no TLS of our own, no election. pod: namespace, name and uid of the Pod that this is, and
    the labels that its replicas have in common; None outside a cluster.
    """

    namespaces: tuple[str, ...]
    listen: tuple[str, int]
    coordinator_address: str
    trainer_image: str
    edge_image: str
    launcher_image: str
    worker_user: int | None
    progress_seconds: float
    give_back_seconds: float
    liveness: tuple[str, int] | None
    tls_secret: tuple[str, str] | None = None
    tls_folder: Path | None = None
    trainer_pull_policy: str | None = None
    launcher_pull_policy: str | None = None
    edge_pull_policy: str | None = None
    lease: tuple[str, str] | None = None
    identity: str = ""
    pod: PodPlace | None = None


@dataclass(frozen=True, kw_only=True)
class PodPlace:
    """The Pod that this process is in. selector: labels of all replicas."""

    namespace: str
    name: str
    selector: str


async def operate(options: Options) -> None:
    """Run until SIGTERM or SIGINT, or until another replica leads in our place.

    Nothing is finished first: the workers train on, and a successor takes over.

    Raises:
        AccessError: there is no way to an API server.
        OSError: an address cannot be listened on.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    _raise_limits()
    configuration = await load_access()
    coordinator_socket = bind(*options.listen)
    liveness_socket = bind(*options.liveness) if options.liveness else None
    metrics = Metrics()
    client = Client(configuration, reload=load_access, on_request=metrics.requested)
    # A renewal must not stand in line behind the creation of a thousand Pods.
    lease_client = Client(
        await load_access(), reload=load_access, seconds=LEASE_REQUEST_SECONDS, on_request=metrics.requested
    )
    try:
        await _Operator(options, client, lease_client, coordinator_socket, liveness_socket, metrics).run(stopped)
    finally:
        await client.close()
        await lease_client.close()
        for listener in (coordinator_socket, liveness_socket):
            if listener is not None:
                listener.close()


class _Operator:
    """The parts, and the order in which they come and go."""

    def __init__(
        self,
        options: Options,
        client: Client,
        lease_client: Client,
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
        self._tls = _tls(options, client)
        self._cluster = KubeCluster(client, self._store, self._recorder, acts=self._acts)
        self._controller = Controller(
            self._cluster,
            settings=self._settings(),
            progress_seconds=options.progress_seconds,
            meter=metrics,
        )
        self._store.connect(self._controller)
        self._elector = (
            Elector(lease_client, *options.lease, options.identity, on_regained=self._controller.listen_anew)
            if options.lease
            else None
        )
        keys = Keys(partial(read_cluster_keys, client))
        identities = Identities(self._store, keys, self._informer.leaves_out)
        self._server = CoordinatorServer(self._controller.desk, identities.authenticate, leading=self._speaks)
        metrics.read(
            Readings(
                backlog=self._controller.backlog,
                census=self._controller.census,
                refused=lambda: self._controller.desk.refused,
                heard=self._controller.desk.heard,
                looked=self._informer.looked,
                leads=self._acts,
            )
        )
        self._health = HealthServer(
            ailment=lambda: ailment(self._controller.backlog(), self._informer.looked()),
            ready=lambda: self._primed,
            metrics=metrics.exposition,
        )

    def _acts(self) -> bool:
        return self._elector is None or self._elector.acts

    def _speaks(self) -> bool:
        return self._elector is None or self._elector.speaks

    def _settings(self) -> Settings:
        options = self._options
        return Settings(
            trainer_image=options.trainer_image,
            edge_image=options.edge_image,
            launcher_image=options.launcher_image,
            worker_user=options.worker_user,
            trainer_pull_policy=options.trainer_pull_policy,
            launcher_pull_policy=options.launcher_pull_policy,
            edge_pull_policy=options.edge_pull_policy,
            give_back_seconds=options.give_back_seconds,
            coordinator=options.coordinator_address,
            ca=self._tls.bundle if self._tls else "",
        )

    async def run(self, stopped: asyncio.Event) -> None:
        options = self._options
        scope = ", ".join(options.namespaces) or "all namespaces"
        log.info(
            "operator of %s on %s; workers ask %s", scope, self._client.configuration.host, options.coordinator_address
        )
        if self._tls is None:
            log.warning(UNENCRYPTED)
        _, liveness_socket = self._sockets
        if liveness_socket is not None:
            await self._health.start(liveness_socket)
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
            if self._elector is not None:
                await self._elector.release()
            await self._recorder.stop()
            await self._server.stop()
            await self._health.stop()

    async def _work(self) -> None:
        """See the cluster; then lead, or wait until nobody else does. What is seen meanwhile is kept."""
        await self._recorder.start()
        await self._informer.prime()
        counts = self._store.counts()
        log.info("seen: %d jobs, %d Services, %d Pods", *(counts[kind] for kind in ("TrainingJob", "Service", "Pod")))
        self._primed = True
        await _first(self._informer.run(), self._lead())

    async def _lead(self) -> None:
        if self._elector is None:
            await self._serve()
            return
        await self._elector.acquire()
        await _first(self._serve(), self._held(self._elector))

    async def _held(self, elector: Elector) -> None:
        # What this replica knows of the workers is no longer true: it begins anew, as a process that was killed would.
        log.warning("%s leads now: this replica ends, to be started again as a standby", await elector.hold())

    async def _serve(self) -> None:
        """Decide and answer."""
        while not await self._secure():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(RETRY_SECONDS)
        # What was seen is decided on from here on; before, half of it could have been taken for the whole.
        await self._controller.start()
        await self._server.start(self._sockets[0], self._tls.context if self._tls else None)
        if self._options.pod is not None:
            await self._point(self._options.pod)
        announcer = Announcer(self._client, self._store)
        while True:
            self._cluster.tell_unread()
            await announcer.announce(self._tls.bundle if self._tls else "")
            await asyncio.sleep(TLS_SECONDS)
            await self._secure()

    async def _secure(self) -> bool:
        """See to the certificates; whether there are any to serve with."""
        if self._tls is None:
            return True
        try:
            await self._tls.renew()
        except (ApiError, CertificateError) as error:
            log.error("the coordinator's certificates cannot be seen to: %s", error)
            return False
        self._controller.use(self._settings())
        return True

    async def _point(self, place: PodPlace) -> None:
        signpost = Signpost(self._client, place.namespace, place.name, place.selector)
        late = False
        while True:
            try:
                await signpost.point()
                break
            except ApiError as error:
                late = True
                log.error("workers are not led here yet: this Pod cannot be labelled: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        if late:
            self._controller.listen_anew()  # until now they had nobody to speak to


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Run side by side until the first is over; the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tls(options: Options, client: Client) -> Tls | None:
    host = urlsplit(options.coordinator_address).hostname or ""
    if options.tls_folder is not None:
        return FolderTls(options.tls_folder, host)
    if options.tls_secret is not None:
        return SecretTls(client, *options.tls_secret, host)
    return None


def _raise_limits() -> None:
    """As many connections as the system allows, and no 256 KiB for each.

    asyncio gives every TLS connection a buffer of that size at once: ten thousand workers, each of which sends a line
    now and then, would take 2.5 GiB. A TLS record has 16 KiB at most.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sslproto.SSLProtocol.max_size = 16 * 1024
