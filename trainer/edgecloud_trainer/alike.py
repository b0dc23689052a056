"""What all ranks are to hold alike and no step's exchange brings together: the first weights, and other buffers.

Ranks tell each other a digest; only where these differ do tensors travel, and then they are rank 0's.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from edgecloud_trainer import group
from edgecloud_trainer.devices import Device
from edgecloud_trainer.settings import Settings, SettingsError
from edgecloud_trainer.steps import Stepper

log = logging.getLogger(__name__)

_NAMED = 5
"""Buffers that an error names."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, types, shapes and values; equal values of other bits are others (0.0 and -0.0)."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def from_rank_0(tensors: Mapping[str, Tensor], settings: Settings, device: Device) -> dict[str, Tensor] | None:
    """Rank 0's tensors, on the CPU; None if all ranks hold the same, to the last bit. All ranks call it.

    tensors: this rank's; their names, types and shapes are those of the other ranks'.
    """
    if settings.world_size == 1 or len(set(group.gather_objects(digest(tensors), settings))) == 1:
        return None
    return group.broadcast_tensors(tensors if settings.rank == 0 else None, settings, device)


def agree_on_ordinary(stepper: Stepper) -> None:
    """Before the first step, also of a training that goes on: all ranks go by rank 0's ordinary values.

    By its model as it has been made, not by what a checkpoint has made of it since: buffers may have become large, or
    finite, and a training that goes on is to be the undisturbed one. All ranks call it.
    """
    stepper.use_ordinary(group.broadcast_object(stepper.ordinary, stepper.settings))


def begin_alike(stepper: Stepper) -> None:
    """Before the first step of a training: each rank has made its own model, and a user's may not draw its random
    numbers from torch's generator, or its machine computes them differently. Then all take rank 0's weights."""
    found = from_rank_0(stepper.model.state_dict(), stepper.settings, stepper.device)
    if found is None:
        return
    log.warning("trainer.model %s begins differently on each rank: all take rank 0's", stepper.settings.trainer.model)
    stepper.model.load_state_dict(found)
    if stepper.outer is not None:
        stepper.outer.take_up(stepper.outer.state())
    if stepper.ema is not None:
        stepper.ema.take_up(found)


class OtherBuffers:
    """The persistent buffers of a model that are not its norms' running statistics: of an InstanceNorm or a spectral
    norm, a codebook, a mask. Each rank moves its own; where there are none, nothing here costs anything."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._names = [
            name
            for name, value in stepper.model.state_dict().items()
            if name not in stepper.moved and isinstance(value, Tensor)
        ]
        self._before: dict[str, str] | None = None

    def bring_together(self) -> None:
        """Have all ranks hold rank 0's, which are those that its checkpoints hold. All ranks call it."""
        if not self._names:
            return
        stepper = self._stepper
        held = {f"model.{name}": value for name, value in self._own().items()}
        if stepper.ema is not None:
            held |= {f"ema.{name}": stepper.ema.state[name] for name in self._names}
        found = from_rank_0(held, stepper.settings, stepper.device)
        for name, value in (found or {}).items():
            held[name].copy_(value)

    def remember(self) -> None:
        """Before the first step."""
        settings = self._stepper.settings
        if self._names and settings.trainer.deterministic and not settings.local:
            self._before = self._digests()

    def refuse_moved(self) -> None:
        """After the first step. All ranks call it.

        Raises:
            SettingsError: the result was asked to be exact, and the step has moved some; on every rank alike.
        """
        if self._before is None:
            return
        before, now, self._before = self._before, self._digests(), None
        mine = [name for name in self._names if before[name] != now[name]]
        moved = sorted(set().union(*group.gather_objects(mine, self._stepper.settings)))
        if moved:
            named = ", ".join(moved[:_NAMED]) + (f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else "")
            raise SettingsError(
                f"trainer.deterministic: true doesn't go with trainer.model {self._stepper.settings.trainer.model}: a"
                f" step changes its buffers {named}, and of all buffers only BatchNorm's statistics are the same for"
                " any number of workers: take BatchNorm or a layer without buffers, or leave deterministic out"
            )

    def _own(self) -> dict[str, Tensor]:
        state = self._stepper.model.state_dict()
        return {name: state[name] for name in self._names}

    def _digests(self) -> dict[str, str]:
        return {name: digest({name: value}) for name, value in self._own().items()}
