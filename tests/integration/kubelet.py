"""A kubelet for one namespace: each Pod is played by a real launcher process, whose doings the API server is told."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from edgecloud.launcher.linux import end_with_parent
from edgecloud_operator.core import names
from tests.integration.api import ApiStatusError, Space
from tests.unit.core.expansion import expanded

NODE = "node-0"


@dataclass
class _Played:
    process: subprocess.Popen[bytes]
    name: str
    home: Path


class Kubelet:
    """Runs what the API server has for its node, which is everything in the namespace."""

    def __init__(self, space: Space, folder: Path) -> None:
        self._space, self._folder = space, folder
        self._played: dict[str, _Played] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet")
        self.errors: list[BaseException] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=60)
        for played in self._played.values():
            played.process.kill()
            played.process.wait()

    def kill(self, name: str) -> None:
        """SIGKILL to a launcher, as for want of memory."""
        next(played for played in self._played.values() if played.name == name).process.kill()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            try:
                self._sync()
            except (OSError, ApiStatusError) as error:  # an API server that is away comes back
                if isinstance(error, ApiStatusError) and error.code not in (404, 409, 429, 500, 503):
                    self.errors.append(error)
            except BaseException as error:
                self.errors.append(error)
                raise

    def _sync(self) -> None:
        pods = {pod["metadata"]["uid"]: pod for pod in self._space.pods().values()}
        for uid, pod in pods.items():
            if pod["metadata"].get("deletionTimestamp"):
                self._remove(uid, pod)
            elif _what_measures(pod):
                continue  # a test says how it ends
            elif uid not in self._played and pod.get("status", {}).get("phase", "Pending") == "Pending":
                self._start(uid, pod)
            elif uid in self._played and pod["status"].get("phase") == "Running":
                self._look(uid, pod)
        for uid in set(self._played) - set(pods):
            played = self._played.pop(uid)
            played.process.kill()
            played.process.wait()

    def _start(self, uid: str, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        home = self._folder / uid
        home.mkdir(parents=True)
        (home / "token").write_text(self._token(pod))
        self._show_ca(home, pod)
        container = pod["spec"]["containers"][0]
        fields = {"metadata.uid": uid, "status.podIP": "127.0.0.1", "spec.nodeName": NODE}
        environment: dict[str, str] = {}
        for one in container["env"]:
            said = one.get("value", "")  # the server leaves an empty one out
            known = fields[one["valueFrom"]["fieldRef"]["fieldPath"]] if "valueFrom" in one else None
            environment[one["name"]] = expanded(said, environment) if known is None else known
        names = {
            "EDGECLOUD_TOKEN_FILE": home / "token",
            "EDGECLOUD_SCRATCH": home / "scratch",
            "EDGECLOUD_CHECKPOINT_DIR": home / "checkpoints",
            "EDGECLOUD_RESULTS_DIR": home / "results",
            "EDGECLOUD_TERMINATION_FILE": home / "termination",
            "EDGECLOUD_LOG_FILE": home / "log",
        }
        if "EDGECLOUD_CA_FILE" in environment:
            names["EDGECLOUD_CA_FILE"] = home / "ca.crt"
        paths = {key: str(path) for key, path in names.items()}
        paths["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `python` is ours
        command = [expanded(one, environment) for one in container["command"]]
        assert command[:2] == ["python", "-I"], command
        command[1] = "-P"  # an image has EdgeCloud installed; here it may be on PYTHONPATH alone
        with (home / "output").open("wb") as output:
            process = self._spawn([sys.executable, *command[1:]], os.environ | environment | paths, home, output)
        self._played[uid] = _Played(process, name, home)
        now = _now()
        running = {"name": "worker", "state": {"running": {"startedAt": now}}, "ready": True, "restartCount": 0}
        running |= {"image": container["image"], "imageID": ""}
        self._patch(name, uid, {"phase": "Running", "startTime": now, "containerStatuses": [running]})

    def _spawn(
        self, command: list[str], environment: dict[str, str], home: Path, output: BinaryIO
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=functools.partial(end_with_parent, signal.SIGKILL),  # noqa: PLW1509 (it calls prctl, no more)
        )

    def _show_ca(self, home: Path, pod: dict[str, Any]) -> None:
        """The volume that shows an annotation; a real kubelet brings it up to date within a minute."""
        sources = next(one for one in pod["spec"]["volumes"] if one["name"] == "identity")["projected"]["sources"]
        for item in (item for source in sources for item in source.get("downwardAPI", {}).get("items", ())):
            key = item["fieldRef"]["fieldPath"].removeprefix("metadata.annotations['").removesuffix("']")
            text, file = pod["metadata"]["annotations"][key], home / item["path"]
            if not file.exists() or file.read_text() != text:
                file.with_suffix(".new").write_text(text)
                file.with_suffix(".new").rename(file)

    def _look(self, uid: str, pod: dict[str, Any]) -> None:
        played = self._played[uid]
        self._show_ca(played.home, pod)
        code = played.process.poll()
        if code is None:
            return
        code = code if code >= 0 else 128 - code
        file = played.home / "termination"
        ended: dict[str, Any] = {
            "exitCode": code,
            "finishedAt": _now(),
            "reason": "Completed" if code == 0 else "Error",
        }
        if file.exists():
            ended["message"] = file.read_text()
        status = {"name": "worker", "state": {"terminated": ended}, "ready": False, "restartCount": 0}
        status |= {"image": pod["spec"]["containers"][0]["image"], "imageID": ""}
        phase = "Succeeded" if code == 0 else "Failed"
        self._patch(played.name, uid, {"phase": phase, "containerStatuses": [status]})

    def _remove(self, uid: str, pod: dict[str, Any]) -> None:
        played = self._played.pop(uid, None)
        if played is not None:
            played.process.kill()
            played.process.wait()
            shutil.rmtree(played.home, ignore_errors=True)
        now = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        self._space.api.call("DELETE", f"{self._space.core}/pods/{pod['metadata']['name']}", now)

    def _token(self, pod: dict[str, Any]) -> str:
        """The token that the Pod's projected volume asks for."""
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        source = volumes["identity"]["projected"]["sources"][0]["serviceAccountToken"]
        about = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [source["audience"]], "expirationSeconds": 3600, "boundObjectRef": about},
        }
        answer = self._space.api.call("POST", f"{self._space.core}/serviceaccounts/default/token", body)
        return str(answer["status"]["token"])

    def _patch(self, name: str, uid: str, status: dict[str, Any]) -> None:
        body = {"metadata": {"uid": uid}, "status": status}
        self._space.api.merge(f"{self._space.core}/pods/{name}/status", body)


def _what_measures(pod: dict[str, Any]) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return bool(labels.get(names.COMPONENT_LABEL) == names.MEASURER)


@contextmanager
def kubelet(space: Space, folder: Path) -> Iterator[Kubelet]:
    """A kubelet for as long as the block lasts."""
    made = Kubelet(space, folder)
    made.start()
    try:
        yield made
        assert made.errors == []
    finally:
        made.stop()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
