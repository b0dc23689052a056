"""The Pod template of a spec: what of it is read, and what no API server would make a Pod of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import Field

from edgecloud.api.base import Model
from edgecloud.api.types import PassedThrough

CONTAINER: Final = "worker"
"""The container of a worker Pod that trains: a template says more of it under this name."""


class PodTemplate(Model):
    """Metadata and spec of Pods, laid over those that EdgeCloud builds. What is in them is Kubernetes' to check.

    Two known fields and no more: a server prunes, and kubectl names, what stands beside them and would count for
    nothing. (CEL could not: it doesn't see what a preserved object holds.)
    """

    metadata: PassedThrough | None = Field(None, description="labels, annotations and finalizers of the worker Pods.")
    spec: PassedThrough | None = Field(
        None,
        description="A PodSpec, such as imagePullSecrets, volumes, and in containers, under name: worker, the env,"
        " envFrom and volumeMounts of what trains.",
    )


def as_far_as_read(template: Any) -> Any:
    """A stored template without what has never counted: it was taken before a template's fields were known."""
    if not isinstance(template, Mapping):
        return template
    return {key: value for key, value in template.items() if key in ("metadata", "spec") and isinstance(value, Mapping)}


def refused(template: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """What no API server makes a Pod of, told before there is one: path below the template, message, remedy.

    A container that isn't the worker's stands beside it, and needs an image of its own. Of a stored job the server
    says it itself, when it is to take the Pod.
    """
    containers = (template.get("spec") or {}).get("containers")
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        if isinstance(container, Mapping) and container.get("name") != CONTAINER and not container.get("image"):
            yield (
                ("spec", "containers", index),
                f"a container that is not named {CONTAINER} stands beside the one that trains, and this has no image",
                f"write name: {CONTAINER} to say more of the one that trains, or give this one an image",
            )
