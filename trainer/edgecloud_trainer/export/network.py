"""The network as an edge node runs it: from pixels as they were decoded to logits, all by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgecloud.edge.card import INPUT, ModelCard
from edgecloud_trainer.export.errors import ConversionError, first_line


class EdgeNetwork(nn.Module):
    """A trained network with its normalisation in front."""

    def __init__(self, network: nn.Module, card: ModelCard, *, mirror: bool) -> None:
        """mirror: takes the mean of the logits of each image and its mirror image; twice the work."""
        super().__init__()
        self.network = network
        self.mirror = mirror
        self.classes = len(card.classes)
        # As augment.to_input computes them, so that the network sees the same numbers to the last bit.
        scale = np.array([1 / (255 * std) for std in card.std], np.float32)
        shift = np.array([-mean / std for mean, std in zip(card.mean, card.std, strict=True)], np.float32)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.from_numpy(scale).reshape(1, -1, 1, 1))
        self.register_buffer("shift", torch.from_numpy(shift).reshape(1, -1, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> float32 [N, classes]."""
        count = images.shape[0]
        inputs = images.to(torch.float32) * self.scale + self.shift
        if self.mirror:
            both = self._logits(torch.cat((inputs, inputs.flip(-1))))
            logits = both.reshape(2, count, self.classes).mean(0)
        else:
            logits = self._logits(inputs)
        return logits if logits.dtype == torch.float32 else logits.to(torch.float32)

    def _logits(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs)
        return logits


def captured(network: nn.Module, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """The graph of a network that takes uint8 [N, *shape] under the name INPUT, for any N.

    Raises:
        ConversionError: torch.export can't follow it.
    """
    # Two images: a batch of one is a special case in torch.export.
    example = torch.zeros((2, *shape), dtype=torch.uint8)
    shapes: dict[str, Any] = {INPUT: {0: torch.export.Dim("batch")}}
    try:
        with torch.no_grad():
            program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    except Exception as error:  # the network may be anybody's, and its code fails in any way there is
        raise ConversionError(
            f"torch.export can't follow this network ({first_line(error)}): write its forward without control flow that"
            " depends on the values of tensors or on the number of images"
        ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # lines of source code, which would be saved with it
    return program
