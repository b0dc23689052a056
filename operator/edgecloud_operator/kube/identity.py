"""Whom a worker's token stands for: read from the token, and held against the Pods that were seen."""

from __future__ import annotations

import base64
import binascii
import json
import math
import time
from dataclasses import dataclass
from typing import Any, Final

from edgecloud_operator.coordinator.admission import Identity, Refusal
from edgecloud_operator.core.builders import audience
from edgecloud_operator.kube.store import Store

MAX_TOKEN: Final = 8192
LEEWAY_SECONDS: Final = 60.0
"""How far the clocks of two machines may be apart."""
UNVERIFIED: Final = (
    "worker tokens are read but their signatures are not verified, and the coordinator speaks HTTP without TLS: whoever"
    " can reach its port can pass for a worker whose Pod uid is known to him. Let a NetworkPolicy restrict the port to"
    " the workers' Pods"
)


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a projected ServiceAccount token says of the Pod that it was made for."""

    audiences: tuple[str, ...]
    namespace: str
    pod_uid: str
    expires: float


def read_claims(token: str) -> Claims | None:
    """The claims of a token, unverified; None if it is none of a Pod."""
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3 or not token.isascii():
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    claims = _mapping(payload)
    bound = _mapping(claims.get("kubernetes.io"))
    said = claims.get("aud")
    audiences = said if isinstance(said, list) else [said]
    namespace, uid, expires = bound.get("namespace"), _mapping(bound.get("pod")).get("uid"), claims.get("exp")
    if not (isinstance(namespace, str) and isinstance(uid, str) and namespace and uid):
        return None
    if isinstance(expires, bool) or not isinstance(expires, (int, float)):
        return None
    if isinstance(expires, float) and math.isnan(expires):
        return None
    return Claims(
        audiences=tuple(one for one in audiences if isinstance(one, str)),
        namespace=namespace,
        pod_uid=uid,
        expires=float(max(0, min(expires, 1e15))),
    )


def identify(claims: Claims, store: Store, now: float) -> Identity | Refusal | None:
    """Whom the claims stand for. None: nobody. A Refusal: perhaps a Pod that a watch will tell of in a moment."""
    if claims.expires + LEEWAY_SECONDS < now or store.is_gone(claims.pod_uid):
        return None
    seen = store.worker(claims.pod_uid)
    job = store.job(seen.key) if seen else None
    if seen is None or job is None:
        return Refusal("not-ready", "this Pod, or its job, has not been seen yet; ask again")
    if seen.owner != job.metadata.uid or claims.namespace != seen.key[0] or audience(job) not in claims.audiences:
        return None
    return Identity(
        namespace=seen.key[0],
        job=seen.key[1],
        job_uid=job.metadata.uid,
        pod_uid=claims.pod_uid,
        index=seen.pod.index,
    )


class Identities:
    """The coordinator's authentication."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def authenticate(self, token: str) -> Identity | Refusal | None:
        """Whom a bearer token stands for."""
        claims = read_claims(token)
        return identify(claims, self._store, time.time()) if claims else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
