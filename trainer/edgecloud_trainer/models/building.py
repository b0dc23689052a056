"""The front door: a model by its name, tried once, so that what doesn't fit fails here with a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgecloud_trainer.models import custom, torchvision_models, trying
from edgecloud_trainer.models.article import ArticleCNN
from edgecloud_trainer.models.edgenet import EdgeNet
from edgecloud_trainer.models.errors import ModelError


class _Builder(Protocol):
    def __call__(self, *, classes: int, channels: int, height: int, width: int) -> nn.Module: ...


BUILT_IN: Final[dict[str, _Builder]] = {"article-cnn": ArticleCNN, "edgenet": EdgeNet}


def build(name: str, *, classes: int, channels: int, height: int, width: int) -> nn.Module:
    """A model with fresh weights, in training mode; they come from torch's global random generator.

    Args:
        name: article-cnn, edgenet, one of torchvision's classification models, or module:function.
        classes: outputs.
        channels, height, width: of the images.

    Returns:
        A module that makes float32 logits [N, classes] of images [N, channels, height, width].

    Raises:
        ModelError: there is no such model, or it doesn't take such images.
        OSError, MemoryError, RuntimeError: the model's own, when it is made or tried, where another try may work.
    """
    fit = {"classes": classes, "channels": channels, "height": height, "width": width}
    if ":" in name:
        return _tried(name, custom.build(name, **fit), **fit)
    try:
        if name in BUILT_IN:
            model = BUILT_IN[name](**fit)
        elif name in (known := torchvision_models.names()):
            model = torchvision_models.build(name, **fit)
        else:
            near = difflib.get_close_matches(name, [*BUILT_IN, *known], 3)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ModelError(
                f"no model is named {name}.{meant} There are {', '.join(BUILT_IN)}, torchvision's classification "
                "models, and module:function"
            )
    except ModelError:
        raise
    except Exception as error:  # torchvision's constructors check little and fail in many ways
        raise _misfit(name, error, **fit) from error
    return _tried(name, model, **fit)


def _tried(name: str, model: nn.Module, *, classes: int, channels: int, height: int, width: int) -> nn.Module:
    """The model, if it makes logits of one black image and has something to train."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(f"{name} has no parameter that can be trained: return a network with some")
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, channels, height, width, dtype=torch.float32))
    except (Exception, SystemExit) as error:  # the user's or torchvision's code may raise anything
        if trying.may_pass(error):
            raise
        raise _misfit(name, error, classes=classes, channels=channels, height=height, width=width) from error
    finally:
        for module in training:
            module.training = True
    instead = trying.made_instead(logits, 1, classes)
    if instead is not None:
        raise ModelError(f"{name} {instead}: logits [1, {classes}] are needed")
    return model


def _misfit(name: str, error: BaseException, *, classes: int, channels: int, height: int, width: int) -> ModelError:
    another = "" if name == "edgenet" else ", or take another model such as edgenet"
    return ModelError(
        f"{name} doesn't take images of {width}x{height} pixels with {channels} channel(s)"
        f" ({trying.in_a_line(error)}): scale the images{another}"
    )


def initialise(model: nn.Module, pixels: npt.NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]) -> None:
    """Fit those weights to the data that are taken from them instead of trained: EdgeNet's first layer.

    Any other model is left as it is. Draws no random numbers; the same pixels give the same weights, to the last bit,
    for any number of threads.

    Args:
        model: from `build`, on the CPU or not.
        pixels: uint8 [N, C, H, W], the training images. Of many, as many as are needed are read.
        mean, std: what the network's input is normalised with.
    """
    if isinstance(model, EdgeNet):
        model.whiten_by(pixels, mean=mean, std=std)
