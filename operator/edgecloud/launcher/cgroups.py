"""What the control groups of this process grant it: of version 1 and 2, its own and those above it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def cpu_limit(*, root: Path = ROOT, own: Path = OWN) -> float | None:
    """CPUs that the tightest quota grants; None without one."""
    quotas = []
    for version, folder in _folders(root, own, "cpu"):
        if version == 2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        quotas.append(_quotient(quota, period))
    return min((quota for quota in quotas if quota), default=None)


def memory_limit(*, root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes that the tightest limit grants; None without one."""
    limits = []
    for version, folder in _folders(root, own, "memory"):
        text = _text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        limits.append(int(text) if text.isdecimal() else 0)  # "max", or no such file
    # Version 1 writes the largest number of pages there is where there is no limit.
    return min((limit for limit in limits if 0 < limit <= sys.maxsize - 2**20), default=None)


def _folders(root: Path, own: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of each control group that has a say, the process's own first."""
    for line in _text(own).splitlines():
        _, found, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if found and controllers == "":
            yield from ((2, folder) for folder in _upward(root, path))
        elif controller in controllers.split(","):
            for top in dict.fromkeys((root / controller, root / controllers)):
                yield from ((1, folder) for folder in _upward(top, path))


def _upward(root: Path, path: str) -> list[Path]:
    """The folder of a cgroup and all above it. In a container there may be no such path: its own is the root there."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _quotient(quota: str, period: str) -> float:
    try:
        return max(0.0, int(quota) / int(period))
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return 0.0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
