"""A home for programs that come in an image of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgecloud_operator.core.merge import is_called

_HOME: Final = {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/.cache", "USER": "edgecloud"}  # noqa: S108 - the Pod's own
"""What our own images say of themselves. In others nobody has a home that can be written, or, with our user, a name."""


def with_home(pod: dict[str, Any], worker: str) -> dict[str, Any]:
    """A Pod whose worker, in a foreign image, has a home that it can write, unless somebody may have given it one.

    worker: the container's name.
    """
    containers = pod["spec"].get("containers")
    if not isinstance(containers, list):
        return pod  # a template says so, and the server will refuse it
    return pod | {
        "spec": pod["spec"] | {"containers": [_at_home(one) if is_called(one, worker) else one for one in containers]}
    }


def _at_home(container: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(container.get("env"), list):
        return container
    theirs = {variable.get("name") for variable in _mappings(container.get("env"))}
    ours = {"USER": _HOME["USER"]} if "HOME" in theirs or _may_have_home(container) else _HOME
    added = [{"name": name, "value": value} for name, value in ours.items() if name not in theirs]
    return {**container, "env": [*container["env"], *added]}


def _may_have_home(container: Mapping[str, Any]) -> bool:
    """Whether the image's own home, or one from a ConfigMap, may be good: ours would hide what lies there."""
    security = container.get("securityContext")
    writable = isinstance(security, Mapping) and security.get("readOnlyRootFilesystem") is not True
    mounts = [str(mount.get("mountPath")) for mount in _mappings(container.get("volumeMounts"))]
    return writable or bool(container.get("envFrom")) or any(path.startswith(("/home", "/root")) for path in mounts)


def _mappings(items: Any) -> list[Mapping[str, Any]]:
    """What of a list is an object: of a template nobody has checked it."""
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
