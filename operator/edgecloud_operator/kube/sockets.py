"""Sockets that the operator answers on, for IPv4 and IPv6."""

from __future__ import annotations

import errno
import socket
from typing import Final

EVERY: Final = ""
"""The host that stands for every address of the machine."""
_NOT_OURS: Final = (errno.EADDRINUSE, errno.EACCES)


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound, and does not listen yet: a port that is taken shows at the start, not when we lead.

    On every address it takes IPv6 and IPv4, whose peers then are ::ffff:10.0.0.5 and the like; on a machine
    without IPv6, IPv4 alone.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """
    if host != EVERY:
        return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)
    try:
        return _bound(socket.AF_INET6, "::", port, dual=True)
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise
    # A kernel without IPv6 has no such sockets, or nothing that they could be bound to.
    return _bound(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 - as it was asked for


def _bound(family: int, host: str, port: int, *, dual: bool = False) -> socket.socket:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if dual:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((host, port))
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {place}: {error.strerror}") from None
    return listener
