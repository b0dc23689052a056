"""The Pod template of a spec, and what of a stored one is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from pydantic import Field

from edgecloud.api.base import Model
from edgecloud.api.types import PassedThrough

CONTAINER: Final = "worker"
"""The container of a worker Pod that trains: a template says more of it under this name."""

MAX_TEMPLATE_SIZE: Final = 128 * 1024
"""Characters of a template as JSON: every worker Pod carries them."""
TOO_LARGE: Final = "spec.podTemplate has more than 128 KiB, and every worker Pod would carry them"
TOO_LARGE_REMEDY: Final = "bring what is long with the image, in a ConfigMap or Secret, or on a volume"


class PodTemplate(Model):
    """Metadata and spec of Pods, laid over those that EdgeCloud builds. What is in them is Kubernetes' to check.

    Two known fields and no more: a server prunes, and kubectl names, what stands beside them and would count for
    nothing. (CEL could not: it doesn't see what a preserved object holds.)
    """

    metadata: PassedThrough | None = Field(
        None,
        description="labels, annotations and finalizers of the worker Pods; labels and annotations (but those of"
        " prometheus.io) are the Service's and the files' ConfigMap's as well.",
    )
    spec: PassedThrough | None = Field(
        None,
        description="A PodSpec, such as imagePullSecrets, volumes, and in containers, under name: worker, the env,"
        " envFrom and volumeMounts of what trains.",
    )

    @cached_property
    def too_large(self) -> bool:
        """Whether no Pod is made with it. (This is no rule: no API server sees it, and a stored job is to be told.)"""
        return len(json.dumps(self.dump(), separators=(",", ":"), ensure_ascii=False)) > MAX_TEMPLATE_SIZE


def as_far_as_read(template: Any) -> Any:
    """A stored template without what has never counted: it was taken before a template's fields were known."""
    if not isinstance(template, Mapping):
        return template
    return {key: value for key, value in template.items() if key in ("metadata", "spec") and isinstance(value, Mapping)}
