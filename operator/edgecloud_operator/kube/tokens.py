"""Workers' tokens: whether the cluster signed one, and what it then says. Pure: keys and time come from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from edgecloud_operator.coordinator.admission import Refusal

MAX_TOKEN: Final = 8192
MAX_KEYS: Final = 100
LEEWAY_SECONDS: Final = 60.0
"""How far the clocks of two machines may be apart."""
ALGORITHMS: Final = frozenset(("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"))
"""Signatures that only the holder of a private key can make; with HMAC whoever can verify can sign."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a projected ServiceAccount token says of the Pod that it was made for. Times are epoch seconds."""

    audiences: tuple[str, ...]
    namespace: str
    pod_uid: str
    issued: float
    expires: float


@dataclass(frozen=True)
class KeySet:
    """The public keys that the cluster signs tokens with, by key id, and the issuer that it names in them."""

    issuer: str
    keys: Mapping[str, jwt.PyJWK] = field(default_factory=dict)


def read_keys(document: Any, issuer: Any) -> KeySet:
    """The keys of a JSON Web Key Set (RFC 7517); those of no use here are passed over.

    Raises:
        ValueError: it is none, or holds no key that could be used.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not isinstance(issuer, str) or not issuer:
        raise ValueError("this is no set of keys with an issuer")
    keys: dict[str, jwt.PyJWK] = {}
    for entry in entries[:MAX_KEYS]:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        if not isinstance(kid, str) or not kid or entry.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            continue
        if key.algorithm_name in ALGORITHMS:
            keys[kid] = key
    if not keys:
        raise ValueError("none of the keys can be used")
    return KeySet(issuer, keys)


def key_id(token: str) -> str | Refusal:
    """Which key a token says it was signed with; nothing of it is trusted yet."""
    if len(token) > MAX_TOKEN or not token.isascii() or token.count(".") != 2:
        return Refusal("bad-token", "this is no token of the cluster's")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return Refusal("bad-token", "this is no token of the cluster's")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        return Refusal("bad-token", "the token is not signed in a way that the cluster signs")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        return Refusal("unknown-key", "the token does not say which key it was signed with")
    return kid


def verify(token: str, keys: KeySet, now: float) -> Claims | Refusal:
    """What a token says, if the cluster signed it for a Pod, and it is valid now (epoch seconds)."""
    kid = key_id(token)
    if isinstance(kid, Refusal):
        return kid
    key = keys.keys.get(kid)
    if key is None:
        return Refusal("unknown-key", "the token was signed with a key that is not the cluster's")
    try:
        # Times, issuer and audience are checked below, against the time given and the job's own audience.
        unchecked: Any = {f"verify_{what}": False for what in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
        claims = jwt.decode(token, key, algorithms=[key.algorithm_name], options=unchecked)
    except jwt.InvalidSignatureError:
        return Refusal("bad-signature", "the token's signature is not the cluster's")
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return Refusal("bad-token", "this is no token of the cluster's")
    if claims.get("iss") != keys.issuer:
        return Refusal("bad-token", "the token is of another issuer")
    read = read_claims(claims)
    if read is None:
        return Refusal("bad-token", "the token is not bound to a Pod")
    begins = _seconds(claims.get("nbf", 0))
    if begins is None or begins - LEEWAY_SECONDS > now:
        return Refusal("bad-token", "the token is not valid yet")
    return expired(read, now) or read


def expired(claims: Claims, now: float) -> Refusal | None:
    """Whether a token's time is over."""
    return Refusal("expired", "the token has expired") if claims.expires + LEEWAY_SECONDS < now else None


def read_claims(payload: Any) -> Claims | None:
    """The claims of a token's payload; None if it is none of a Pod."""
    claims = _mapping(payload)
    bound = _mapping(claims.get("kubernetes.io"))
    said = claims.get("aud")
    audiences = said if isinstance(said, list) else [said]
    namespace, uid = bound.get("namespace"), _mapping(bound.get("pod")).get("uid")
    issued, expires = _seconds(claims.get("iat", 0)), _seconds(claims.get("exp"))
    if not (isinstance(namespace, str) and isinstance(uid, str) and namespace and uid):
        return None
    if issued is None or expires is None:
        return None
    return Claims(
        audiences=tuple(one for one in audiences if isinstance(one, str)),
        namespace=namespace,
        pod_uid=uid,
        issued=issued,
        expires=expires,
    )


def _seconds(value: Any) -> float | None:
    """A time of a token, bounded; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    return float(max(0, min(value, 1e15)))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
