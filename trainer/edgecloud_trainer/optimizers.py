"""Optimisers, their parameter groups, and Muon for convolutions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from edgecloud.api.trainer import OptimizerSpec

NEWTON_SCHULZ_STEPS: Final = 3
# Keller Jordan's quintic (github.com/KellerJordan/Muon): converges fast near 0, and to about 1 rather than exactly.
NEWTON_SCHULZ: Final = (3.4445, -4.7750, 2.0315)
EPSILON: Final = 1e-7
_NORMS: Final = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_MAPS: Final = (nn.Linear, nn.Bilinear, _ConvNd, nn.RNNBase, nn.RNNCellBase)
"""Layers whose weights are matrices, though they be of one row or column."""
_WRAPPED: Final = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")


def groups(model: nn.Module, weight_decay: float, *, by_dimensions: bool = False) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay; vectors, which are biases and scales as a rule, don't."""
    matrices, vectors = _kinds(model, by_dimensions)
    both = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in both if group["params"]]


def _kinds(model: nn.Module, by_dimensions: bool) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What is trained, as matrices (convolutions too) and vectors.

    A vector may have several dimensions: a norm's weight [C, H, W], a scale [C, 1, 1] or weight_norm's [O, 1, 1, 1].
    """
    of_norms, of_maps = set(), set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, _NORMS):
                of_norms.add(parameter)
            elif isinstance(module, _MAPS) and name.startswith("weight") and not name.endswith("_g"):
                of_maps.add(parameter)

    def is_matrix(one: nn.Parameter) -> bool:
        if by_dimensions:
            return one.ndim >= 2
        wide = sum(size > 1 for size in one.shape)
        return one.ndim >= 2 and one not in of_norms and (wide >= 2 or one in of_maps)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [one for one in trained if is_matrix(one)], [one for one in trained if not is_matrix(one)]


def build(
    model: nn.Module, spec: OptimizerSpec, *, classes: int, by_dimensions: bool = False
) -> list[torch.optim.Optimizer]:
    """The optimisers of a model; the base learning rate of each group stands in `initial_lr`.

    Muon moves matrices and convolutions; vectors, and the last layer, are left to SGD beside it, without weight decay.
    The last layer is the last one with as many rows as there are classes: a model may make its head first. Where none
    has, it is the last one. by_dimensions: what has two or more counts as a matrix, as in earlier releases.
    """
    optimizers: list[torch.optim.Optimizer]
    if spec.name == "adamw":
        betas = (spec.momentum, 0.999)
        decayed = groups(model, spec.weight_decay, by_dimensions=by_dimensions)
        optimizers = [_plain(torch.optim.AdamW)(decayed, lr=spec.learning_rate, betas=betas, fused=_fused(decayed))]
    elif spec.name == "muon":
        optimizers = _muon(model, spec, classes, by_dimensions)
    else:
        optimizers = [_sgd(groups(model, spec.weight_decay, by_dimensions=by_dimensions), spec)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


@functools.cache
def _plain(cls: type[torch.optim.Optimizer]) -> Any:
    """The same optimiser without the wrappers that keep torch.compile out of it.

    The first call of one imports the compiler, which is 3 s of CPU time and 170 MiB in every process. Where torch
    stops wrapping (torch/optim/optimizer.py), this does nothing.
    """
    bare = {name: inspect.unwrap(getattr(cls, name)) for name in _WRAPPED}
    bare["step"] = torch.no_grad()(bare["step"])
    return type(cls.__name__, (cls,), bare)


def _sgd(parameter_groups: list[dict[str, Any]], spec: OptimizerSpec) -> torch.optim.Optimizer:
    nesterov = spec.nesterov and spec.momentum > 0
    sgd: torch.optim.Optimizer = _plain(torch.optim.SGD)(
        parameter_groups,
        lr=spec.learning_rate,
        momentum=spec.momentum,
        nesterov=nesterov,
        fused=_fused(parameter_groups),
    )
    return sgd


def _fused(parameter_groups: Iterable[dict[str, Any]]) -> bool | None:
    """One pass over the memory for each tensor instead of one for each operation: on a CPU a fifth of the time."""
    parameters = [parameter for group in parameter_groups for parameter in group["params"]]
    return True if all(parameter.device.type == "cpu" for parameter in parameters) else None


def _muon(model: nn.Module, spec: OptimizerSpec, classes: int, by_dimensions: bool) -> list[torch.optim.Optimizer]:
    matrices, vectors = _kinds(model, by_dimensions)
    last = ([one for one in matrices if one.shape[0] == classes] or matrices)[-1:]
    hidden = [one for one in matrices if all(one is not other for other in last)]
    rest = last + vectors
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        muon = _plain(Muon)
        optimizers.append(
            muon(
                hidden,
                lr=spec.learning_rate,
                momentum=spec.momentum,
                nesterov=spec.nesterov,
                weight_decay=spec.weight_decay,
            )
        )
    # Muon's steps are as long as its weights, so that it takes a decay ten to a hundred times SGD's: the last layer,
    # which says how sure the model is, would be left with nothing.
    if rest:
        optimizers.append(_sgd([{"params": rest, "weight_decay": 0.0}], spec))
    return optimizers


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], multiplier: float) -> None:
    """Every group's learning rate as a part of its base."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier


def regrouped(
    states: Sequence[Mapping[str, Any]], then: Iterable[torch.optim.Optimizer], now: Iterable[torch.optim.Optimizer]
) -> list[dict[str, Any]]:
    """The state_dicts of optimisers `then` as those of `now`, which move the same parameters in other groups.

    What is kept of a parameter goes with it, be it from Muon to SGD: both keep the same sum of gradients. The groups'
    own values are those of now.
    """
    kept: dict[Tensor, Any] = {}
    for optimizer, state in zip(then, states, strict=True):
        kept |= {parameters(optimizer)[number]: values for number, values in state["state"].items()}
    return [
        optimizer.state_dict()
        | {"state": {number: kept[one] for number, one in enumerate(parameters(optimizer)) if one in kept}}
        for optimizer in now
    ]


def parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Through all groups, as a state_dict numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def take_up(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state_dict, and lay each tensor of it out in memory as its weight.

    A fused optimiser walks through both as they lie there; what comes from a file is contiguous, and the weights of a
    convolution may be channels last.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton and Schulz: every direction of a matrix moves equally far.

    torch.optim.Muon takes matrices only; here a convolution [O, I, H, W] counts as the matrix [O, I * H * W].
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also what load_state_dict calls. A checkpoint that doesn't say is of the time of Nesterov's form alone."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("nesterov", True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update. closure is not supported."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(parameter.grad)
        update = parameter.grad.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
        direction = orthogonalised(update.reshape(update.shape[0], -1))
        rows, columns = direction.shape
        size = max(1.0, rows / columns) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction.reshape(parameter.shape), alpha=-group["lr"] * size)


def orthogonalised(matrix: Tensor) -> Tensor:
    """[R, C] -> [R, C]: the nearest matrix, roughly, whose singular values are all about 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + EPSILON)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.T if tall else x
    return result
