"""torchvision's classification models, fitted to the images and classes at hand."""

from __future__ import annotations

import math
from typing import Any, Final

from torch import nn

from edgecloud_trainer import vision
from edgecloud_trainer.models.errors import ModelError

SMALL: Final = 64
"""Images with no side longer than this have a residual network keep its full resolution in front."""

_RESIDUAL: Final = ("resnet", "resnext", "wide_resnet")


def names() -> list[str]:
    """What torchvision has for classification."""
    models = vision.part("models")
    return list(models.list_models(module=models))


def build(name: str, *, classes: int, channels: int, height: int, width: int) -> nn.Module:
    """A torchvision model with fresh weights.

    The head has `classes` outputs. With other than three channels the first convolution takes that many. Residual
    networks see images of at most 64 pixels through a 3x3 convolution of stride 1 without pooling, as is usual for
    CIFAR: their own front, made for 224 pixels, would leave 8x8 of 32x32.

    Raises:
        ModelError: the model can't take images of this size.
    """
    models = vision.part("models")
    model: nn.Module = models.get_model(
        name, weights=None, num_classes=classes, **_options(name, height=height, width=width)
    )
    if name.startswith(_RESIDUAL) and max(height, width) <= SMALL:
        stem = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        model.conv1, model.maxpool = stem, nn.Identity()
    elif channels != 3:
        _take_channels(model, channels)
    return model


def _options(name: str, *, height: int, width: int) -> dict[str, Any]:
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        patch = int(name.rsplit("_", 1)[1])
        if height != width or height % patch:
            raise ModelError(
                f"{name} needs square images whose side is a multiple of {patch}, not {width}x{height}: "
                "scale the images, or take another model"
            )
        return {"image_size": height}
    if name.startswith("maxvit"):
        return {"input_size": (height, width)}
    return {}


def _take_channels(model: nn.Module, channels: int) -> None:
    """Put a convolution for `channels` in the place of the first one; what comes out is as large as before."""
    path, old = next((path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    nn.init.normal_(new.weight, std=float(old.weight.detach().std()) * math.sqrt(old.in_channels / channels))
    if old.bias is not None and new.bias is not None:
        new.bias.data.copy_(old.bias.data)
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)
