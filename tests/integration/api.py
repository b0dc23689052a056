"""A small client of the tests' own: what they see must not come through the code that they test."""

from __future__ import annotations

import http.client
import json
import re
import select
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from tests.cluster.control_plane import ControlPlane

T = TypeVar("T")
_METRIC = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<value>[0-9.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class ApiStatusError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Api:
    """Requests as the cluster's administrator."""

    def __init__(self, cp: ControlPlane) -> None:
        self._port, self._token = cp.port, cp.token
        self._context = ssl.create_default_context(cafile=str(cp.ca))
        self._of_thread = threading.local()
        self._connections: list[http.client.HTTPSConnection] = []

    def _connection(self) -> http.client.HTTPSConnection:
        """One for each thread, kept open."""
        if not hasattr(self._of_thread, "connection"):
            made = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=self._context)
            self._of_thread.connection = made
            self._connections.append(made)
        connection: http.client.HTTPSConnection = self._of_thread.connection
        return connection

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def call(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        connection = self._connection()
        try:
            if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
                connection.close()  # the server has closed it, or says something that nobody asked for
            connection.request(method, path, body=data, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise OSError(f"{method} {path}: {error!r}") from error
        if answer.status >= 300:
            raise ApiStatusError(answer.status, text)
        return json.loads(text) if text.startswith("{") else text

    def find(self, path: str) -> Any:
        """The object, or None."""
        try:
            return self.call("GET", path)
        except ApiStatusError as error:
            if error.code == 404:
                return None
            raise

    def merge(self, path: str, body: Any) -> Any:
        return self.call("PATCH", path, body, kind="application/merge-patch+json")

    def writes(self) -> Counter[tuple[str, str]]:
        """Writes that succeeded since the server began, by verb and resource."""
        found: Counter[tuple[str, str]] = Counter()
        for match in _METRIC.finditer(self.call("GET", "/metrics")):
            labels = dict(_LABEL.findall(match["labels"]))
            if labels["verb"] in ("POST", "PUT", "PATCH", "DELETE") and labels["code"].startswith("2"):
                resource = labels["resource"] + ("/" + labels["subresource"] if labels["subresource"] else "")
                found[(labels["verb"], resource)] += int(float(match["value"]))
        return found


class Space:
    """A namespace, and what a user and a kubelet do there."""

    def __init__(self, api: Api, name: str) -> None:
        self.api, self.name = api, name
        self.core = f"/api/v1/namespaces/{name}"
        self.jobs = f"/apis/edgecloud.io/v1alpha1/namespaces/{name}/trainingjobs"

    def submit(self, name: str, **spec: Any) -> dict[str, Any]:
        fields = {"workers": 2, "program": {"command": ["sleep", "1"]}} | spec
        body = {
            "apiVersion": "edgecloud.io/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": self.name},
            "spec": {key: value for key, value in fields.items() if value is not None},
        }
        made: dict[str, Any] = self.api.call("POST", self.jobs, body)
        return made

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.call("GET", f"{self.jobs}/{name}")
        return found

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.job(name).get("status") or {}
        return found

    def phase(self, name: str) -> str:
        return str(self.status(name).get("phase", ""))

    def blocked(self, name: str) -> str:
        conditions = self.status(name).get("conditions", ())
        return next((one["reason"] for one in conditions if one["type"] == "Blocked"), "")

    def pods(self, job: str | None = None) -> dict[str, dict[str, Any]]:
        """Pods by name; of one job, or all."""
        items = self.api.call("GET", f"{self.core}/pods")["items"]
        return {
            item["metadata"]["name"]: item
            for item in items
            if job is None or item["metadata"]["name"].startswith(f"{job}-worker-")
        }

    def uids(self, job: str) -> dict[str, str]:
        return {name: pod["metadata"]["uid"] for name, pod in self.pods(job).items()}


def until(
    look: Callable[[], T], what: str, *, seconds: float = 60.0, saw: Callable[[], Any] | None = None, every: float = 0.1
) -> T:
    """Wait until there is something to see.

    every: seconds between two looks, to be more where a look costs the server what others wait for.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; saw: {saw() if saw else found}")
        time.sleep(every)
    return found
