"""What this machine (or container) has: CPUs that may be used, the interface of an address, free ports."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from pathlib import Path

from edgecloud.launcher import cgroups

_SIOCGIFADDR = 0x8915


def usable_cpus(*, root: Path = cgroups.ROOT, own: Path = cgroups.OWN, affinity: int | None = None) -> float:
    """CPUs that this process may use: its affinity, or the cgroup's quota (v1 or v2) if that is less."""
    if affinity is None:
        try:
            affinity = len(os.sched_getaffinity(0))
        except AttributeError:  # not on macOS
            affinity = os.cpu_count() or 1
    quota = cgroups.cpu_limit(root=root, own=own)
    return float(affinity) if quota is None else min(float(affinity), quota)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def interface_of(address: str) -> str | None:
    """The name of the one interface that has this address; None if that cannot be told."""
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError:
        return None
    if wanted.version == 6:
        return _interface_of_v6(wanted.packed.hex())
    import fcntl  # not above: who counts CPUs alone, as `predict`, may be on a system without it

    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        names = [name for _, name in socket.if_nameindex()]
        for name in names:
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name[:15].encode()))
                if answer[20:24] == wanted.packed:
                    return name
        if wanted.is_loopback and "lo" in names:
            return "lo"  # all of 127.0.0.0/8 is, though it names only its first
    return None


def _interface_of_v6(packed: str) -> str | None:
    for line in _text(Path("/proc/net/if_inet6")).splitlines():
        fields = line.split()
        if fields[0] == packed:
            return fields[-1]
    return None


def free_port(address: str) -> int:
    """A TCP port that was free on this address a moment ago.

    Raises:
        OSError: the address is not of this machine.
    """
    with _bound(address, 0) as holder:
        port: int = holder.getsockname()[1]
    return port


def port_taken(address: str, port: int) -> bool:
    """Whether somebody listens on this port now. (What is left of closed connections does not count.)"""
    try:
        _bound(address, port).close()
    except OSError as error:
        return error.errno in (errno.EADDRINUSE, errno.EACCES)
    return False


def _bound(address: str, port: int) -> socket.socket:
    """A socket that has the port, but takes no connection: the other workers may already be trying to make theirs."""
    family, kind, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    holder = socket.socket(family, kind)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(where)
    except OSError:
        holder.close()
        raise
    return holder
