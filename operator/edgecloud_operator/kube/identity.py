"""Whom a worker's token stands for: what the cluster signed, held against the Pods that were seen."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from edgecloud_operator.coordinator.admission import Identity, Refusal
from edgecloud_operator.core.builders import audience
from edgecloud_operator.kube.keys import Keys
from edgecloud_operator.kube.store import Store
from edgecloud_operator.kube.tokens import Claims, KeySet, expired, key_id, verify

LATE_SECONDS: Final = 120.0
"""A Pod whose token is older than this has been told of by a watch, if it is a worker at all."""
REMEMBERED: Final = 20_000
"""Tokens whose signature need not be verified again."""


def identify(
    claims: Claims, store: Store, now: float, unseen: Callable[[str], bool] = lambda _namespace: False
) -> Identity | Refusal:
    """Whom the claims of a verified token stand for.

    unseen: whether a namespace can't be looked into at the moment. not-ready: perhaps a Pod that a watch will tell of
    in a moment, or one of such a namespace.
    """
    if refusal := expired(claims, now):
        return refusal
    if store.is_gone(claims.pod_uid):
        return Refusal("unknown-pod", "this Pod is gone")
    seen = store.worker(claims.pod_uid)
    job = store.job(seen.key) if seen else None
    if seen is None or job is None:
        if unseen(claims.namespace):
            return Refusal("not-ready", "this Pod's namespace cannot be looked into now; ask again")
        if claims.issued + LATE_SECONDS < now:
            return Refusal("unknown-pod", "this Pod is no worker of a TrainingJob")
        return Refusal("not-ready", "this Pod, or its job, has not been seen yet; ask again")
    if seen.owner != job.metadata.uid or claims.namespace != seen.key[0]:
        return Refusal("unknown-pod", "this Pod is not the job's own")
    if audience(job) not in claims.audiences:
        return Refusal("wrong-audience", "the token was not made for this job's coordinator")
    return Identity(
        namespace=seen.key[0],
        job=seen.key[1],
        job_uid=job.metadata.uid,
        pod_uid=claims.pod_uid,
        index=seen.pod.index,
    )


class Identities:
    """The coordinator's authentication."""

    def __init__(self, store: Store, keys: Keys, unseen: Callable[[str], bool] = lambda _namespace: False) -> None:
        """unseen: whether a namespace can't be looked into at the moment."""
        self._unseen = unseen
        self._store = store
        self._keys = keys
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()
        """By digest: a worker shows the same token a few hundred times."""
        self._by: KeySet | None = None
        """The keys that these were verified with."""

    async def authenticate(self, token: str) -> Identity | Refusal:
        """Whom a bearer token stands for."""
        kid = key_id(token)
        if isinstance(kid, Refusal):
            return kid
        keys = await self._keys.current(kid)
        if keys is None:
            return Refusal("not-ready", "the cluster's keys have not been read yet; ask again")
        claims = self._claims(token, keys)
        return claims if isinstance(claims, Refusal) else identify(claims, self._store, time.time(), self._unseen)

    def _claims(self, token: str, keys: KeySet) -> Claims | Refusal:
        if keys is not self._by:
            self._verified.clear()
            self._by = keys
        digest = hashlib.sha256(token.encode("ascii")).digest()
        known = self._verified.get(digest)
        if known is not None:
            return known
        claims = verify(token, keys, time.time())
        if isinstance(claims, Claims):
            self._verified[digest] = claims
            if len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)
        return claims
