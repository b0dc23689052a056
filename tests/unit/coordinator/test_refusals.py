"""Requests that the real server refuses: each with its status, counted, and without harm to the good workers."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.protocol import MAX_BODY_BYTES, Directive, PollRequest
from edgecloud_operator.coordinator import server
from edgecloud_operator.coordinator.admission import STATUS_CODES, Refusal, RefusalReason
from tests.unit.coordinator.served import (
    Answer,
    Served,
    eventually,
    finish,
    identity,
    report,
    run_directive,
    serving,
    soon,
)

GOOD, OTHER, FOREIGN = identity("digits", 0), identity("digits", 1), identity("other", 0)
WAIT = Directive(action="wait", round=0)


@asynccontextmanager
async def harmless(served: Served) -> AsyncIterator[None]:
    """What happens within leaves a good worker as it was: its word stands, and its polls are answered."""
    served.publish(GOOD, WAIT)
    progress = {"step": 5, "reportedAt": 1.0}
    assert (await served.poll(GOOD, round=1, state="running", progress=progress)).status == 200
    key = (GOOD.namespace, GOOD.job)
    before = served.desk.launchers(key)[GOOD.pod_uid]
    yield
    assert served.desk.launchers(key)[GOOD.pod_uid] == before
    answer = await soon(served.poll(GOOD, round=1, state="running", progress=progress | {"step": 6}))
    assert (answer.status, answer.body["action"]) == (200, "wait")
    after = served.desk.launchers(key)[GOOD.pod_uid].report.progress
    assert after is not None and after.step == 6


def refused(answer: Answer, reason: RefusalReason) -> None:
    assert (answer.status, answer.reason) == (STATUS_CODES[reason], reason), answer
    assert set(answer.body) == {"reason", "message"}
    assert answer.body["message"]


def test_a_worker_that_is_not_known_yet_is_asked_to_come_again() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.identities["digits-0"] = Refusal("not-ready", "this Pod has not been seen yet")
            refused(await served.poll(GOOD), "not-ready")
            assert served.desk.refused == {"not-ready": 1}
            assert served.desk.launchers((GOOD.namespace, GOOD.job)) == {}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nobodys"},
        {"Authorization": "Bearer digits-0 digits-0"},
        {"Authorization": "Bearer  digits-0"},
        {"Authorization": "Basic digits-0"},
        {"Authorization": "digits-0"},
        {"Authorization": "Bearer " + "a" * 7000},
    ],
    ids=lambda headers: repr(headers.get("Authorization"))[:40],
)
def test_no_token_or_nobodys(headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            for body in (json.dumps(report(GOOD)).encode(), b"nonsense", b""):
                refused(await served.post(body, GOOD, token="", headers=headers), "unauthorized")
            assert served.desk.refused == {"unauthorized": 3}

    finish(scenario())


def test_a_token_of_odd_bytes() -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            head = served.head(GOOD, 2).replace(b"Bearer digits-0", b"Bearer \xff\xfe\xf0")
            reader, writer = await served.connect(head + b"{}")
            assert b" 401 " in await soon(reader.readline())
            writer.close()

    finish(scenario())


def test_the_word_bearer_in_any_case() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(GOOD, WAIT)
            body = json.dumps(report(GOOD)).encode()
            assert (await served.post(body, GOOD, token="", headers={"Authorization": "bEaReR digits-0"})).status == 200

    finish(scenario())


FOREIGN_PATHS = [
    "/v1/namespaces/team/trainingjobs/digits/workers/1/poll",
    "/v1/namespaces/team/trainingjobs/digits/workers/00/poll",
    "/v1/namespaces/team/trainingjobs/digits/workers/+0/poll",
    "/v1/namespaces/team/trainingjobs/digits/workers/0%20/poll",
    "/v1/namespaces/team/trainingjobs/digits/workers/-1/poll",
    "/v1/namespaces/team/trainingjobs/digits/workers/x/poll",
    "/v1/namespaces/team/trainingjobs/other/workers/0/poll",
    "/v1/namespaces/team/trainingjobs/Digits/workers/0/poll",
    "/v1/namespaces/rival/trainingjobs/digits/workers/0/poll",
    "/v1/namespaces/team%2Fx/trainingjobs/digits/workers/0/poll",
]


@pytest.mark.parametrize("path", FOREIGN_PATHS)
def test_a_foreign_path(path: str) -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            answer = await served.post(json.dumps(report(GOOD)).encode(), GOOD, path=path)
            refused(answer, "foreign")
            assert served.desk.refused == {"foreign": 1}

    finish(scenario())


@pytest.mark.parametrize(
    "fields",
    [
        {"podUid": OTHER.pod_uid},
        {"jobUid": FOREIGN.job_uid},
        {"podUid": FOREIGN.pod_uid, "jobUid": FOREIGN.job_uid},
        {"podUid": "x"},
    ],
)
def test_a_foreign_word(fields: dict[str, str]) -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            refused(await served.poll(GOOD, **fields), "foreign")
            assert served.desk.refused == {"foreign": 1}

    finish(scenario())


def test_another_workers_token() -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            body = json.dumps(report(GOOD)).encode()
            for token in ("digits-1", "other-0"):
                refused(await served.post(body, GOOD, token=token), "foreign")
            assert served.desk.refused == {"foreign": 2}
            assert served.desk.launchers(("team", "other")) == {}

    finish(scenario())


def test_an_answer_tells_nothing_of_others() -> None:
    """Two jobs, each with a secret in its directive: whatever is asked, only the own one is told."""

    async def scenario() -> None:
        async with serving() as served:
            own, others = run_directive(1, reason="secret-of-digits"), run_directive(1, reason="secret-of-other")
            served.publish(GOOD, own)
            served.publish(FOREIGN, others)
            assert (await served.poll(GOOD)).body["reason"] == "secret-of-digits"
            assert (await served.poll(FOREIGN)).body["reason"] == "secret-of-other"
            for path in (served.path(FOREIGN), "/v1/namespaces/team/trainingjobs/other/workers", "/", "/healthz/x"):
                for fields in ({}, {"podUid": FOREIGN.pod_uid, "jobUid": FOREIGN.job_uid}):
                    answer = await served.post(json.dumps(report(GOOD) | fields).encode(), GOOD, path=path)
                    assert answer.status in (403, 404)
                    assert "secret" not in json.dumps(answer.body)

    finish(scenario())


def malformed() -> list[tuple[str, bytes]]:
    """Bodies that are no PollRequest."""
    good = report(GOOD)
    failure = {"localRank": 0, "rank": 0, "reason": "ProgramError", "at": 1.0}

    def with_(**fields: Any) -> bytes:
        return json.dumps(good | fields).encode()

    def without(name: str) -> bytes:
        return json.dumps({key: value for key, value in good.items() if key != name}).encode()

    return [
        ("empty", b""),
        ("blank", b"  \n"),
        ("cut off", with_()[:-5]),
        ("two", with_() * 2),
        ("a list", b"[" + with_() + b"]"),
        ("null", b"null"),
        ("a number", b"1"),
        ("a text", b'"poll"'),
        ("a form", b"protocol=1&jobUid=uid-of-digits"),
        ("latin-1", with_(node="x").replace(b'"x"', b'"\xe9"')),
        ("utf-16", with_().decode().encode("utf-16")),
        ("a mark in front", b"\xef\xbb\xbf" + with_()),
        ("half a pair", with_(node="x").replace(b'"x"', b'"\\ud800"')),
        ("NaN hold", with_(hold=float("nan"))),
        ("long hold", with_(hold=10.5)),
        ("negative hold", with_(hold=-1)),
        ("deep", b"[" * 30_000 + b"]" * 30_000),
        ("deep inside", with_(node="x").replace(b'"x"', b'{"a":' * 10_000 + b"1" + b"}" * 10_000)),
        ("an unknown field", with_(extra=1)),
        ("python's spelling", without("jobUid")[:-1] + b', "job_uid": "uid-of-digits"}'),
        ("an unknown field inside", with_(failure=failure | {"extra": 1})),
        ("a text for a number", with_(sequence="5")),
        ("a fraction", with_(sequence=5.5)),
        ("true", with_(sequence=True)),
        ("sequence 0", with_(sequence=0)),
        ("a huge sequence", with_(sequence=2**70)),
        ("a negative round", with_(round=-1)),
        ("a huge round", with_(round=10**10)),
        ("a wrong state", with_(state="done")),
        ("port 0", with_(nextPort=0)),
        ("port 65536", with_(nextPort=65536)),
        ("an address of two lines", with_(address="10.0.0.1\n")),
        ("no address", with_(address="")),
        ("a script for an address", with_(address="$(reboot)")),
        ("a long message", with_(failure=failure | {"message": "x" * 2049})),
        ("a wrong reason", with_(failure=failure | {"reason": "Other"})),
        ("a wrong signal", with_(failure=failure | {"signal": "sigkill"})),
        ("the wrong progress of nobody", with_(progress={}, podUid="")),
        *((f"without {name}", without(name)) for name in good if name != "hold"),
    ]


@pytest.mark.parametrize(("name", "body"), malformed(), ids=[name for name, _ in malformed()])
def test_malformed(name: str, body: bytes) -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            refused(await served.post(body, GOOD), "malformed")
            assert served.desk.refused == {"malformed": 1}

    finish(scenario())


DEEP: dict[str, Any] = {"1": {"2": {"3": {"4": {"5": {"6": {"7": {"8": {"9": 1}}}}}}}}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": float("nan")},
        {"loss": float("inf")},
        {"step": -1},
        {"extra": 1},
        {"metrics": {str(number): 1.0 for number in range(33)}},
        {"metrics": {"a": "1"}},
        {"metrics": {"a": None}},
        {"evaluation": DEEP},
        {"exports": [1]},
    ],
    ids=lambda wrong: repr(wrong)[:30],
)
def test_progress_that_cannot_be_taken_is_dropped_and_the_rest_is_heard(wrong: dict[str, Any]) -> None:
    """Above all, how the round ended: what refuses that, hangs the job."""

    async def scenario() -> None:
        async with serving() as served:
            served.publish(GOOD, WAIT)
            progress = {"step": 5, "reportedAt": 1.0}
            assert (await served.poll(GOOD, round=1, state="running", progress=progress)).status == 200
            failure = {"localRank": 0, "rank": 0, "reason": "ProgramError", "at": 1.0}
            answer = await served.poll(GOOD, round=1, state="failed", failure=failure, progress=progress | wrong)
            assert (answer.status, answer.body["action"]) == (200, "wait")
            heard = served.desk.launchers((GOOD.namespace, GOOD.job))[GOOD.pod_uid].report
            assert heard.state == "failed" and heard.failure is not None
            assert heard.progress is not None and heard.progress.step == 5, "values last until they are replaced"
            assert served.desk.refused == {"malformed": 1}

    finish(scenario())


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60) | st.text(max_size=40).map(lambda text: json.dumps({"protocol": 1, "node": text}).encode())
)
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    result = server._parse(body, lambda refusal: None)
    assert isinstance(result, PollRequest | Refusal)
    assert not isinstance(result, Refusal) or (result.reason in STATUS_CODES and len(result.message) <= 300)


@pytest.mark.parametrize("version", [0, 2, 1000, -1, 2**62])
def test_another_protocol(version: int) -> None:
    """Above all one that is newer and has fields of which nothing is known here."""

    async def scenario() -> None:
        async with serving() as served, harmless(served):
            refused(await served.poll(GOOD, protocol=version), "protocol")
            answer = await served.poll(GOOD, protocol=version, invention={"a": 1}, state="dreaming")
            refused(answer, "protocol")
            assert str(version) in answer.body["message"]
            assert served.desk.refused == {"protocol": 2}

    finish(scenario())


def padded(size: int) -> bytes:
    body = json.dumps(report(GOOD)).encode()
    return body + b" " * (size - len(body))


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    """The body bit by bit, so that it has no Content-Length."""
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


def test_the_largest_body() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(GOOD, WAIT)
            assert (await served.post(padded(MAX_BODY_BYTES), GOOD)).status == 200
            assert (await served.post(chunks(padded(MAX_BODY_BYTES)), GOOD)).status == 200

    finish(scenario())


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 10 * MAX_BODY_BYTES])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_too_large_a_body(size: int, chunked: bool) -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            refused(await served.post(chunks(padded(size)) if chunked else padded(size), GOOD), "too-large")
            assert served.desk.refused == {"too-large": 1}

    finish(scenario())


def test_a_packed_body_stays_packed() -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            good, bomb = json.dumps(report(GOOD)).encode(), b" " * 50_000_000
            assert len(gzip.compress(bomb)) < MAX_BODY_BYTES
            for body in (gzip.compress(good), gzip.compress(bomb), b"no such thing"):
                for encoding in ("gzip", "deflate", "br"):
                    answer = await served.post(body, GOOD, headers={"Content-Encoding": encoding})
                    refused(answer, "malformed")

    finish(scenario())


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as if it were our own mistake: a stranger could fill the log with it."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("token", ["digits-0", "nobodys"])
def test_chunks_that_are_none(token: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            head = served.head(GOOD, None).replace(b"digits-0", token.encode())
            for chunks in (b"xyz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}", b"5" * 100 + b"\r\n"):
                reader, writer = await served.connect(head + chunks)
                status = await soon(reader.readline())
                assert b" 400 " in status or b" 401 " in status, status
                writer.close()

    finish(scenario())
    assert errors(caplog) == []


def test_a_stale_sequence() -> None:
    async def scenario() -> None:
        async with serving() as served:
            served.publish(OTHER, WAIT)
            async with harmless(served):
                newest = report(OTHER)
                assert (await served.post(json.dumps(newest).encode(), OTHER)).status == 200
                for sequence in (newest["sequence"], newest["sequence"] - 1, 1):
                    refused(await served.poll(OTHER, sequence=sequence), "stale-sequence")
                assert (await served.poll(OTHER, round=3)).status == 200
                refused(await served.poll(OTHER, round=2), "stale-round")
                assert served.desk.refused == {"stale-sequence": 3, "stale-round": 1}

    finish(scenario())


def test_values_of_an_older_round_are_dropped_and_counted_and_the_answer_is_given() -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            served.publish(OTHER, run_directive(1))
            answer = await served.poll(OTHER, round=0, state="running", progress={"step": 9, "reportedAt": 1.0})
            assert (answer.status, answer.body["round"]) == (200, 1)
            assert served.desk.launchers(("team", "digits"))[OTHER.pod_uid].report.progress is None
            assert served.desk.refused == {"stale-round": 1}

    finish(scenario())


def test_only_the_first_of_a_flood_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            for _ in range(20):
                answer = await served.post(b'{"protocol": 1, "a\\n\\u001b[31mforged": 1}', GOOD)
                refused(answer, "malformed")

    with caplog.at_level(logging.WARNING):
        finish(scenario())
    lines = [record.getMessage() for record in caplog.records if "refused" in record.message]
    assert [line.split(" so far")[0].rsplit(" ", 1)[-1] for line in lines] == ["1", "2", "4", "8", "16"]
    assert all(line.isprintable() for line in lines), "what a worker sends can't forge a line of the log"


def test_other_methods_and_places() -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            async with served.session.get(f"http://127.0.0.1:{served.port}/healthz") as response:
                assert (response.status, await response.text()) == (200, "ok\n")
            for method in ("GET", "PUT", "DELETE"):
                url = f"http://127.0.0.1:{served.port}{served.path(GOOD)}"
                async with served.session.request(method, url) as response:
                    assert response.status == 405
            for path in ("/", "/v1", served.path(GOOD) + "/", served.path(GOOD).replace("poll", "pole")):
                assert (await served.post(b"{}", GOOD, path=path)).status == 404

    finish(scenario())


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"X: a\r\n" * 5_000 + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 100,
    ],
    ids=["tls", "blank", "version", "negative", "two lengths", "a long header", "many headers", "http2", "nul"],
)
def test_what_is_no_http(junk: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            reader, writer = await served.connect(junk)
            writer.write_eof()
            line = await soon(reader.read(20))
            assert line == b"" or b" 400 " in line + b" ", line
            writer.close()

    finish(scenario())
    assert errors(caplog) == []


def test_a_client_that_goes_away_in_the_middle_of_its_body() -> None:
    async def scenario() -> None:
        async with serving() as served, harmless(served):
            before = len(asyncio.all_tasks())
            for _ in range(5):
                _, writer = await served.connect(served.head(GOOD, 100) + b'{"protocol"')
                writer.transport.abort()
            await eventually(lambda: len(asyncio.all_tasks()) <= before, "its handlers end", asyncio.all_tasks)
            assert served.desk.refused.total() == 0

    finish(scenario())
