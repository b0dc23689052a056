"""What becomes of requests, against an API server on a real socket."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from edgecloud.api.status import TrainingJobStatus
from edgecloud_operator.controller.cluster import DeniedError, LaterError, RefusedError
from edgecloud_operator.core.builders import build_files, build_service
from edgecloud_operator.core.health import LEFTOVER_SECONDS
from edgecloud_operator.core.plan import Delete, Event
from edgecloud_operator.kube import cluster as cluster_module
from edgecloud_operator.kube import events as events_module
from edgecloud_operator.kube.access import AccessError
from edgecloud_operator.kube.client import Client, UnauthorizedError, UnavailableError
from edgecloud_operator.kube.cluster import DENIED_REMEDIES, OTHER_REMEDY, RULE_REMEDY, STORED_REMEDY, KubeCluster
from edgecloud_operator.kube.events import Recorder
from edgecloud_operator.kube.informer import Informer
from edgecloud_operator.kube.sight import see_job
from edgecloud_operator.kube.store import Store
from edgecloud_operator.subject import Subject, subject
from tests.unit.coordinator.served import eventually
from tests.unit.kube.objects import JOB_UID, make_job, make_pod, owner
from tests.unit.kube.served import Answer, access, finish, served
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


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (403, 'pods "a" is forbidden: exceeded quota: few, requested: pods=1, used: pods=3, limited: pods=3', "Quota"),
        (403, 'pods "a" is forbidden: failed quota: few: must specify limits.cpu for: worker', "Quota"),
        (403, 'pods "a" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [high]}]', "Quota"),
        (403, 'pods "a" is forbidden: status unknown for quota: few, resources: pods', "Quota"),
        (403, 'pods "a" is forbidden: violates PodSecurity "restricted:latest": host namespaces', "Admission"),
        (403, 'pods "a" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]', "Admission"),
        (403, 'admission webhook "a.io" denied the request: no quota for training on Mondays', "Admission"),
        (422, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", "Admission"),
        (400, "unable to decode", "Admission"),
        (413, "Request entity too large: limit is 3145728", "Admission"),
        (500, "etcdserver: request is too large", "Admission"),
        (500, "rpc error: code = ResourceExhausted desc = message larger than max (3 vs. 2)", "Admission"),
        (500, "rpc error: code = Unavailable desc = etcdserver: leader changed", "later"),
        (500, 'Internal error occurred: failed calling webhook "a.io": Post "https://a": no route', "Admission"),
        (404, 'admission webhook "a.io" denied the request: no such team', "Admission"),
        (503, 'admission webhook "a.io" denied the request: closed on Mondays', "Admission"),
        (500, "Internal error occurred: etcd is away", "later"),
        (429, "too many requests", "later"),
    ],
)  # fmt: skip
def test_what_the_server_says_to_a_create(status: int, said: str, reason: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "message": said, "code": status}, status=status)

    async def scenario() -> None:
        async with served(answer) as host:
            client = Client(access(host))
            try:
                cluster = KubeCluster(client, Store(), Recorder(client))
                await cluster.create(see_job(make_job()), {"kind": "Pod", "metadata": {"name": "digits-worker-0"}})
            finally:
                await client.close()

    with pytest.raises((RefusedError, UnavailableError)) as raised:
        finish(scenario())
    reasons = {"Quota": "QuotaExceeded", "Admission": "AdmissionDenied"}
    assert (raised.value.reason if isinstance(raised.value, RefusedError) else "later") == reasons.get(reason, reason)


async def asks(answer: Answer, ask: Callable[[KubeCluster], Awaitable[object]]) -> None:
    """Have a write made to a server that answers so."""
    async with served(answer) as host:
        client = Client(access(host))
        try:
            await ask(KubeCluster(client, Store(), Recorder(client)))
        finally:
            await client.close()


def test_a_quota_that_others_are_counted_in_is_asked_again_soon() -> None:
    text = 'Operation cannot be fulfilled on resourcequotas "few": the object has been modified'

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"reason": "Conflict", "message": text}, status=409)

    with pytest.raises(LaterError, match="resourcequotas") as raised:
        finish(asks(answer, lambda cluster: cluster.create(see_job(make_job()), build_service(see_job(make_job())))))
    assert raised.value.seconds == 1.0


def test_a_field_that_the_server_does_not_know_is_refused_of_a_new_job_alone() -> None:
    """A job that began when nobody asked must not stop at the first worker that it loses."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query["fieldValidation"])
        return web.json_response(await request.json() | {"metadata": {"name": "digits", "namespace": "team"}})

    for status in ({}, {"rendezvous": {"round": 0}}, {"rendezvous": {"round": 3}}):
        job = see_job(make_job(status=status))
        finish(asks(answer, lambda cluster, job=job: cluster.create(job, build_service(job))))  # type: ignore[misc]
    assert asked == ["Strict", "Strict", "Warn"]


