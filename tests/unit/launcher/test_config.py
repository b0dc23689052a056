"""One clear line for everything that can be wrong with the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.launcher import config
from edgecloud.launcher.config import ConfigError, Endpoint


@pytest.fixture
def good(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text("t")
    return {
        "EDGECLOUD_COORDINATOR": "http://127.0.0.1:8080",
        "EDGECLOUD_TOKEN_FILE": str(tmp_path / "token"),
        "EDGECLOUD_NAMESPACE": "default",
        "EDGECLOUD_JOB": "digits",
        "EDGECLOUD_JOB_UID": "j-1",
        "EDGECLOUD_WORKER_INDEX": "3",
        "EDGECLOUD_POD_UID": "p-1",
        "EDGECLOUD_ADDRESS": "127.0.0.1",
    }


def test_defaults(good: dict[str, str]) -> None:
    read = config.read(good)
    path = "/v1/namespaces/default/trainingjobs/digits/workers/3/poll"
    assert read.coordinator == Endpoint("127.0.0.1", 8080, tls=False, path=path)
    assert (read.log_file, read.scratch, read.ca_file, read.parent_pid) == (None, None, None, None)
    assert (read.log_max_bytes, read.max_restarts, read.orphan_seconds) == (10 * 1024 * 1024, 0, 600.0)
    assert read.stop_grace_seconds == 30.0
    assert read.parent_death is False


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "prefix"),
    [
        ("https://coordinator.edgecloud.svc:8443", "coordinator.edgecloud.svc", 8443, True, ""),
        ("https://coordinator", "coordinator", 443, True, ""),
        ("http://[::1]:80/prefix/", "::1", 80, False, "/prefix"),
    ],
)
def test_endpoints(good: dict[str, str], url: str, host: str, port: int, tls: bool, prefix: str) -> None:
    endpoint = config.read({**good, "EDGECLOUD_COORDINATOR": url}).coordinator
    assert (endpoint.host, endpoint.port, endpoint.tls) == (host, port, tls)
    assert endpoint.path.startswith(f"{prefix}/v1/namespaces/")


@pytest.mark.parametrize(
    "name",
    [
        "EDGECLOUD_COORDINATOR",
        "EDGECLOUD_TOKEN_FILE",
        "EDGECLOUD_NAMESPACE",
        "EDGECLOUD_JOB",
        "EDGECLOUD_JOB_UID",
        "EDGECLOUD_WORKER_INDEX",
        "EDGECLOUD_POD_UID",
        "EDGECLOUD_ADDRESS",
    ],
)
def test_what_is_missing_is_named(good: dict[str, str], name: str) -> None:
    del good[name]
    with pytest.raises(ConfigError, match=rf"^{name} is not set\Z"):
        config.read(good)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("EDGECLOUD_COORDINATOR", "coordinator:8080", "is no address like"),
        ("EDGECLOUD_COORDINATOR", "ftp://coordinator", "is no address like"),
        ("EDGECLOUD_COORDINATOR", "http://host:99999999", "is no address like"),
        ("EDGECLOUD_TOKEN_FILE", "/no/such/file", "No such file"),
        ("EDGECLOUD_CA_FILE", "/no/such/file", "No such file"),
        ("EDGECLOUD_WORKER_INDEX", "-1", "whole number"),
        ("EDGECLOUD_WORKER_INDEX", "one", "whole number"),
        ("EDGECLOUD_JOB_UID", "a b", "does not match"),
        ("EDGECLOUD_ADDRESS", "192.0.2.1", "not an address of this machine"),
        ("EDGECLOUD_ADDRESS", "a b", "does not match"),
        ("EDGECLOUD_LOG_MAX_BYTES", "10", "whole number from 4096"),
        ("EDGECLOUD_ORPHAN_SECONDS", "soon", "no number of seconds"),
        ("EDGECLOUD_SCRATCH", "/proc/no/such", "cannot make the folder"),
    ],
)
def test_what_is_wrong_is_named(good: dict[str, str], name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        config.read({**good, name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)


def test_a_file_without_certificates(good: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    wrong = {"EDGECLOUD_COORDINATOR": "https://coordinator", "EDGECLOUD_CA_FILE": str(tmp_path / "ca.pem")}
    with pytest.raises(ConfigError, match=r"^EDGECLOUD_CA_FILE: it holds no certificates"):
        config.read({**good, **wrong})
