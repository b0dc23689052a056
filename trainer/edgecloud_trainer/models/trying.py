"""One call of a network on black images: what can be said of it when it fails, or makes something else than logits."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_OF_THE_MACHINE: Final = (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError, OSError)
_OF_THE_MACHINE_TOO: Final = ("CUDA", "cuDNN", "can't allocate memory", "bad_alloc")
"""What RuntimeErrors say that have no class of their own."""


def may_pass(error: BaseException) -> bool:
    """Whether it is the machine's, its memory's, a file's or a connection's: another try may work."""
    if isinstance(error, _OF_THE_MACHINE):
        return True
    # An operation that isn't there for CUDA is NotImplementedError, which is a RuntimeError too.
    said = str(error) if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError) else ""
    return any(word in said for word in _OF_THE_MACHINE_TOO)


def in_a_line(error: BaseException) -> str:
    """Its type, and the first line of what it says."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def images(count: int) -> str:
    """So many of them, in words."""
    return "one image" if count == 1 else f"{count} images"


def made_instead(logits: object, count: int, classes: int) -> str | None:
    """What a network makes of `count` images, as its predicate, if it isn't logits [count, classes]; None if it is."""
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    return None if shape == [count, classes] else f"makes {shape} of {images(count)}"
