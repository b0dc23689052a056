"""Accelerators that the built-in trainer would hold and not use: it goes by the NVIDIA GPUs in resources.limits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from edgecloud.api.spec import GPU, ResourceRequirements, TrainingJobSpec
from edgecloud.api.template import CONTAINER
from edgecloud.api.types import amount

Unused = tuple[tuple[str | int, ...], str, str]
"""Path below spec, message, remedy."""
UNCOUNTED_REMEDY: Final = (
    "write trainer.device: cuda, and processesPerWorker if there is more than one, where PyTorch sees it as a CUDA"
    " device, or trainer.device: cpu"
)
_ACCELERATOR: Final = re.compile(r"(?<![a-z])(v?gpu|gaudi|neuron[a-z]*|tpu|npu|i915|xe)(?![a-z])", re.IGNORECASE)
_OTHERS: Final = re.compile(r"([^/]*\.)?kubernetes\.io/|rdma/|smarter-devices/")
"""How names begin of what is no accelerator, or is more than the name tells."""


def unused(spec: TrainingJobSpec) -> Iterator[Unused]:
    """Those of workers that would train on the CPU beside them. Who writes a device has said what is meant."""
    if spec.trainer is None or spec.trainer.device != "auto":
        return
    groups: dict[tuple[str | int, ...], ResourceRequirements | None] = {
        ("pools", index) if pool.resources else (): pool.resources or spec.resources
        for index, pool in enumerate(spec.pools or ())
    }
    groups = groups or {(): spec.resources}
    without = {path: limits for path, resources in groups.items() if not _has_gpus(limits := _limits(resources))}
    for path, limits in without.items():
        for name in filter(_is_accelerator, limits):
            yield (*path, "resources", "limits", name), _words(name), UNCOUNTED_REMEDY
    if without:
        yield from _of_template((spec.template().get("spec") or {}).get("containers"))


def _of_template(containers: Any) -> Iterator[Unused]:
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        resources = container.get("resources") if isinstance(container, Mapping) else None
        if not isinstance(resources, Mapping) or container.get("name") != CONTAINER:
            continue
        place = ("podTemplate", "spec", "containers", index, "resources")
        limits = resources.get("limits")
        for name in limits if isinstance(limits, Mapping) else ():
            if GPU.fullmatch(str(name)):
                yield (
                    (*place, "limits", name),
                    _words(f"{name} of a podTemplate"),
                    "write it into spec.resources.limits",
                )
            elif _is_accelerator(str(name)):
                yield (*place, "limits", name), _words(name), UNCOUNTED_REMEDY
        if resources.get("claims"):
            yield (*place, "claims"), _words("what a resource claim gives"), UNCOUNTED_REMEDY


def _limits(resources: ResourceRequirements | None) -> list[str]:
    """Names of those that are of more than nothing."""
    limits = (resources.limits if resources else None) or {}
    return [name for name, value in limits.items() if amount(value) > 0]


def _has_gpus(limits: list[str]) -> bool:
    return any(GPU.fullmatch(name) for name in limits)


def _is_accelerator(name: str) -> bool:
    return "/" in name and not _OTHERS.match(name) and _ACCELERATOR.search(name) is not None


def _words(what: str) -> str:
    return f"{what} is not counted as GPUs of the built-in trainer's: it would train on the CPU, and hold it"