FILES: dict[str, Any] = {"workers": 1, "program": {"command": ["python", "a.py"], "files": {"a.py": "1"}}}


@pytest.mark.parametrize(
    ("owner_uid", "ago", "says"),
    [
        pytest.param(JOB_UID, 0, "", id="its own"),
        pytest.param("another", 5, "later", id="the garbage collector comes"),
        pytest.param("another", LEFTOVER_SECONDS + 2, "is left of an earlier job of this name", id="it does not come"),
        pytest.param(None, 5, "is not this job's", id="somebody's"),
    ],
)
def test_files_of_an_earlier_job_of_this_name_are_given_time_to_go(owner_uid: str, ago: float, says: str) -> None:
    references = [owner(owner_uid)] if owner_uid else []
    accepted = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()
    job = see_job(make_job(spec=FILES, status={"startTime": accepted}))
    files = build_files(job)
    assert files is not None

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response({"reason": "AlreadyExists"}, status=409)
        return web.json_response({"metadata": {"name": "digits-files", "ownerReferences": references}})

    try:
        finish(asks(answer, lambda cluster: cluster.create(job, files)))
        said = ""
    except LaterError:
        said = "later"
    except RefusedError as error:
        assert error.reason == "NameTaken"
        said = error.message
    if says in ("", "later"):
        assert said == says
    else:
        assert said == f"a ConfigMap digits-files that {says} exists; delete it (kubectl delete configmap digits-files)"


@pytest.mark.parametrize("there", [True, False])
def test_files_are_made_where_there_are_none(there: bool) -> None:
    """They come with each batch of Pods: a quota without room for more is no reason to refuse those that are there."""
    job = see_job(make_job(spec=FILES))
    files = build_files(job)
    assert files is not None
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        if request.method == "POST" and there:
            return web.json_response({"message": "exceeded quota: count/configmaps"}, status=403)
        if request.method == "GET" and not there:
            return web.json_response({"reason": "NotFound"}, status=404)
        return web.json_response(files)

    finish(asks(answer, lambda cluster: cluster.create(job, files)))
    assert asked == (["GET"] if there else ["GET", "POST"])


@pytest.mark.parametrize(
    ("status", "said", "remedy"),
    [
        (401, "Unauthorized", DENIED_REMEDIES[401]),
        (403, 'trainingjobs.edgecloud.io "digits" is forbidden: User "op" cannot update', DENIED_REMEDIES[403]),
        (403, 'admission webhook "a.io" denied the request: no', RULE_REMEDY),
        (422, 'status.phase: Unsupported value: "Starting"', DENIED_REMEDIES[422]),
        (422, 'TrainingJob "digits" is invalid: spec.export: Invalid value: "object": relative', STORED_REMEDY),
        (422, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", RULE_REMEDY),
        (405, "the server does not allow this method", OTHER_REMEDY),
    ],
)
def test_a_write_that_is_denied_is_one_sentence_with_its_remedy(status: int, said: str, remedy: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"reason": "No", "message": f"{said}\n."}, status=status)

    job, target = see_job(make_job()), Delete(kind="Pod", name="digits-worker-0", uid="pod-0")
    asked: dict[str, Callable[[KubeCluster], Awaitable[object]]] = {
        "the status cannot be written": lambda cluster: cluster.write_status(job, TrainingJobStatus()),
        "the Pod digits-worker-0 cannot be deleted": lambda cluster: cluster.delete(job, target),
    }
    for what, ask in asked.items():
        with pytest.raises(DeniedError) as raised:
            finish(asks(answer, ask))
        assert str(raised.value) == f"{what}: {status} No: {said}; {remedy}"


STOPPING: dict[str, Any] = {
    "phase": "Running",
    "startTime": "2026-11-24T12:00:00Z",
    "rendezvous": {"round": 1, "members": [{"index": 0, "podUid": "pod-0"}], "stopping": True},
    "budget": {"spent": 1, "rejected": 2},
    "performance": {"waits": None, "ranks": [{"rank": 0, "idle": None}]},
}


