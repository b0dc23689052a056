"""BatchNorm folded into the convolutions in front of it, also where a pooling stands between the two."""

from __future__ import annotations

import operator
from typing import Final

import torch
from torch import Tensor, fx

_CONVOLUTION: Final = torch.ops.aten.conv2d.default
_POOLING: Final = torch.ops.aten.max_pool2d.default
_NORM: Final = torch.ops.aten.batch_norm.default


def fold(graph_module: fx.GraphModule) -> int:
    """Fold what can be folded, in place; how many there were.

    A convolution followed by y * scale + shift is another convolution. The largest of some values, times a scale above
    0, is the largest of the scaled ones: so a pooling in between changes nothing, if no scale is negative.
    """
    graph, found = graph_module.graph, 0
    for norm in list(graph.nodes):
        if norm.target is not _NORM or not _evaluates(norm):
            continue
        source, pooled = norm.args[0], False
        while source.target is _POOLING and len(source.users) == 1:
            source, pooled = source.args[0], True
        if source.target is _CONVOLUTION and len(source.users) == 1:
            found += _folded(graph_module, source, norm, f"folded_{found}", pooled=pooled)
    if found:
        graph.eliminate_dead_code()
        graph_module.delete_all_unused_submodules()
        graph_module.recompile()
    return found


def _evaluates(norm: fx.Node) -> bool:
    """Whether a batch_norm uses its running statistics."""
    training: object = norm.args[5]
    return training is False and norm.args[3] is not None and norm.args[4] is not None


@torch.no_grad()
def _folded(graph_module: fx.GraphModule, convolution: fx.Node, norm: fx.Node, name: str, *, pooled: bool) -> bool:
    _, gain, offset, mean, variance, _, _, epsilon, *_ = norm.args
    running_mean, running_variance = _value(graph_module, mean), _value(graph_module, variance)
    weight = _value(graph_module, convolution.args[1])
    if running_mean is None or running_variance is None or weight is None:
        return False
    assert isinstance(epsilon, float)
    scale = 1 / (running_variance.double() + epsilon).sqrt()
    if (value := _value(graph_module, gain)) is not None:
        scale = scale * value.double()
    if pooled and bool((scale <= 0).any()):
        return False
    bias = _value(graph_module, convolution.args[2] if len(convolution.args) > 2 else None)
    shift = ((0 if bias is None else bias.double()) - running_mean.double()) * scale
    if (value := _value(graph_module, offset)) is not None:
        shift = shift + value.double()
    graph_module.register_buffer(f"{name}_weight", (weight.double() * scale.reshape(-1, 1, 1, 1)).to(weight.dtype))
    graph_module.register_buffer(f"{name}_bias", shift.to(weight.dtype))
    with graph_module.graph.inserting_before(convolution):
        parameters = tuple(graph_module.graph.get_attr(f"{name}_{part}") for part in ("weight", "bias"))
    convolution.args = (convolution.args[0], *parameters, *convolution.args[3:])
    norm.replace_all_uses_with(norm.args[0])  # type: ignore[arg-type]
    graph_module.graph.erase_node(norm)
    return True


def _value(graph_module: fx.GraphModule, node: object) -> Tensor | None:
    """The tensor that a node stands for, if it is one of the module's own."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Tensor = operator.attrgetter(str(node.target))(graph_module)
    return value
