"""What a checkpoint holds of a training's course, and going on from it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from edgecloud_trainer import optimizers
from edgecloud_trainer.checkpoints import flatten, unflatten
from edgecloud_trainer.models import ModelError
from edgecloud_trainer.steps import Stepper

_NAMED: Final = 3
"""Values that an error names."""
_EARLIER: Final = ", as by an earlier release"


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
    """Go on from what `held` gave.

    What an earlier release has written, which took what are vectors for matrices, is gone on with by today's groups.

    Raises:
        ModelError: it is of another network than the model, whose code has been changed; nothing has been taken up.
    """
    weights = _named(tensors, "model.")
    names = itertools.takewhile(rest.__contains__, (f"optimizer{place}" for place in itertools.count()))
    states = [unflatten(name, tensors, rest[name]) for name in names]
    difference = _other_weights(stepper, weights)
    if difference is None and (difference := _other_trained(stepper.optimizers, states)):
        then = optimizers.build(
            stepper.model, stepper.settings.optimizer, classes=len(stepper.dataset.classes), by_dimensions=True
        )
        if _other_trained(then, states) is None:
            states, difference = optimizers.regrouped(states, then, stepper.optimizers), None
    if difference is not None:
        name = stepper.settings.trainer.model
        earlier = " or take the image of the release that wrote it" if difference.endswith(_EARLIER) else ""
        raise ModelError(
            f"step-{rest.get('step', '?')} is of another network than {name} makes now ({difference}): put its code"
            f" back{earlier} and go on with a copy of checkpoints/ in another storage.subPath or --workdir, or begin"
            " anew there"
        )
    stepper.model.load_state_dict(weights)
    for optimizer, state in zip(stepper.optimizers, states, strict=True):
        optimizers.take_up(optimizer, state)
    if stepper.scaler.is_enabled() and rest.get("scaler"):
        stepper.scaler.load_state_dict(rest["scaler"])
    if stepper.outer is not None:
        stepper.outer.take_up(_named(tensors, "outer."))
    if stepper.ema is not None:
        stepper.ema.take_up(_named(tensors, "ema."))


def _other_weights(stepper: Stepper, weights: Mapping[str, Tensor]) -> str | None:
    """How the model's values differ from those in names and shapes; None if they don't."""
    made = {name: value.shape for name, value in stepper.model.state_dict().items()}
    new = [name for name in made if name not in weights]
    gone = sorted(set(weights) - set(made))
    shapes = [
        f"{name} {list(weights[name].shape)}, now {list(shape)}"
        for name, shape in made.items()
        if name in weights and weights[name].shape != shape
    ]
    found = [("it lacks", new), ("there is no more", gone), ("other shapes:", shapes)]
    said = [f"{what} {', '.join(names[:_NAMED])}{' ...' * (len(names) > _NAMED)}" for what, names in found if names]
    return "; ".join(said) or None


def _other_trained(made: Sequence[torch.optim.Optimizer], states: Sequence[Mapping[str, Any]]) -> str | None:
    """Whether other parameters are trained, or grouped or ordered otherwise; None if not."""
    before = [[len(group["params"]) for group in state["param_groups"]] for state in states]
    now = [[len(group["params"]) for group in optimizer.param_groups] for optimizer in made]
    if before != now:
        as_many = sum(map(sum, before)) == sum(map(sum, now))
        return f"its parameters are grouped otherwise{_EARLIER}" if as_many else "other parameters are trained"
    for optimizer, state in zip(made, states, strict=True):
        parameters = optimizers.parameters(optimizer)
        for number, values in state["state"].items():  # numbered through all groups
            for value in values.values():
                # Beside what is of the parameter's shape there are counters.
                if isinstance(value, Tensor) and value.ndim and value.shape != parameters[number].shape:
                    return f"other parameters are trained, or in another order{_EARLIER}"
    return None


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
