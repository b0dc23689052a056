"""Ports for servers of the tests that are started later, or again."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_USUAL_END = 32_768


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody has, from below those that the kernel gives to outgoing connections.

    One of those may be somebody's in the moment between this look and the server's start.
    """
    end = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else _USUAL_END
    while True:
        port = random.SystemRandom().randrange(_LOWEST, max(end, _LOWEST + 10_000))
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        return port
