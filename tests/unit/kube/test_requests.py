"""What becomes of requests, against an API server on a real socket."""

from __future__ import annotations

from aiohttp import web

from edgecloud_operator.core.plan import Delete
from edgecloud_operator.kube.client import Client
from edgecloud_operator.kube.cluster import KubeCluster
from edgecloud_operator.kube.events import Recorder
from edgecloud_operator.kube.sight import see_job
from edgecloud_operator.kube.store import Store
from tests.unit.kube.objects import make_job, make_pod
from tests.unit.kube.served import access, finish, served
from tests.unit.kube.test_store import Listener


def test_the_answer_to_our_own_delete_brings_nobody_back() -> None:
    """The watch may tell of a Pod's end before the answer comes; both then bear the version of the end."""
    store, told = Store(), Listener()
    store.connect(told)
    store.saw("TrainingJob", make_job())
    store.saw("Pod", make_pod(0, version=5))
    end = make_pod(0, version=9, deletionTimestamp="2026-11-24T12:00:00Z")

    async def answer(_request: web.Request) -> web.Response:
        store.gone("Pod", end)
        return web.json_response(end)

    async def scenario() -> None:
        async with served(answer) as host:
            client = Client(access(host))
            try:
                cluster = KubeCluster(client, store, Recorder(client))
                await cluster.delete(see_job(make_job()), Delete(kind="Pod", name="digits-worker-0", uid="pod-0"))
            finally:
                await client.close()

    finish(scenario())
    assert told.pods == {}
