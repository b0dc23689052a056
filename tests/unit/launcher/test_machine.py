"""CPUs out of cgroup files as they are found on machines; interfaces and ports of this one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgecloud.launcher import machine


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("", {}, 8.0),
        # v2 in a container: its own cgroup is the root
        ("0::/", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/", {"cpu.max": "max 100000"}, 8.0),
        # v2 on a machine: the least of the cgroup's and of those above it
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "300000 100000"}, 3.0),
        ("0::/a/b", {"cpu.max": "1600000 100000"}, 8.0),
        # v1 in a container: the path is the machine's, and is not there
        (
            "4:cpu,cpuacct:/kubepods/x\n2:memory:/kubepods/x",
            {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
            1.5,
        ),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2.0),
        ("4:cpu,cpuacct:/", {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 8.0),
        # both at once
        ("1:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ("0::/../..", {"cpu.max": "100000 100000"}, 1.0),
        ("nonsense", {"cpu.max": "100000 100000"}, 8.0),
        ("0::/", {"cpu.max": "100000 0"}, 8.0),
    ],
)
def test_usable_cpus(tmp_path: Path, own: str, files: dict[str, str], expected: float) -> None:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert machine.usable_cpus(root=tmp_path / "cgroup", own=tmp_path / "own", affinity=8) == expected


def test_usable_cpus_here() -> None:
    assert 0 < machine.usable_cpus() <= 4096


@pytest.mark.parametrize(
    ("address", "expected"), [("127.0.0.1", "lo"), ("127.0.0.9", "lo"), ("192.0.2.1", None), ("a-name", None)]
)
def test_interface_of(address: str, expected: str | None) -> None:
    assert machine.interface_of(address) == expected


def test_a_free_port_can_be_taken() -> None:
    port = machine.free_port("127.0.0.1")
    assert not machine.port_taken("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert machine.port_taken("127.0.0.1", port)
    with socket.create_server(("0.0.0.0", port)):
        assert machine.port_taken("127.0.0.1", port)


def test_closed_connections_do_not_take_a_port() -> None:
    """The store of the last round leaves its connections in TIME_WAIT."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    assert not machine.port_taken("127.0.0.1", port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(OSError, match="assign"):
        machine.free_port("192.0.2.1")
