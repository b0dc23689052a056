"""Who is told of new certificates, and what is said of those that cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from edgecloud_operator.core.names import CA_ANNOTATION
from edgecloud_operator.kube.announcer import Announcer
from edgecloud_operator.kube.client import Client
from edgecloud_operator.kube.store import Store
from tests.unit.kube.objects import make_job, make_pod
from tests.unit.kube.served import access, finish, served
from tests.unit.kube.test_store import Listener


def test_workers_are_told_and_those_that_cannot_be_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        told.append((request.path.rpartition("/")[2], body["metadata"]["annotations"][CA_ANNOTATION]))
        return web.json_response({})

    def warned() -> list[str]:
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        caplog.clear()
        return said

    async def scenario() -> None:
        store = Store()
        store.connect(Listener())
        store.saw("TrainingJob", make_job())
        for index, ca in enumerate(("old", "old", "")):
            store.saw("Pod", make_pod(index, annotations={CA_ANNOTATION: ca} if ca else {}))
        store.saw("Pod", make_pod(3, status={"phase": "Succeeded"}))
        store.saw("Pod", make_pod(uid="m", name="digits-measure"))
        async with served(answer) as host:
            client = Client(access(host))
            try:
                announcer = Announcer(client, store)
                for _ in range(2):
                    await announcer.announce("")
                (said,) = warned()
                assert said.startswith("2 running workers") and "began with a ca.crt" in said
                assert told == []
                await announcer.announce("old")
                assert (warned(), told) == ([], [])
                store.saw("Pod", make_pod(4))
                await announcer.announce("new")
                (said,) = warned()
                assert said.startswith("2 running workers") and "began without a ca.crt" in said
                assert told == [("digits-worker-0", "new"), ("digits-worker-1", "new")]
            finally:
                await client.close()

    finish(scenario())
