"""A model of the user's own, from `module:function`."""

from __future__ import annotations

import importlib

from torch import nn

from edgecloud_trainer.models import trying
from edgecloud_trainer.models.errors import ModelError


def build(name: str, *, classes: int, channels: int, height: int, width: int) -> nn.Module:
    """What the function returns when it is called with these as keyword arguments.

    Raises:
        ModelError: there is no such module or function, it fails or ends its process, or it returns something else.
        OSError, MemoryError, RuntimeError: their own, where another try may work: weights may come from afar.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except SystemExit as error:  # no Exception: with 0 the training would be done, and nothing trained
        raise ModelError(
            f"{name}: {module_name} ends its process when it is imported ({trying.in_a_line(error)}): put what it does "
            "as a script under if __name__ == '__main__'"
        ) from error
    except Exception as error:  # the user's code may raise anything
        if _may_pass(error):
            raise
        missing = "start it from its folder, or put that on PYTHONPATH, or into the image"
        remedy = missing if isinstance(error, ImportError) else "correct it"
        raise ModelError(
            f"{name}: {module_name} can't be imported ({type(error).__name__}: {error}): {remedy}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ModelError(f"{name}: {module_name} has no function {function_name or '(write one behind the colon)'}")
    try:
        model = function(classes=classes, channels=channels, height=height, width=width)
    except (Exception, SystemExit) as error:
        if _may_pass(error):
            raise
        # An error of this type is one in the call, as a rule.
        called = "it is called with the keyword arguments classes, channels, height and width"
        remedy = called if isinstance(error, TypeError) else "correct it"
        raise ModelError(f"{name} failed ({type(error).__name__}: {error}): {remedy}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returned {type(model).__name__}: a torch.nn.Module is needed")
    return model


def _may_pass(error: BaseException) -> bool:
    """Whether another try may work. A file that isn't there is one of the user's own: it would be missing again."""
    return trying.may_pass(error) and not isinstance(error, FileNotFoundError)
