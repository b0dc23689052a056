"""What all ranks are to hold alike and no step's exchange brings together: the first weights, other buffers, and
parameters that a forward moves by itself.

Ranks tell each other a digest; only where these differ do tensors travel, and then they are rank 0's.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edgecloud_trainer import group
from edgecloud_trainer.devices import Device
from edgecloud_trainer.settings import Settings, SettingsError
from edgecloud_trainer.steps import Stepper

log = logging.getLogger(__name__)

_NAMED = 5
"""Values that an error names."""


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


class Unexchanged:
    """What a model's forward moves and no exchange brings together, so that each rank has its own: buffers that are not
    its batch norms' running statistics (an InstanceNorm's, a spectral norm's, a codebook, a mask), and frozen
    parameters, which some models keep a codebook in.

    Any such buffer that checkpoints hold counts. A frozen parameter is a backbone's as a rule, and large: it counts if
    the first step has moved it. Where there are none of both, nothing here costs anything.
    """

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        parameters = {name for name, _ in stepper.model.named_parameters(remove_duplicate=False)}
        own = [
            name
            for name, value in stepper.model.state_dict().items()
            if name not in stepper.exchanged and isinstance(value, Tensor)
        ]
        self._names = [name for name in own if name not in parameters]
        self._frozen = [name for name in own if name in parameters]
        # In no checkpoint, and so not to be brought together; but a step that moves them can't be exact.
        self._passing = [
            name
            for name, _ in stepper.model.named_buffers(remove_duplicate=False)
            if name not in stepper.exchanged and name not in own
        ]
        self._before: dict[str, str] = {}
        self._refused: Sequence[str] = ()

    def bring_together(self) -> None:
        """Have all ranks hold rank 0's, which are those that its checkpoints hold. All ranks call it.

        With `sync: local` after each exchange: a training that goes on from a checkpoint is to be the undisturbed one.
        """
        if not self._names:
            return
        stepper = self._stepper
        held = {f"model.{name}": value for name, value in self._own(self._names).items()}
        if stepper.ema is not None:
            held |= {f"ema.{name}": stepper.ema.state[name] for name in self._names}
        found = from_rank_0(held, stepper.settings, stepper.device)
        for name, value in (found or {}).items():
            held[name].copy_(value)

    def remember(self) -> None:
        """Before the first step."""
        settings = self._stepper.settings
        if settings.trainer.deterministic:
            # With `sync: local` all that a checkpoint holds is brought together after each exchange.
            self._refused = self._passing if settings.local else self._names + self._frozen + self._passing
        joining = self._frozen if settings.world_size > 1 else []
        self._before = self._digests([*self._refused, *joining])

    def look(self) -> None:
        """After the first step: what has it moved? All ranks call it.

        Raises:
            SettingsError: something, and the result was asked to be exact; on every rank alike.
        """
        before, self._before = self._before, {}
        if not before:
            return
        now = self._digests(list(before))
        mine = [name for name in before if before[name] != now.get(name)]
        moved = set().union(*group.gather_objects(mine, self._stepper.settings))
        if refused := sorted(moved.intersection(self._refused)):
            raise SettingsError(self._refusal(refused))
        self._names += [name for name in self._frozen if name in moved]

    def _refusal(self, moved: list[str]) -> str:
        settings = self._stepper.settings
        named = ", ".join(moved[:_NAMED]) + (f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else "")
        if settings.local:
            why = (
                f"buffers {named}, which no checkpoint holds: register them with persistent=True, or leave"
                " deterministic out"
            )
        else:
            why = (
                f"buffers or frozen parameters {named}, and of these only BatchNorm's statistics are the same for any"
                " number of workers: take BatchNorm or a layer without them, or leave deterministic out"
            )
        name = settings.trainer.model
        return f"trainer.deterministic: true doesn't go with trainer.model {name}: a step changes its {why}"

    def _own(self, names: Sequence[str]) -> dict[str, Tensor]:
        model = self._stepper.model
        state = {**dict(model.named_buffers(remove_duplicate=False)), **model.state_dict()}
        return {name: state[name] for name in names if name in state}  # a passing one may be gone

    def _digests(self, names: Sequence[str]) -> dict[str, str]:
        # Values, not versions: a codebook is moved by way of its `.data` as a rule, which counts none.
        return {name: digest({name: value}) for name, value in self._own(names).items()}
