"""What a measurement was made on: the processor and its instructions, and what this process may use of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

from edgecloud.edge.report import Machine
from edgecloud.launcher import cgroups

CPUINFO: Final = Path("/proc/cpuinfo")
DEVICE_TREE: Final = Path("/proc/device-tree/model")

_INSTRUCTIONS: Final = (
    # x86: vectors, and what multiplies 8 and 16 bits
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    # Arm, likewise
    "neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
_ARM_PARTS: Final = {
    ("0x41", "0xd03"): "Arm Cortex-A53",
    ("0x41", "0xd04"): "Arm Cortex-A35",
    ("0x41", "0xd05"): "Arm Cortex-A55",
    ("0x41", "0xd07"): "Arm Cortex-A57",
    ("0x41", "0xd08"): "Arm Cortex-A72",
    ("0x41", "0xd09"): "Arm Cortex-A73",
    ("0x41", "0xd0a"): "Arm Cortex-A75",
    ("0x41", "0xd0b"): "Arm Cortex-A76",
    ("0x41", "0xd0c"): "Arm Neoverse-N1",
    ("0x41", "0xd40"): "Arm Neoverse-V1",
    ("0x41", "0xd42"): "Arm Cortex-A78AE",
    ("0x41", "0xd49"): "Arm Neoverse-N2",
    ("0x41", "0xd4f"): "Arm Neoverse-V2",
    ("0x4e", "0x004"): "Nvidia Carmel",
    ("0xc0", "0xac3"): "Ampere-1",
}
"""Names for what Arm processors say of themselves in numbers (implementer and part), as `lscpu` has them."""
_LONGEST: Final = 256


def describe(node: str = "") -> Machine:
    """This machine, as far as this process may use it.

    Args:
        node: its name in the cluster.
    """
    text, board = _text(CPUINFO), _text(DEVICE_TREE)
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cpus = os.cpu_count() or 1
    return Machine(
        node=node[:253],
        cpu=processor(text, board) or platform.processor()[:_LONGEST],
        architecture=platform.machine()[:64],
        instructions=instructions(text),
        cpus=float(cpus),
        cpu_limit=cgroups.cpu_limit(),
        memory_limit=cgroups.memory_limit(),
        runtime=_runtime(),
    )


def processor(cpuinfo: str, board: str = "") -> str:
    """The processor's name.

    Args:
        cpuinfo: text of /proc/cpuinfo.
        board: name of the board from the device tree, as small Arm machines have it.
    """
    names = _values(cpuinfo, "model name")
    if not names:
        pairs = zip(_values(cpuinfo, "CPU implementer"), _values(cpuinfo, "CPU part"), strict=False)
        # A machine may have fast and slow cores.
        names = [_ARM_PARTS.get(pair, f"Arm {pair[0]} {pair[1]}") for pair in pairs]
    board = board.strip("\0 \n") or next(iter(_values(cpuinfo, "Model")), "")
    words = " + ".join(dict.fromkeys(names))
    return (f"{board} ({words})" if board and words else board or words)[:_LONGEST]


def instructions(cpuinfo: str) -> tuple[str, ...]:
    """The instruction sets that matter to a network, of those that every core has."""
    lines = _values(cpuinfo, "flags") or _values(cpuinfo, "Features")
    if not lines:
        return ()
    common = set(lines[0].split()).intersection(*(line.split() for line in lines[1:]))
    return tuple(name for name in _INSTRUCTIONS if name in common)


def _values(cpuinfo: str, key: str) -> list[str]:
    """What stands after a key, for each core."""
    return [value.strip() for name, value in _pairs(cpuinfo.splitlines()) if name.strip() == key]


def _pairs(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(":")
        yield name, value


def _runtime() -> str:
    try:
        return f"onnxruntime {metadata.version('onnxruntime')}"
    except metadata.PackageNotFoundError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
