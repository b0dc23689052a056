"""Whom a token stands for, and that no token, however mangled or forged, raises or passes."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.coordinator.admission import Identity, Refusal
from edgecloud_operator.kube import identity as identity_module
from edgecloud_operator.kube.client import UnavailableError
from edgecloud_operator.kube.identity import LATE_SECONDS, Identities, identify
from edgecloud_operator.kube.keys import FRESH_SECONDS, PAUSE_SECONDS, Keys
from edgecloud_operator.kube.store import Store
from edgecloud_operator.kube.tokens import LEEWAY_SECONDS, MAX_TOKEN, Claims, KeySet, read_keys, verify
from tests.unit.kube.objects import JOB_UID, make_job, make_pod
from tests.unit.kube.test_store import Listener
from tests.unit.kube.tokens_made import GOOD, ISSUER, NOW, document, key_set, signed

WORKER = Identity(namespace="team", job="digits", job_uid=JOB_UID, pod_uid="pod-1", index=1)


def a_store() -> Store:
    store = Store()
    store.connect(Listener())
    store.saw("TrainingJob", make_job())
    store.saw("Pod", make_pod(1))
    return store


def who(payload: Any, store: Store | None = None, *, now: float = NOW) -> Identity | str:
    """The identity, or the reason of the refusal."""
    claims = verify(signed(payload), key_set("a"), now)
    found = claims if isinstance(claims, Refusal) else identify(claims, store or a_store(), now)
    return found.reason if isinstance(found, Refusal) else found


def pod(**fields: Any) -> dict[str, Any]:
    return GOOD | {"kubernetes.io": GOOD["kubernetes.io"] | fields}


def test_a_worker_is_recognised() -> None:
    assert who(GOOD) == WORKER
    assert who(GOOD | {"aud": f"edgecloud.io/{JOB_UID}"}) == WORKER
    assert who(GOOD | {"aud": [ISSUER, f"edgecloud.io/{JOB_UID}"]}) == WORKER


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (GOOD | {"exp": NOW - LEEWAY_SECONDS - 1}, "expired"),
        (GOOD | {"nbf": NOW + LEEWAY_SECONDS + 1}, "bad-token"),
        (GOOD | {"aud": [ISSUER]}, "wrong-audience"),
        (GOOD | {"aud": ["edgecloud.io/another-job"]}, "wrong-audience"),
        (GOOD | {"aud": f"edgecloud.io/{JOB_UID}x"}, "wrong-audience"),
        (GOOD | {"iss": "https://another.cluster"}, "bad-token"),
        (pod(namespace="other"), "unknown-pod"),
        (pod(pod={"uid": "never-seen"}), "not-ready"),
        (pod(pod={"uid": "never-seen"}) | {"iat": NOW - LATE_SECONDS - 1}, "unknown-pod"),
        (pod(pod={}), "bad-token"),
        (pod(pod=None), "bad-token"),
        (GOOD | {"kubernetes.io": None}, "bad-token"),
        ({key: value for key, value in GOOD.items() if key != "exp"}, "bad-token"),
        (GOOD | {"exp": "never"}, "bad-token"),
        (GOOD | {"exp": True}, "bad-token"),
    ],
)
def test_nobody(payload: Any, reason: str) -> None:
    assert who(payload) == reason


def test_a_worker_of_a_namespace_that_is_left_out_asks_again() -> None:
    """The Role there may come back; a launcher that is nobody's would be told so for hours."""
    late = pod(pod={"uid": "never-seen"}, namespace="b") | {"iat": NOW - LATE_SECONDS - 1}
    claims = verify(signed(late), key_set("a"), NOW)
    assert isinstance(claims, Claims)
    for left_out, reason in (("b", "not-ready"), ("c", "unknown-pod")):
        found = identify(claims, a_store(), NOW, lambda namespace, out=left_out: namespace == out)  # type: ignore[misc]
        assert isinstance(found, Refusal) and found.reason == reason


