"""The coordinator from outside: requests as a worker makes them, and as a worker would not."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import time
from typing import Any

import jwt

from tests.cluster.control_plane import ISSUER, ControlPlane
from tests.integration.api import Space


def ask(
    method: str, port: int, path: str, context: ssl.SSLContext, *, token: str | None = None, body: bytes | None = None
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body of the answer."""
    headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Coordinator:
    """Asks one operator process, over TLS checked against what stands in a Pod."""

    def __init__(self, space: Space, port: int, ca: str) -> None:
        self._space, self._port = space, port
        self._context = ssl.create_default_context(cadata=ca)

    def poll(
        self, token: str | None, *, job: str, index: int = 0, namespace: str | None = None, **more: Any
    ) -> tuple[int, str]:
        """The status of the answer, and its reason if it is a refusal. more: fields of the request."""
        body = {
            "protocol": 1,
            "jobUid": "x",
            "podUid": "x",
            "sequence": time.time_ns() // 1000,
            "hold": 0,
            "round": 0,
            "state": "idle",
            "address": "127.0.0.1",
            "nextPort": 20000,
        }
        path = f"/v1/namespaces/{namespace or self._space.name}/trainingjobs/{job}/workers/{index}/poll"
        status, answer = ask(
            "POST", self._port, path, self._context, token=token, body=json.dumps(body | more).encode()
        )
        said = json.loads(answer)
        return status, str(said.get("reason", "")) if status != 200 else ""


def pod_token(space: Space, pod: dict[str, Any], audience: str) -> str:
    """A token that the API server makes for a Pod, as it does for a kubelet."""
    about = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": about},
    }
    return str(space.api.call("POST", f"{space.core}/serviceaccounts/default/token", body)["status"]["token"])


def claims(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def forged(cp: ControlPlane, token: str, changes: dict[str, Any], *, key: str | None = None, **head: Any) -> str:
    """The same token with other claims, signed again: with the cluster's own key, or with another."""
    private = key or (cp.folder / "service-accounts.key").read_text()
    header = jwt.get_unverified_header(token) | head
    return jwt.encode(claims(token) | {"iss": ISSUER} | changes, private, "RS256", headers=header)


def unsigned(token: str, algorithm: str, signature: bytes = b"") -> str:
    """The same token under a head that says how it is signed."""
    head = jwt.get_unverified_header(token) | {"alg": algorithm}
    parts = (json.dumps(head).encode(), json.dumps(claims(token)).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def another_key() -> str:
    """An RSA key of a stranger's."""
    return subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True, text=True).stdout
