"""The operator as a process of its own."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecloud.launcher.linux import end_with_parent
from tests.cluster.control_plane import ControlPlane
from tests.ports import free_port

STARTS_WITHIN = 90.0
SYSTEM = "edgecloud-system"
TLS_SECRET = f"{SYSTEM}/edgecloud-coordinator-ca"
LEASE = f"{SYSTEM}/edgecloud"


def operator_token(cp: ControlPlane) -> str:
    """A token of the operator's ServiceAccount."""
    return cp.kubectl("create", "token", "edgecloud", "--namespace", SYSTEM, "--duration=2h").strip()


class OperatorProcess:
    """`python -m edgecloud_operator`, which can be killed and started again on the same address."""

    program: tuple[str, ...] = ("-m", "edgecloud_operator")

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
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def start(self, *, ready: bool = True) -> None:
        command = [sys.executable, *self.program, f"--listen=127.0.0.1:{self.port}"]
        command += [f"--coordinator-address=https://127.0.0.1:{self.port}", self._tls]
        command.append(f"--liveness-port={self.liveness}")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options],
                env=self._cp.environment(self._kubeconfig),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=functools.partial(end_with_parent, signal.SIGKILL),  # noqa: PLW1509 (it calls prctl, no more)
            )
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while not self._is_ready():
            assert self._process is not None and self._process.poll() is None, f"the operator ended:\n{self.log}"
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
            self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it does nothing, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wait_end(self, seconds: float = 30.0) -> int:
        """Wait until it has ended by itself; its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=seconds)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=30)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

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
        assert self._process is not None
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