def test_what_measures_is_no_worker() -> None:
    """It has no token of ours; somebody could have one made for it."""
    store = a_store()
    store.saw("Pod", make_pod(0, name="digits-measure", uid="pod-m"))
    claims = pod(pod={"name": "digits-measure", "uid": "pod-m"})
    assert who(claims, store) == "not-ready"
    assert who(claims | {"iat": NOW - LATE_SECONDS - 1}, store) == "unknown-pod"


def test_a_pod_that_is_gone() -> None:
    store = a_store()
    store.gone("Pod", make_pod(1, version=9))
    assert who(GOOD, store) == "unknown-pod"


def test_a_pod_of_an_earlier_job_of_that_name() -> None:
    store = a_store()
    store.gone("TrainingJob", make_job(version=9))
    store.saw("TrainingJob", make_job(uid="later", version=10))
    assert who(GOOD, store) == "unknown-pod"


def test_clocks_may_differ_a_little() -> None:
    assert who(GOOD | {"exp": NOW - LEEWAY_SECONDS + 1}) == WORKER
    assert who(GOOD | {"nbf": NOW + LEEWAY_SECONDS - 1}) == WORKER


# Signatures


def raw(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_signatures() -> None:
    keys = key_set("a", "ec-1")
    for kid in ("a", "ec-1"):
        token = signed(GOOD, kid)
        assert isinstance(verify(token, keys, NOW), Claims)
        head, body, signature = token.split(".")
        other = raw(pod(namespace="victim"))
        flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
        for forged in (f"{head}.{other}.{signature}", f"{head}.{body}.{flipped}", f"{head}.{body}."):
            refusal = verify(forged, keys, NOW)
            assert isinstance(refusal, Refusal)
            assert refusal.reason in ("bad-signature", "bad-token")
    # Signed by somebody else who uses our key's id.
    refusal = verify(signed(GOOD, "b", {"kid": "a"}), keys, NOW)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "bad-signature"


@pytest.mark.parametrize("algorithm", ["none", "None", "", None, "HS256", "HS512", 7, ["RS256"], {"a": 1}])
def test_algorithms_that_sign_nothing(algorithm: Any) -> None:
    public = json.dumps(document("a")["keys"][0]).encode()
    head = raw({"alg": algorithm, "kid": "a", "typ": "JWT"})
    for signature in ("", base64.urlsafe_b64encode(public).decode().rstrip("=")):
        refusal = verify(f"{head}.{raw(GOOD)}.{signature}", key_set("a"), NOW)
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "bad-token"


def test_another_algorithm_than_the_keys() -> None:
    token = signed(GOOD, "a", {"alg": "PS256"})
    refusal = verify(token, key_set("a"), NOW)
    assert isinstance(refusal, Refusal)


def test_keys_that_are_not_the_clusters() -> None:
    for token in (signed(GOOD, "b"), signed(GOOD, "a", {"kid": ""})):
        refusal = verify(token, key_set("a"), NOW)
        assert isinstance(refusal, Refusal)
        assert refusal.reason in ("unknown-key", "bad-token")


def test_a_set_with_keys_of_no_use() -> None:
    good = document("a")["keys"]
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "h", "alg": "HS256"}
    useless: list[Any] = [secret, {"kty": "RSA"}, None, 7, good[0] | {"kid": ""}, good[0] | {"kid": "e", "use": "enc"}]
    assert set(read_keys({"keys": useless + good}, ISSUER).keys) == {"a"}
    for nothing in ({"keys": useless}, {"keys": []}, {}, [], None):
        with pytest.raises(ValueError):
            read_keys(nothing, ISSUER)
    for issuer in (None, "", 7):
        with pytest.raises(ValueError):
            read_keys({"keys": good}, issuer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["aud", "exp", "iat", "nbf", "iss", "kubernetes.io", "kubernetes.io.pod"]), JSON)
def test_no_payload_of_the_cluster_raises(field: str, value: Any) -> None:
    payload = pod(pod=value) if field == "kubernetes.io.pod" else GOOD | {field: value}
    try:
        token = signed(payload)
    except (TypeError, ValueError):  # the library signs no such thing
        return
    found = verify(token, key_set("a"), NOW)
    assert isinstance(found, Refusal | Claims)


