"""What no Pod is made of, told before there is one.

Of a stored job the server, or the operator, says it itself when a Pod is to be made; so these are no rules, which a job
is read by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from edgecloud.api.accelerators import unused
from edgecloud.api.spec import ResourceRequirements, TrainingJobSpec
from edgecloud.api.template import CONTAINER, TOO_LARGE, TOO_LARGE_REMEDY
from edgecloud.api.types import amount

Unmade = tuple[tuple[str | int, ...], str, str]
"""Path below spec, message, remedy."""
_ELSEWHERE: Final = {
    "command": "write what each process runs into spec.program.command",
    "args": "write them into spec.program.args",
    "image": "write it into spec.image",
}
"""What a template doesn't say of the container that trains, and where it is said."""


def unmade(spec: TrainingJobSpec) -> Iterator[Unmade]:
    """Every such thing in a spec."""
    if spec.has_too_large_template():
        yield ("podTemplate",), TOO_LARGE, TOO_LARGE_REMEDY
    yield from _containers((spec.template().get("spec") or {}).get("containers"))
    yield from unused(spec)
    yield from _resources(spec.resources, ())
    for index, pool in enumerate(spec.pools or ()):
        yield from _resources(pool.resources, ("pools", index))
    if spec.export and spec.export.measure_on:
        yield from _resources(spec.export.measure_on.resources, ("export", "measureOn"))
    if spec.storage and ".." in (spec.storage.sub_path or "").split("/"):
        yield (
            ("storage", "subPath"),
            "a path within the claim has no ..",
            "write where the folder is, from the claim's top",
        )


def _containers(containers: Any) -> Iterator[Unmade]:
    """The worker's starts the launcher, in the job's image. Another stands beside it, and needs one of its own."""
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        if not isinstance(container, Mapping):
            continue
        place = ("podTemplate", "spec", "containers", index)
        if container.get("name") == CONTAINER:
            for field, where in _ELSEWHERE.items():
                if field in container:
                    yield (*place, field), f"the container named {CONTAINER} starts EdgeCloud's launcher", where
        elif not container.get("image"):
            yield (
                place,
                f"a container that is not named {CONTAINER} stands beside the one that trains, and this has no image",
                f"write name: {CONTAINER} to say more of the one that trains, or give this one an image",
            )


def _resources(resources: ResourceRequirements | None, path: tuple[str | int, ...]) -> Iterator[Unmade]:
    """What a device plugin offers, such as nvidia.com/gpu, is counted, and a limit gives it."""
    limits = (resources.limits if resources else None) or {}
    for part in ("limits", "requests"):
        for name, value in (getattr(resources, part, None) or {}).items():
            where = (*path, "resources", part, name)
            if "/" in name and amount(value) % 1:
                yield where, f"{name} is counted in whole ones", "write a whole number, such as 1"
            elif part == "requests" and _of_plugin(name) and amount(value) != amount(limits.get(name, 0)):
                message = f"{name} is given by limits, and what is requested of it has to be the same"
                yield where, message, f"write {name}: {value} below limits, and leave it out here"


def _of_plugin(name: str) -> bool:
    return "/" in name and not name.partition("/")[0].endswith("kubernetes.io")
