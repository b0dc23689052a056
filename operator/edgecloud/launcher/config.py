"""The launcher's configuration: environment variables, checked before anything else happens."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from edgecloud.launcher import machine

TERMINATION_FILE = Path("/dev/termination-log")
_MIN_LOG_BYTES = 4096

HELP = """\
  EDGECLOUD_COORDINATOR       http://HOST:PORT or https://HOST:PORT of the coordinator
  EDGECLOUD_CA_FILE           certificates to check an https coordinator with; default: those of the system
  EDGECLOUD_TOKEN_FILE        file with this worker's token; read again for each request, for tokens are renewed
  EDGECLOUD_NAMESPACE         namespace of the job
  EDGECLOUD_JOB               name of the job
  EDGECLOUD_JOB_UID           uid of the job
  EDGECLOUD_WORKER_INDEX      which of the job's workers this is: 0, 1, ...
  EDGECLOUD_POD_UID           uid of this Pod
  EDGECLOUD_ADDRESS           address at which the other workers reach this one: the Pod's
  EDGECLOUD_NODE              node this Pod is on; optional
  EDGECLOUD_CHECKPOINT_DIR    where the job's checkpoints are; handed on to the processes
  EDGECLOUD_RESULTS_DIR       where the job's results belong; handed on to the processes
  EDGECLOUD_SCRATCH           folder for small files of the launcher; default: a new temporary one
  EDGECLOUD_LOG_FILE          file for the output; default: standard output and (for the launcher's own lines) error
  EDGECLOUD_LOG_MAX_BYTES     when that file is moved to FILE.1 and begun anew; default 10485760
  EDGECLOUD_TERMINATION_FILE  file for the last message (JSON); default /dev/termination-log, if that can be written
  EDGECLOUD_MAX_RESTARTS      shown to the processes as TORCHELASTIC_MAX_RESTARTS; default 0
  EDGECLOUD_ORPHAN_SECONDS    how long to wait for a silent coordinator after the processes have ended; default 600
  EDGECLOUD_STOP_GRACE_SECONDS  how long the processes may take to leave when this launcher is asked to end and the
                              coordinator does not say; default 30
  EDGECLOUD_STANDBY           processes to keep ready for the next round, if COMMAND knows --standby; default 0
  EDGECLOUD_PARENT_DEATH      1: when the parent dies, end everything at once, also what made itself a daemon
  EDGECLOUD_PARENT_PID        with it: the parent's process id, so that a parent that is gone already is noticed
"""


class ConfigError(Exception):
    """One line that names the variable and says what is wrong with it."""


@dataclass(frozen=True)
class Endpoint:
    """Where polls go to."""

    host: str
    port: int
    tls: bool
    path: str


@dataclass(frozen=True)
class Config:
    """What the environment says."""

    coordinator: Endpoint
    ca_file: Path | None
    token_file: Path
    job_uid: str
    pod_uid: str
    address: str
    node: str
    scratch: Path | None
    log_file: Path | None
    log_max_bytes: int
    termination_file: Path | None
    max_restarts: int
    orphan_seconds: float
    stop_grace_seconds: float
    parent_death: bool
    parent_pid: int | None
    standby: int


def read(environment: Mapping[str, str]) -> Config:
    """Check the environment, and the files and the address that it names.

    Raises:
        ConfigError: at the first variable that is missing or wrong.
    """
    reader = _Reader(environment)
    ca_file = reader.file("EDGECLOUD_CA_FILE")
    address = reader.matching("EDGECLOUD_ADDRESS", r"[A-Za-z0-9.:%_-]{1,253}")
    config = Config(
        coordinator=_endpoint(reader),
        ca_file=ca_file,
        token_file=reader.file("EDGECLOUD_TOKEN_FILE", required=True) or Path(),
        job_uid=reader.matching("EDGECLOUD_JOB_UID", r"[A-Za-z0-9-]{1,64}"),
        pod_uid=reader.matching("EDGECLOUD_POD_UID", r"[A-Za-z0-9-]{1,64}"),
        address=address,
        node=environment.get("EDGECLOUD_NODE", "")[:253],
        scratch=reader.folder("EDGECLOUD_SCRATCH"),
        log_file=Path(environment["EDGECLOUD_LOG_FILE"]) if environment.get("EDGECLOUD_LOG_FILE") else None,
        log_max_bytes=reader.whole("EDGECLOUD_LOG_MAX_BYTES", 10 * 1024 * 1024, _MIN_LOG_BYTES, 2**40),
        termination_file=_termination_file(environment),
        max_restarts=reader.whole("EDGECLOUD_MAX_RESTARTS", 0, 0, 10**6),
        orphan_seconds=reader.seconds("EDGECLOUD_ORPHAN_SECONDS", 600.0),
        stop_grace_seconds=reader.seconds("EDGECLOUD_STOP_GRACE_SECONDS", 30.0),
        parent_death=environment.get("EDGECLOUD_PARENT_DEATH", "") not in ("", "0"),
        standby=reader.whole("EDGECLOUD_STANDBY", 0, 0, 64),
        parent_pid=reader.whole("EDGECLOUD_PARENT_PID", 0, 0, 2**31) or None,
    )
    try:
        machine.free_port(address)
    except OSError as error:
        raise ConfigError(f"EDGECLOUD_ADDRESS: {address} is not an address of this machine: {error.strerror}") from None
    return config


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str) -> str:
        value = self._environment.get(name, "")
        if not value:
            raise ConfigError(f"{name} is not set")
        return value

    def matching(self, name: str, pattern: str) -> str:
        value = self.text(name)
        if re.fullmatch(pattern, value) is None:
            raise ConfigError(f"{name}: {value[:80]!r} does not match {pattern}")
        return value

    def whole(self, name: str, default: int | None, low: int, high: int) -> int:
        value = self.text(name) if default is None else self._environment.get(name) or str(default)
        if re.fullmatch(r"[0-9]{1,15}", value) is None or not low <= int(value) <= high:
            raise ConfigError(f"{name}: {value[:80]!r} is no whole number from {low} to {high}")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        value = self._environment.get(name) or str(default)
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) is None:
            raise ConfigError(f"{name}: {value[:80]!r} is no number of seconds")
        return float(value)

    def file(self, name: str, *, required: bool = False) -> Path | None:
        if not required and not self._environment.get(name):
            return None
        path = Path(self.text(name))
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{name}: cannot read {path}: {error.strerror}") from None
        return path

    def folder(self, name: str) -> Path | None:
        if not self._environment.get(name):
            return None
        path = Path(self._environment[name])
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{name}: cannot make the folder {path}: {error.strerror}") from None
        if not os.access(str(path), os.W_OK | os.X_OK):
            raise ConfigError(f"{name}: the folder {path} cannot be written")
        return path


def _endpoint(reader: _Reader) -> Endpoint:
    text = reader.text("EDGECLOUD_COORDINATOR")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"EDGECLOUD_COORDINATOR: {text[:80]!r} is no address like https://HOST:PORT")
    tls = parts.scheme == "https"
    if tls:
        try:
            tls_context(reader.file("EDGECLOUD_CA_FILE"))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"EDGECLOUD_CA_FILE: it holds no certificates: {error}") from None
    path = (
        f"{parts.path.rstrip('/')}/v1/namespaces/{quote(reader.text('EDGECLOUD_NAMESPACE'), safe='')}"
        f"/trainingjobs/{quote(reader.text('EDGECLOUD_JOB'), safe='')}"
        f"/workers/{reader.whole('EDGECLOUD_WORKER_INDEX', None, 0, 10**6)}/poll"
    )
    return Endpoint(host=parts.hostname, port=port or (443 if tls else 80), tls=tls, path=path)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """For one connection: the certificates may have been renewed since the last."""
    return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))


def _termination_file(environment: Mapping[str, str]) -> Path | None:
    if environment.get("EDGECLOUD_TERMINATION_FILE"):
        return Path(environment["EDGECLOUD_TERMINATION_FILE"])
    return TERMINATION_FILE if os.access(str(TERMINATION_FILE), os.W_OK) else None
