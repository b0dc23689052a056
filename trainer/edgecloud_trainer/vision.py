"""torchvision, without the compiler that it imports."""

from __future__ import annotations

import contextlib
import importlib
import sys
from types import ModuleType
from typing import Any, Final

_COMPILER: Final = "torch._dynamo.utils"


def part(name: str) -> Any:
    """torchvision's module of this name, such as models.

    An operation for detection (torchvision/ops/roi_align.py) takes one function of the compiler when it is imported, to
    call it hardly ever: more than a second of CPU time and 140 MiB in every process. Here it gets one that takes it
    when it is called.
    """
    if "torchvision" in sys.modules or _COMPILER in sys.modules:
        return importlib.import_module(f"torchvision.{name}")
    stand_in = ModuleType(_COMPILER)
    setattr(stand_in, "is_compile_supported", _is_compile_supported)  # noqa: B010 - a module takes any attribute
    sys.modules[_COMPILER] = stand_in
    with contextlib.suppress(ImportError):  # of a release that takes more: what is loaded by then is no worse for it
        try:
            return importlib.import_module(f"torchvision.{name}")
        finally:
            del sys.modules[_COMPILER]
    return importlib.import_module(f"torchvision.{name}")


def _is_compile_supported(device_type: Any) -> Any:
    return importlib.import_module(_COMPILER).is_compile_supported(device_type)
