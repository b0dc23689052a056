"""A real etcd and kube-apiserver, and on request some real controllers: what the integration tests talk to.

    with control_plane() as cp:
        cp.kubectl("apply", "-f", "manifests/crd.yaml")

Everything lives in a folder of its own and listens on 127.0.0.1 only. There are no controllers: no garbage collector,
no scheduler, no kubelet; a test plays their part. `start_controllers` has a
kube-controller-manager run those that are named. `python -m tests.cluster.control_plane` keeps one up to play with.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgecloud.launcher.linux import end_with_parent
from tests.ports import free_port

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecloud"
BIN: Final = CACHE / "bin"
REMEDY: Final = "tests/cluster/tools.sh control-plane"

ISSUER: Final = "https://kubernetes.default.svc"
_PREFIX: Final = "edgecloud-control-plane-"
_STARTS_WITHIN: Final = 60.0
_STOPS_WITHIN: Final = 2.0
_ATTEMPTS: Final = 3
"""A port that was free when we asked may be taken when the server binds it."""


class ControlPlaneError(RuntimeError):
    """The control plane doesn't come up; the message has the last lines of its log."""


class KubectlError(RuntimeError):
    """kubectl ended with something else than 0; the message is what it said."""


@dataclass
class ControlPlane:
    """A running API server, and the ways to talk to it as system:masters."""

    folder: Path
    etcd_port: int
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    etcd: subprocess.Popen[bytes] | None = None
    apiserver: subprocess.Popen[bytes] | None = None
    controller_manager: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def ca(self) -> Path:
        """The certificate to verify the server with: it made it itself."""
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def audit_log(self) -> Path:
        """What was asked of the server, by whom: a JSON object on each line."""
        return self.folder / "audit.log"

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """For a process that is to find this API server and no other; as its administrator, unless a file is named."""
        own = {
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "kubectl-cache"),  # what it learnt about this port isn't for the next
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        return {**os.environ, **own}

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl and return what it printed; raises KubectlError with what it complained about."""
        done = subprocess.run(
            [BIN / "kubectl", *map(str, arguments)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=self.environment(),
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object, or ask what is asked so; what the server answers. Cheaper than a kubectl."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)
        try:
            with self._opener().open(request, timeout=30) as answer:
                made: dict[str, Any] = json.load(answer)
                return made
        except urllib.error.HTTPError as error:
            with error:
                raise ControlPlaneError(f"POST {path}: {error.read().decode(errors='replace')}") from error

    def create_namespace(self, name: str) -> str:
        """A namespace with the default ServiceAccount that a controller would make: Pods are not admitted without."""
        self.post("/api/v1/namespaces", {"metadata": {"name": name}})
        self.post(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return name

    def wait_established(self, crd: str, *, seconds: float = 30.0) -> None:
        """Until objects of this CRD are taken. (kubectl wait ends with an error where there are no conditions yet.)"""
        deadline = time.monotonic() + seconds
        while True:
            status = json.loads(self.kubectl("get", "crd", crd, "--output=json")).get("status") or {}
            met = [one["type"] for one in status.get("conditions") or () if one["status"] == "True"]
            if "Established" in met:
                return
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"{crd} is not established within {seconds:.0f} s: {status}")
            time.sleep(0.05)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """No API server inside the block; the same one, with the same data and address, after it."""
        _stop(self.apiserver)
        try:
            yield
        finally:
            self._start_apiserver()

    def _start_etcd(self) -> None:
        client = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{free_port()}"
        self.etcd = self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _start_apiserver(self) -> None:
        key = self.folder / "service-accounts.key"
        self.apiserver = self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--cert-dir={self.ca.parent}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            # As many clusters have it: who names an owner that waits for its children needs a right to.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
            f"--audit-policy-file={self.folder / 'audit.json'}",
            f"--audit-log-path={self.audit_log}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
        )
        self._wait_until_ready()

    def start_controllers(self, *controllers: str) -> None:
        """Run these controllers of Kubernetes', by the names that `kube-controller-manager --help` gives them.

        After the CRD is there: the garbage collector looks for new kinds twice a minute only.
        """
        _require("kube-controller-manager")
        self.controller_manager = self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(controllers)}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--cert-dir={self.folder / 'controller-certificates'}",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _STARTS_WITHIN
        seen = "nothing"
        while time.monotonic() < deadline:
            for name, process in (("etcd", self.etcd), ("kube-apiserver", self.apiserver)):
                if process is None or process.poll() is not None:
                    raise ControlPlaneError(f"{name} ended while starting:\n{self._log(name)}")
            ready, seen = self._ready()
            if ready:
                return
            time.sleep(0.05)
        raise ControlPlaneError(
            f"kube-apiserver: not ready within {_STARTS_WITHIN:.0f} s; seen: {seen}\n{self._log('kube-apiserver')}"
        )

    def _ready(self) -> tuple[bool, str]:
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with self._opener().open(request, timeout=5) as answer:
                return True, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return False, error.read().decode(errors="replace")
        except OSError as error:  # no certificate yet, no listener yet
            return False, str(error)

    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context(cafile=str(self.ca))
        return urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log_file(name).open("ab") as log:
            return subprocess.Popen(
                [BIN / name, *arguments],
                cwd=self.folder,
                env={**os.environ, "GOGC": "400"},  # they live for minutes, and there is memory
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the test; it stops us in order
                preexec_fn=functools.partial(end_with_parent, signal.SIGKILL),  # noqa: PLW1509 (it calls prctl, no more)
            )

    def _log_file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _log(self, name: str) -> str:
        lines = self._log_file(name).read_text(errors="replace").splitlines()
        return "\n".join(lines[-20:])

    def _write_credentials(self) -> None:
        key = self.folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        self.write_kubeconfig(self.kubeconfig, self.token)
        # ServiceAccounts only: the tests' own doings are of no interest, and many.
        rules = [
            {"level": "None", "users": ["admin", "system:apiserver", "system:anonymous"]},
            {"level": "Metadata", "omitStages": ["RequestReceived"]},
        ]
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}
        (self.folder / "audit.json").write_text(json.dumps(policy))

    def write_kubeconfig(self, file: Path, token: str, *, port: int | None = None) -> Path:
        """A kubeconfig for whoever has that token. port: of something that stands in front of the server."""
        server = f"https://127.0.0.1:{port or self.port}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "current-context": "it",
        }
        file.write_text(json.dumps(config))
        return file

    def _start_all(self) -> None:
        self._write_credentials()
        self._start_etcd()
        self._start_apiserver()
        self.kubectl("create", "serviceaccount", "default", "--namespace", "default")

    def _stop_all(self) -> None:
        # In this order: an API server whose etcd is gone doesn't end when it is asked to.
        _stop(self.controller_manager)
        _stop(self.apiserver)
        _stop(self.etcd)


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """A control plane of one's own, for as long as the block lasts."""
    _require("etcd", "kube-apiserver", "kubectl")
    _remove_leftovers()
    with _folder() as folder:
        for attempt in range(1, _ATTEMPTS + 1):
            cp = ControlPlane(folder / str(attempt), etcd_port=free_port(), port=free_port())
            cp.folder.mkdir()
            try:
                try:
                    cp._start_all()
                except ControlPlaneError as error:
                    if "address already in use" in str(error) and attempt < _ATTEMPTS:
                        continue
                    raise
                yield cp
                return
            finally:
                cp._stop_all()


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that is locked while we live, so that others can tell what a killed test left behind."""
    folder = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    try:
        with _lock_file(folder).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = folder.rename(folder.with_name(folder.name.removeprefix(".")))  # others look now that it is locked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require(*programs: str) -> None:
    for program in programs:
        if not (BIN / program).exists():
            raise ControlPlaneError(f"no {program} in {BIN}; this builds it: {REMEDY}")


def _remove_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _lock_file(folder).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _lock_file(folder: Path) -> Path:
    return folder / "lock"


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    begun = time.monotonic()
    with control_plane() as cp:
        print(f"export KUBECONFIG={cp.kubeconfig} PATH={BIN}:$PATH   # up in {time.monotonic() - begun:.1f} s")
        print("Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
