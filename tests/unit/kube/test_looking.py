"""What the informer knows of its own looking, and what the client tells of its requests; by a clock of the test's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from edgecloud_operator.controller.workqueue import Backlog
from edgecloud_operator.kube.client import ApiError, Client, ForbiddenError, UnavailableError
from edgecloud_operator.kube.informer import Informer, Looked
from edgecloud_operator.kube.store import Store
from edgecloud_operator.kube.vitals import LOOK_SECONDS, ailment
from tests.unit.kube.objects import make_job, make_pod
from tests.unit.kube.served import access, finish, served
from tests.unit.kube.test_store import Listener


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_list_counts_when_it_is_tried_and_when_it_comes() -> None:
    """A server that is away makes nothing but the age grow."""
    clock, there = Clock(), [True]

    async def answer(_request: web.Request) -> web.Response:
        clock.now += 5  # so long does it take
        return web.json_response({"metadata": {"resourceVersion": "7"}}, status=200 if there[0] else 503)

    async def scenario() -> None:
        store = Store()
        store.connect(Listener())
        async with served(answer) as host:
            client = Client(access(host))
            try:
                informer = Informer(client, store, (), clock=clock)
                clock.now += 50
                assert informer.looked() == Looked(heard_ago=50, tried_ago=50)
                await informer.list_all()
                assert informer.looked() == Looked()
                there[0] = False
                for _ in range(5):
                    clock.now += LOOK_SECONDS / 2
                    with pytest.raises(ApiError):
                        await informer.list_all()
                    clock.now += 7
                    assert informer.looked().tried_ago == 12
                    assert ailment(Backlog(), informer.looked()) is None
                assert informer.looked().heard_ago > 2 * LOOK_SECONDS
                clock.now += LOOK_SECONDS
                assert ailment(Backlog(), informer.looked()) is not None
            finally:
                await client.close()

    finish(scenario())


def test_an_event_counts_and_so_does_a_list_of_the_watchs() -> None:
    async def scenario() -> None:
        clock, store = Clock(), Store()
        store.connect(Listener())
        client = Client(access("http://127.0.0.1:1"))
        try:
            informer = Informer(client, store, (), clock=clock)
            clock.now += 500
            informer._told("TrainingJob", "ADDED", make_job(version=3))
            clock.now += 2
            assert informer.looked() == Looked(heard_ago=2, tried_ago=2)
            for version in (4, 5):
                informer._told("TrainingJob", None, make_job(version=version))
            assert informer.looked() == Looked(relists=1)
        finally:
            await client.close()

    finish(scenario())


def test_a_namespace_that_is_forbidden_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """It stops nothing elsewhere, loses nothing that is known, and shows no job without the Pods that it may have."""
    everything = {"trainingjobs", "services", "pods"}
    allowed = {"a": everything, "b": {"trainingjobs", "services"}}
    held = {
        "trainingjobs": lambda namespace: make_job(namespace=namespace, uid=f"job-{namespace}"),
        "pods": lambda namespace: make_pod(namespace=namespace, uid=f"pod-{namespace}", owner_uid=f"job-{namespace}"),
    }

    async def answer(request: web.Request) -> web.Response:
        *_, namespace, kind = request.path.split("/")
        if kind not in allowed[namespace]:
            return web.json_response({"reason": "Forbidden", "message": "no"}, status=403)
        items = [held[kind](namespace)] if kind in held else []
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": items})

    def logged() -> list[str]:
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return said

    async def scenario() -> None:
        store, listener = Store(), Listener()
        store.connect(listener)
        async with served(answer) as host:
            client = Client(access(host))
            try:
                informer = Informer(client, store, ("a", "b"))
                assert informer.leaves_out("a"), "nothing has been seen of it yet"
                await informer.list_all()
                await informer.list_all()
                assert [informer.leaves_out(namespace) for namespace in "abc"] == [False, True, False]
                informer._told("TrainingJob", "ADDED", held["trainingjobs"]("b"))
                assert list(listener.jobs) == [("a", "digits")]
                assert informer._relisted.is_set(), "it may be allowed now"
                (said,) = logged()
                assert "namespace b is left out" in said and "403" in said

                allowed["b"] = everything
                listener.take()
                await informer.list_all()
                assert listener.take() == ["job 1", "pod-b Pending"]
                assert logged() == ["namespace b can be listed again"]

                allowed["b"] = set()
                await informer.list_all()
                informer._told("Pod", "MODIFIED", held["pods"]("b") | {"status": {"phase": "Running"}})
                assert set(listener.jobs) == {("a", "digits"), ("b", "digits")}
                assert listener.take() == []
                allowed["a"] = set()
                with pytest.raises(ForbiddenError):
                    await informer.list_all()
                assert len(logged()) == 1
            finally:
                await client.close()

    with caplog.at_level("INFO", "edgecloud_operator.kube.informer"):
        finish(scenario())


def test_each_request_is_told_of() -> None:
    told: list[tuple[Any, ...]] = []
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("slow"):
            await over.wait()
        if request.path.endswith("page"):
            return web.Response(text="<html>")
        return web.json_response({}, status=200 if request.path.endswith("there") else 404)

    async def scenario() -> None:
        async with served(answer) as host:
            client = Client(access(host), seconds=0.3, on_request=lambda *one: told.append(one))
            try:
                await client.request("GET", "/there", query={"limit": "5"})
                for where, error in (("/gone", ApiError), ("/slow", UnavailableError), ("/page", UnavailableError)):
                    with pytest.raises(error):
                        await client.request("POST", where)
            finally:
                over.set()
                await client.close()

    finish(scenario())
    assert [one[:3] for one in told] == [
        ("GET", "/there", 200),
        ("POST", "/gone", 404),
        ("POST", "/slow", 0),
        ("POST", "/page", 200),
    ]
    assert all(0 <= one[3] < 30 for one in told)
    assert told[2][3] >= 0.25
