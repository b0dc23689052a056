"""Sockets that the operator answers on: every address means both families."""

from __future__ import annotations

import socket

import pytest

from edgecloud_operator.kube.sockets import EVERY, bind
from tests.ports import free_port


def reached(listener: socket.socket, *addresses: str) -> list[str]:
    """Those of these addresses at which somebody who listens on that socket is reached."""
    listener.listen()
    found = []
    for address in addresses:
        try:
            socket.create_connection((address, listener.getsockname()[1]), timeout=10).close()
            found.append(address)
        except OSError:
            continue
    return found


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_every_address_is_one_of_ipv4_and_of_ipv6() -> None:
    with bind(EVERY, 0) as listener:
        assert reached(listener, "127.0.0.1", "::1") == ["127.0.0.1", "::1"]
    with bind("::1", 0) as listener:
        assert reached(listener, "127.0.0.1", "::1") == ["::1"]


def test_a_kernel_without_ipv6_has_its_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "AF_INET6", 4095)  # which the kernel knows as little as that one's knows IPv6
    with pytest.raises(OSError, match="not supported"):
        socket.socket(socket.AF_INET6)
    with bind(EVERY, 0) as listener:
        assert reached(listener, "127.0.0.1") == ["127.0.0.1"]


@pytest.mark.parametrize("host", [EVERY, "127.0.0.1"])
def test_a_port_that_is_taken(host: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on \S+:{port}: Address already in use"):
            bind(host, port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:8443: .* assign"):
        bind("192.0.2.1", 8443)
