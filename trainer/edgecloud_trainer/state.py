"""What a checkpoint holds of a training's course, and going on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from edgecloud_trainer import optimizers
from edgecloud_trainer.checkpoints import flatten, unflatten
from edgecloud_trainer.steps import Stepper


def held(stepper: Stepper) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """The tensors by name (the very same, not copies), the rest as JSON, and which tensors are the model's weights."""
    weights = {f"model.{name}": value for name, value in stepper.model.state_dict().items()}
    tensors = dict(weights)
    rest: dict[str, Any] = {"scaler": stepper.scaler.state_dict()}
    for place, optimizer in enumerate(stepper.optimizers):
        flat, rest[f"optimizer{place}"] = flatten(f"optimizer{place}", optimizer.state_dict())
        tensors |= flat
    if stepper.outer is not None:
        tensors |= {f"outer.{name}": value for name, value in stepper.outer.state().items()}
    if stepper.ema is not None:
        tensors |= {f"ema.{name}": value for name, value in stepper.ema.state.items()}
    return tensors, rest, list(weights)


def take_up(stepper: Stepper, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    """Go on from what `held` gave."""
    stepper.model.load_state_dict(_named(tensors, "model."))
    for place, optimizer in enumerate(stepper.optimizers):
        optimizers.take_up(optimizer, unflatten(f"optimizer{place}", tensors, rest[f"optimizer{place}"]))
    if stepper.scaler.is_enabled() and rest.get("scaler"):
        stepper.scaler.load_state_dict(rest["scaler"])
    if stepper.outer is not None:
        stepper.outer.take_up(_named(tensors, "outer."))
    if stepper.ema is not None:
        stepper.ema.take_up(_named(tensors, "ema."))


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