@given(JSON, JSON, st.text(max_size=40))
def test_nothing_unsigned_passes(header: Any, payload: Any, signature: str) -> None:
    if isinstance(header, dict):
        header |= {"kid": "a", "alg": "RS256"}
    for token in (f"{raw(header)}.{raw(payload)}.{signature}", f"{raw(header)}.{raw(GOOD)}.", signature):
        assert isinstance(verify(token, key_set("a"), NOW), Refusal)


def test_what_is_too_long_or_too_deep() -> None:
    deep = base64.urlsafe_b64encode(b'{"a":' * 1500 + b"1" + b"}" * 1500).decode().rstrip("=")
    for token in (
        signed() + "A" * MAX_TOKEN,
        f"{deep}.{deep}.x",
        f"{raw({'alg': 'RS256', 'kid': 'a'})}.{deep[:6000]}.x",
    ):
        assert isinstance(verify(token, key_set("a"), NOW), Refusal)


# Keys that change


class Cluster:
    """Its key set, and how often it was read."""

    def __init__(self, *kids: str) -> None:
        self.kids, self.read, self.away, self.now = kids, 0, False, 1000.0
        self.keys = Keys(self._read, lambda: self.now)

    async def _read(self) -> KeySet:
        self.read += 1
        if self.away:
            raise UnavailableError("away")
        return key_set(*self.kids)

    def knows(self, kid: str) -> bool:
        found = asyncio.run(self.keys.current(kid))
        return found is not None and kid in found.keys


def test_keys_are_read_again_for_an_unknown_one_but_not_all_the_time() -> None:
    cluster = Cluster("a")
    assert all(cluster.knows("a") for _ in range(5))
    assert cluster.read == 1
    cluster.kids = ("a", "b")
    assert not cluster.knows("b")  # asked a moment ago
    cluster.now += PAUSE_SECONDS
    assert cluster.knows("b")
    assert cluster.knows("a")
    assert cluster.read == 2
    for _ in range(100):
        assert not cluster.knows("made-up")
    assert cluster.read == 2


def test_a_key_that_was_withdrawn_is_forgotten() -> None:
    cluster = Cluster("a", "b")
    assert cluster.knows("a")
    cluster.kids = ("b",)
    cluster.now += FRESH_SECONDS
    assert not cluster.knows("a")
    assert cluster.knows("b")


def test_a_cluster_that_is_away_takes_nobodys_identity() -> None:
    cluster = Cluster("a")
    cluster.away = True
    assert not cluster.knows("a")
    cluster.away = False
    assert not cluster.knows("a")
    cluster.now += PAUSE_SECONDS
    assert cluster.knows("a")
    cluster.away = True
    cluster.now += 2 * FRESH_SECONDS
    assert cluster.knows("a")


def test_a_token_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module.time, "time", lambda: NOW)
    cluster = Cluster("a")
    known = Identities(a_store(), cluster.keys)
    token = signed()
    assert asyncio.run(known.authenticate(token)) == WORKER
    calls: list[str] = []
    monkeypatch.setattr(
        identity_module, "verify", lambda token, keys, now: calls.append(token) or verify(token, keys, now)
    )
    assert asyncio.run(known.authenticate(token)) == WORKER
    assert calls == []
    # What follows from the token is asked anew each time.
    monkeypatch.setattr(identity_module.time, "time", lambda: NOW + 3600 + LEEWAY_SECONDS + 1)
    refused = asyncio.run(known.authenticate(token))
    assert isinstance(refused, Refusal)
    assert refused.reason == "expired"
    # Other keys: nothing that was verified with the old ones counts.
    monkeypatch.setattr(identity_module.time, "time", lambda: NOW)
    cluster.kids, cluster.now = ("b",), cluster.now + FRESH_SECONDS
    refused = asyncio.run(known.authenticate(token))
    assert isinstance(refused, Refusal)
    assert refused.reason == "unknown-key"


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.b.c", "\x00", "a" * 100_000, "."])
def test_garbage(token: str) -> None:
    found = asyncio.run(Identities(a_store(), Cluster("a").keys).authenticate(token))
    assert isinstance(found, Refusal)
    assert found.reason == "bad-token"
