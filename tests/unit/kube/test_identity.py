"""Whom a token stands for, and that no token, however mangled, raises or passes."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.coordinator.admission import Identity, Refusal
from edgecloud_operator.kube.identity import LEEWAY_SECONDS, MAX_TOKEN, Claims, Identities, identify, read_claims
from edgecloud_operator.kube.store import Store
from tests.unit.kube.objects import JOB_UID, make_job, make_pod
from tests.unit.kube.test_store import Listener

NOW = 1_800_000_000.0
GOOD: dict[str, Any] = {
    "aud": [f"edgecloud.io/{JOB_UID}"],
    "exp": NOW + 3600,
    "iat": NOW,
    "iss": "https://kubernetes.default.svc",
    "kubernetes.io": {
        "namespace": "team",
        "pod": {"name": "digits-worker-1", "uid": "pod-1"},
        "serviceaccount": {"name": "default", "uid": "x"},
    },
    "sub": "system:serviceaccount:team:default",
}


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def token(payload: Any) -> str:
    return f"{encoded({'alg': 'RS256'})}.{encoded(payload)}.c2lnbmF0dXJl"


def a_store() -> Store:
    store = Store()
    store.connect(Listener())
    store.saw("TrainingJob", make_job())
    store.saw("Pod", make_pod(1))
    return store


def who(payload: Any, store: Store | None = None, *, now: float = NOW) -> Identity | Refusal | None:
    claims = read_claims(token(payload))
    return identify(claims, store or a_store(), now) if claims else None


def test_a_worker_is_recognised() -> None:
    expected = Identity(namespace="team", job="digits", job_uid=JOB_UID, pod_uid="pod-1", index=1)
    assert who(GOOD) == expected
    assert who(GOOD | {"aud": f"edgecloud.io/{JOB_UID}"}) == expected
    assert who(GOOD | {"aud": ["https://kubernetes.default.svc", f"edgecloud.io/{JOB_UID}"]}) == expected
    assert who(GOOD, now=NOW + 3600 + LEEWAY_SECONDS - 1) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"aud": []},
        {"aud": None},
        {"aud": "edgecloud.io/other"},
        {"aud": [7]},
        {"exp": NOW - LEEWAY_SECONDS - 1},
        {"exp": None},
        {"exp": True},
        {"exp": "tomorrow"},
        {"exp": float("nan")},
        {"exp": -(10**400)},
        {"kubernetes.io": None},
        {"kubernetes.io": {}},
        {"kubernetes.io": {"namespace": "team"}},
        {"kubernetes.io": {"namespace": "team", "serviceaccount": {"uid": "pod-1"}}},
        {"kubernetes.io": {"namespace": "team", "pod": {"uid": ""}}},
        {"kubernetes.io": {"namespace": "other", "pod": {"uid": "pod-1"}}},
    ],
    ids=repr,
)
def test_nobody(change: dict[str, Any]) -> None:
    assert who(GOOD | change) is None


def test_a_pod_that_was_not_seen_yet_is_asked_to_come_again() -> None:
    unknown = GOOD | {"kubernetes.io": {"namespace": "team", "pod": {"uid": "pod-7"}}}
    for answer in (who(unknown), who(GOOD, fresh := Store())):
        assert isinstance(answer, Refusal)
        assert answer.reason == "not-ready"
    fresh.connect(Listener())
    fresh.saw("Pod", make_pod(1))  # its job is still to come
    assert isinstance(who(GOOD, fresh), Refusal)


def test_a_pod_that_is_gone_is_nobody() -> None:
    store = a_store()
    store.gone("Pod", make_pod(1, version=9))
    assert who(GOOD, store) is None


def test_a_pod_that_is_not_the_jobs_own_is_nobody() -> None:
    store = a_store()
    store.saw("Pod", make_pod(1, uid="copy", owner_uid=None, version=5))
    assert who(GOOD | {"kubernetes.io": {"namespace": "team", "pod": {"uid": "copy"}}}, store) is None
    store.saw("TrainingJob", make_job(uid="second", version=9))
    assert who(GOOD, store) is None


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b", "a.b.c.d", "a.!!.c", "a.é.c", f"a.{encoded([])}.c", f"a.{encoded('x')}.c", "a.W1tb.c",
     "a." + encoded({"aud": "x" * MAX_TOKEN}) + ".c", "a." + base64.urlsafe_b64encode(b"[" * 5000).decode() + ".c"],
)  # fmt: skip
def test_what_is_no_token(text: str) -> None:
    assert read_claims(text) is None
    assert asyncio.run(Identities(a_store()).authenticate(text)) is None


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["aud", "exp", "kubernetes.io", "pod", "uid", "namespace"]), st.text()),
            inner,
            max_size=5,
        ),
    ),
)


@given(JSON)
def test_no_claim_raises(payload: Any) -> None:
    claims = read_claims(token(payload))
    assert claims is None or isinstance(claims, Claims)
    assert not isinstance(who(payload), Identity)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    read_claims(text)
    read_claims(f"a.{text}.c")
