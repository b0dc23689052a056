"""Tokens as a cluster makes them, with keys of the tests' own."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgecloud_operator.kube.tokens import KeySet, read_keys
from tests.unit.kube.objects import JOB_UID

ISSUER = "https://kubernetes.default.svc"
NOW = 1_800_000_000.0
GOOD: dict[str, Any] = {
    "aud": [f"edgecloud.io/{JOB_UID}"],
    "exp": NOW + 3600,
    "iat": NOW,
    "nbf": NOW,
    "iss": ISSUER,
    "kubernetes.io": {
        "namespace": "team",
        "pod": {"name": "digits-worker-1", "uid": "pod-1"},
        "serviceaccount": {"name": "default", "uid": "x"},
    },
    "sub": "system:serviceaccount:team:default",
}


@cache
def private_key(kid: str) -> Any:
    """An RSA key for most; an elliptic one for those that say so."""
    if kid.startswith("ec"):
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


def document(*kids: str) -> dict[str, Any]:
    """A JSON Web Key Set."""
    keys = []
    for kid in kids:
        algorithm: Any = jwt.algorithms.ECAlgorithm if kid.startswith("ec") else jwt.algorithms.RSAAlgorithm
        name = "ES256" if kid.startswith("ec") else "RS256"
        key = json.loads(algorithm(algorithm.SHA256).to_jwk(private_key(kid).public_key()))
        keys.append(key | {"kid": kid, "use": "sig", "alg": name})
    return {"keys": keys}


def key_set(*kids: str) -> KeySet:
    return read_keys(document(*kids), ISSUER)


def signed(payload: Any = None, kid: str = "a", header: dict[str, Any] | None = None) -> str:
    """A token signed with the key of that id; header: what its head says besides."""
    name = "ES256" if kid.startswith("ec") else "RS256"
    return jwt.encode(
        GOOD if payload is None else payload, private_key(kid), name, headers={"kid": kid} | (header or {})
    )
