"""The operator as a process of its own.

It is forked from one that has imported it already: what it imports takes a second of processor time, and these tests
start it well over a hundred times.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from edgecloud.launcher.linux import end_with_parent
from tests.cluster.control_plane import ControlPlane
from tests.ports import free_port

STARTS_WITHIN = 90.0
SYSTEM = "edgecloud-system"
TLS_SECRET = f"{SYSTEM}/edgecloud-coordinator-ca"
LEASE = f"{SYSTEM}/edgecloud"
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["edgecloud_operator.__main__", __name__])


def operator_token(cp: ControlPlane) -> str:
    """A token of the operator's ServiceAccount."""
    where = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/edgecloud/token"
    return str(cp.post(where, {"spec": {"expirationSeconds": 7200}})["status"]["token"])


def run_operator(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, stuck_seconds: float | None
) -> None:
    """What `python -m edgecloud_operator` does, in a process that this is all of; its output goes to the log."""
    end_with_parent(signal.SIGKILL)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["edgecloud_operator", *arguments]
    from kubernetes.aio.config import kube_config

    from edgecloud_operator.__main__ import main
    from edgecloud_operator.kube import vitals

    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment[
        "KUBECONFIG"
    ]  # it has read the variable when it was imported
    if stuck_seconds is not None:
        vitals.STUCK_SECONDS = stuck_seconds
    main()


class OperatorProcess:
    """The operator, which can be killed and started again on the same address.

    stuck_seconds: how long its probe waits for work that stands still, if that is not to be 5 minutes.
    """

    stuck_seconds: float | None = None

    def __init__(
        self,
        cp: ControlPlane,
        folder: Path,
        *options: str,
        server_port: int | None = None,
        name: str = "operator",
        tls: str = f"--tls-secret={TLS_SECRET}",
    ) -> None:
        """server_port: of something that stands between it and the API server."""
        self._tls = tls
        self._cp, self._options = cp, options
        self.port, self.liveness = free_port(), free_port()
        self.log_file = folder / f"{name}.log"
        self._kubeconfig = cp.write_kubeconfig(folder / f"{name}.kubeconfig", operator_token(cp), port=server_port)
        self._process: ForkServerProcess | None = None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def start(self, *, ready: bool = True) -> None:
        arguments = [f"--listen=127.0.0.1:{self.port}", f"--coordinator-address=https://127.0.0.1:{self.port}"]
        arguments += [self._tls, f"--liveness-port={self.liveness}", *self._options]
        environment = self._cp.environment(self._kubeconfig)
        told = (arguments, environment, self.log_file, self.stuck_seconds)
        self._process = _PROCESSES.Process(target=run_operator, args=told, daemon=True)
        self._process.start()
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while not self._is_ready():
            assert self.running, f"the operator ended:\n{self.log}"
            assert time.monotonic() < deadline, f"the operator is not ready:\n{self.log}"
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.liveness}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL, wherever it is."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def freeze(self) -> None:
        """SIGSTOP: it does nothing, and its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wait_end(self, seconds: float = 30.0) -> int:
        """Wait until it has ended by itself; its exit code."""
        assert self._process is not None
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still running after {seconds:.0f} s:\n{self.log}"
        return self._process.exitcode

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait_end()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def ask(self, where: str) -> tuple[int, str]:
        """Status and text of what the liveness port answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.liveness}{where}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    @property
    def pid(self) -> int:
        assert self._process is not None and self._process.pid is not None
        return self._process.pid

    def memory_mib(self) -> float:
        """Resident memory."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def operator(cp: ControlPlane, folder: Path, *options: str) -> Iterator[OperatorProcess]:
    """An operator for as long as the block lasts."""
    process = OperatorProcess(cp, folder, *options)
    process.start()
    try:
        yield process
        assert process.running, f"the operator ended:\n{process.log}"
    finally:
        process.kill()
