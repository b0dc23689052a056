"""A copy of the training's tensors in CPU memory, taken while the training waits, so it has to be quick."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class Snapshot:
    """Row-major copies, into memory that is kept for the next time: fresh memory costs more than the copying."""

    def __init__(self) -> None:
        self._memory: dict[str, torch.Tensor] = {}

    def take(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Copy the tensors as they are now. What is returned is valid until the next call.

        Copies from a GPU go side by side into page-locked memory, and are complete when this returns.
        """
        self._memory = {name: self._room(name, tensor) for name, tensor in tensors.items()}
        devices = set()
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._memory[name].copy_(tensor, non_blocking=tensor.is_cuda)
                if tensor.is_cuda:
                    devices.add(tensor.device)
        for device in devices:
            torch.cuda.synchronize(device)
        return self._memory

    def _room(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        room = self._memory.get(name)
        if room is not None and room.shape == tensor.shape and room.dtype == tensor.dtype:
            return room
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