async def writes(answer: Answer, *, times: int) -> list[TrainingJobStatus | None]:
    """What the control loop is given back when it writes a status so often."""
    async with served(answer) as host:
        client = Client(access(host))
        try:
            cluster = KubeCluster(client, Store(), Recorder(client))
            status = TrainingJobStatus.parse(STOPPING)
            return [(await cluster.write_status(see_job(make_job()), status)).status for _ in range(times)]
        finally:
            await client.close()


def test_what_an_older_resource_drops_of_a_status_is_known_as_if_it_stood_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It would be decided and written again without end, and no worker told to stop; and somebody has to hear of it."""

    async def answer(request: web.Request) -> web.Response:
        job = await request.json()
        del job["status"]["rendezvous"]["stopping"], job["status"]["budget"]["rejected"]
        return web.json_response(make_job(status=job["status"]))

    assert finish(writes(answer, times=3)) == [TrainingJobStatus.parse(STOPPING)] * 3
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.message == (
        "team/digits: the API server drops status.rendezvous.stopping, status.budget.rejected, which nobody knows"
        f" once the job is written by somebody else; {DENIED_REMEDIES[422]}"
    )


def test_what_a_newer_server_adds_or_words_otherwise_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: web.Request) -> web.Response:
        status = (await request.json())["status"]
        status |= {"startTime": "2026-11-24T12:00:00.000000Z", "newer": [1], "performance": {"ranks": [{"rank": 0.0}]}}
        status["rendezvous"] |= {"newer": {}}
        return web.json_response(make_job(status=status))

    (status,) = finish(writes(answer, times=1))
    assert status is not None and status.rendezvous == TrainingJobStatus.parse(STOPPING).rendezvous
    assert not caplog.records


def test_a_create_that_anything_else_would_meet_with_as_well_is_no_matter_of_the_child() -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"reason": "Unauthorized"}, status=401)

    with pytest.raises(DeniedError, match=r"the Service digits cannot be made: 401 Unauthorized: .*credentials"):
        finish(asks(answer, lambda cluster: cluster.create(see_job(make_job()), build_service(see_job(make_job())))))


def test_a_list_is_taken_up_page_by_page_and_begun_anew_when_its_pages_expire() -> None:
    """What was in the pages of the first attempt and is not in the second has gone."""
    store, told = Store(), Listener()
    store.connect(told)
    expired = iter([True])
    seen_before: list[set[str]] = []

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("trainingjobs"):
            return web.json_response({"metadata": {"resourceVersion": "20"}, "items": [make_job(), "nonsense"]})
        if request.path.endswith("services"):
            return web.json_response({"metadata": {"resourceVersion": "20"}})
        if "continue" not in request.query:
            items = [make_pod(0, version=5), make_pod(1, version=6)] if not seen_before else [make_pod(0, version=5)]
            return web.json_response({"metadata": {"resourceVersion": "20", "continue": "more"}, "items": items})
        seen_before.append(set(told.pods))
        if next(expired, False):
            return web.json_response({"reason": "Expired"}, status=410)
        return web.json_response({"metadata": {"resourceVersion": "20"}, "items": [make_pod(2, version=7)]})

    async def scenario() -> None:
        async with served(answer) as host:
            client = Client(access(host))
            try:
                await Informer(client, store, ()).list_all()
            finally:
                await client.close()

    finish(scenario())
    assert seen_before[0] == {"pod-0", "pod-1"}
    assert set(told.pods) == {"pod-0", "pod-2"}


async def only_new(request: web.Request) -> web.Response:
    """Lets in whoever has the new token."""
    return web.json_response({}, status=200 if request.headers.get("Authorization") == "Bearer new" else 401)


def test_requests_that_are_refused_side_by_side_lose_no_session() -> None:
    """Every session but the last is closed, once nobody can use it any more."""

    async def scenario() -> None:
        async with served(only_new) as host:

            async def reload() -> Configuration:
                await asyncio.sleep(0)  # a file is read: the others come in between
                return access(host, "new")

            client = Client(access(host, "old"), reload=reload, seconds=3.0)
            assert await asyncio.gather(*(client.request("GET", "/") for _ in range(8))) == 8 * [{}]
            await client.close()
            await eventually(lambda: open_sessions() == 0, "all sessions are closed", open_sessions)

    def sessions() -> list[aiohttp.ClientSession]:
        gc.collect()
        return [one for one in gc.get_objects() if type(one) is aiohttp.ClientSession]

    others = sessions()  # fsspec, which other tests use, keeps one for as long as the process lives

    def open_sessions() -> int:
        return sum(1 for session in sessions() if not session.closed and session not in others)

    finish(scenario())


def test_credentials_that_cannot_be_read_are_a_refusal_like_others() -> None:
    """Whoever makes requests expects ApiErrors, and tries again; anything else would end him."""

    async def reload() -> Configuration:
        raise AccessError("no access to an API server: the file is being replaced")

    async def scenario() -> None:
        async with served(only_new) as host:
            client = Client(access(host, "old"), reload=reload)
            try:
                with pytest.raises(UnauthorizedError, match="being replaced"):
                    await client.request("GET", "/")
            finally:
                await client.close()

    finish(scenario())


def test_an_event_that_cannot_be_recorded_is_told_of_with_its_job() -> None:
    """Events are recorded in the background; the lines about one are about its job all the same."""
    lines: list[tuple[str, Subject | None]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.getMessage(), subject()))

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"message": "no"}, status=403)

    async def scenario() -> None:
        async with served(answer) as host:
            client = Client(access(host))
            recorder = Recorder(client)
            await recorder.start()
            try:
                job = see_job(make_job(status={"rendezvous": {"round": 3}}))
                running = Event(type="Normal", reason="Running", message="all workers are running")
                await KubeCluster(client, Store(), recorder).emit(job, running)
                await eventually(lambda: lines, "a line")
            finally:
                await recorder.stop()
                await client.close()

    logger, handler = logging.getLogger("edgecloud_operator.kube.events"), Kept()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        finish(scenario())
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    assert [about for _, about in lines] == [Subject(job="team/digits", round=3)]


def test_a_job_of_a_newer_release_is_told_that_the_operator_does_not_understand_it() -> None:
    made: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        made.append(await request.json())
        return web.json_response({})

    async def scenario() -> None:
        store, acts = Store(), False
        store.connect(Listener())
        async with served(answer) as host:
            client = Client(access(host))
            recorder = Recorder(client)
            await recorder.start()
            cluster = KubeCluster(client, store, recorder, acts=lambda: acts)
            try:
                store.saw("TrainingJob", make_job(spec={"workers": 1, "program": {"command": ["a"]}, "colour": "red"}))
                cluster.tell_unread()  # a standby says nothing, and forgets nothing
                acts = True
                cluster.tell_unread()
                cluster.tell_unread()
                await cluster.emit(see_job(make_job()), Event(type="Normal", reason="Last", message=""))
                await eventually(lambda: [one for one in made if one["reason"] == "Last"], "the last one")
            finally:
                await recorder.stop()
                await client.close()

    finish(scenario())
    told = made[0]
    assert [one["reason"] for one in made] == ["NotUnderstood", "Last"]
    assert (told["type"], told["involvedObject"]["name"], told["involvedObject"]["uid"]) == (
        "Warning",
        "digits",
        JOB_UID,
    )
    assert "leaves it alone: spec.colour: Extra inputs are not permitted; upgrade the operator" in told["message"]


def test_of_more_jobs_than_events_may_wait_the_rest_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "UNREAD_AT_ONCE", 4)
    monkeypatch.setattr(events_module, "WAITING", 6)
    monkeypatch.setattr(events_module, "PAUSE_SECONDS", 0.0)
    made: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        made.append((await request.json())["involvedObject"]["name"])
        return web.json_response({})

    async def scenario() -> None:
        store = Store()
        store.connect(Listener())
        for number in range(10):
            store.saw("TrainingJob", make_job(name=f"j{number}", uid=f"u{number}", spec={"colour": "red"}))
        async with served(answer) as host:
            client = Client(access(host))
            recorder = Recorder(client)
            cluster = KubeCluster(client, store, recorder)
            try:
                for room in (2, 0, 0):
                    cluster.tell_unread()
                    assert recorder.room == room
                await recorder.start()
                await eventually(lambda: len(made) == 6, "those that could wait")
                cluster.tell_unread()
                await eventually(lambda: len(made) == 10, "and then the rest")
            finally:
                await recorder.stop()
                await client.close()

    finish(scenario())
    assert made == [f"j{number}" for number in range(10)]
