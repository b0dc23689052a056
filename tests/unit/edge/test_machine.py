"""What /proc and control groups of known machines come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.edge import machine
from edgecloud.launcher import cgroups

XEON = """processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags		: fpu sse sse4_2 avx2 fma avx512f avx512_vnni avx512_bf16 amx_int8 amx_tile hypervisor

processor	: 1
model name	: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags		: fpu sse sse4_2 avx2 fma avx512f avx512_vnni avx512_bf16 amx_int8 amx_tile hypervisor
"""
RASPBERRY = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes asimdhp asimddp
CPU implementer	: 0x41
CPU part	: 0xd0b

Hardware	: BCM2835
Model		: Raspberry Pi 5 Model B Rev 1.0
"""
BIG_LITTLE = """processor	: 0
Features	: fp asimd i8mm
CPU implementer	: 0x41
CPU part	: 0xd05
processor	: 1
Features	: fp asimd i8mm bf16
CPU implementer	: 0x41
CPU part	: 0xfff
"""


@pytest.mark.parametrize(
    ("cpuinfo", "board", "name", "instructions"),
    [
        (
            XEON, "", "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            ("sse4_2", "fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8"),
        ),
        (RASPBERRY, "", "Raspberry Pi 5 Model B Rev 1.0 (Arm Cortex-A76)", ("asimd", "asimdhp", "asimddp")),
        (RASPBERRY, "A board\0", "A board (Arm Cortex-A76)", ("asimd", "asimdhp", "asimddp")),
        (BIG_LITTLE, "", "Arm Cortex-A55 + Arm 0x41 0xfff", ("asimd", "i8mm")),
        ("", "A board", "A board", ()),
        ("nonsense\n:::\n", "", "", ()),
        ("model name: " + "x" * 1000, "", "x" * 256, ()),
    ],
)  # fmt: skip
def test_processors(cpuinfo: str, board: str, name: str, instructions: tuple[str, ...]) -> None:
    assert machine.processor(cpuinfo, board) == name
    assert machine.instructions(cpuinfo) == instructions


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"memory.max": "max"}, None),
        ("0::/", {"memory.max": "536870912"}, 512 * 1024**2),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "1000", "memory.max": "2000"}, 1000),
        ("5:memory:/kubepods/x", {"memory/memory.limit_in_bytes": "4096"}, 4096),
        ("5:memory:/a", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("5:cpu:/a", {"memory/memory.limit_in_bytes": "4096"}, None),
        ("0::/", {"memory.max": "-1"}, None),
        ("", {}, None),
    ],
)
def test_memory_limits(tmp_path: Path, own: str, files: dict[str, str], expected: int | None) -> None:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert cgroups.memory_limit(root=tmp_path / "cgroup", own=tmp_path / "own") == expected


def test_this_machine() -> None:
    found = machine.describe("edge-1")
    assert found.node == "edge-1"
    assert found.cpus >= 1
    assert found.cpu
    assert found.architecture
    assert found.runtime.startswith("onnxruntime 1.")
    assert machine.describe("n" * 999).node == "n" * 253
