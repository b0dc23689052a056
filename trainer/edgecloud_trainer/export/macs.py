"""How much work a network is."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def macs(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiplications, each with its addition, in the convolutions and matrix products for one image."""
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros((1, *shape), dtype=torch.uint8))
    operations: int = counter.get_total_flops()
    return operations // 2
