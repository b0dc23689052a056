"""Runs into its own memory limit inside torch: "DefaultCPUAllocator: can't allocate memory", exit code 1.

The limit lies 512 MiB above what the process has mapped once torch is loaded (many GiB with the CUDA build).
"""

import resource
from pathlib import Path

import torch

MIB = 2**20
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + 512 * MIB, mapped + 512 * MIB))

kept = []
while True:
    kept.append(torch.ones(16 * MIB, dtype=torch.uint8))
