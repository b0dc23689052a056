"""The init container that brings the launcher, one file that any python3 runs, into images of the users' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgecloud.api.types import amount
from edgecloud_operator.core.merge import is_called, merged
from edgecloud_operator.core.security import container_security

LAUNCHER: Final = "launcher"
"""Name of the container, and of the volume through which it hands the file over."""
FOLDER: Final = f"/edgecloud/{LAUNCHER}"
LAUNCHER_FILE: Final = f"{FOLDER}/edgecloud-launcher.pyz"
_NEEDED: Final[dict[str, str | int]] = {"cpu": "100m", "memory": "64Mi"}


def launcher_container(image: dict[str, Any]) -> dict[str, Any]:
    """A container that writes the launcher, and ends. image: the fields that say which, and how it is pulled."""
    return {
        "name": LAUNCHER,
        **image,
        "command": ["python", "-m", "edgecloud.launcher.archive", LAUNCHER_FILE],
        "securityContext": container_security(),
        "volumeMounts": [{"name": LAUNCHER, "mountPath": FOLDER}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def with_launcher_resources(pod: dict[str, Any], worker: str) -> dict[str, Any]:
    """A Pod, with what a template says of it, whose launcher has what it needs, or what the worker has where that is
    more: the Pod has set that aside anyway, and a LimitRange's least would else keep it out for this container.

    Of what the worker says nothing neither does the launcher: a LimitRange's defaults are for both, then. Where the
    template has resources for the launcher, these stand over the least. worker: the container's name.
    """
    containers, inits = pod["spec"].get("containers"), pod["spec"].get("initContainers")
    if not isinstance(containers, list) or not isinstance(inits, list):
        return pod  # a template says so, and the server will refuse it
    said = next((one.get("resources") for one in containers if is_called(one, worker)), None)
    least = {"resources": {"requests": dict(_NEEDED), "limits": dict(_NEEDED)}}
    ours = {"resources": _resources(said if isinstance(said, Mapping) else {})}
    mended = [
        merged(least if one.get("resources") else ours, one) if is_called(one, LAUNCHER) else one for one in inits
    ]
    return pod | {"spec": pod["spec"] | {"initContainers": mended}}


def _resources(worker: Mapping[str, Any]) -> dict[str, Any]:
    said, most = (value if isinstance(value := worker.get(kind), Mapping) else {} for kind in ("requests", "limits"))
    there = [name for name in _NEEDED if said.get(name, most.get(name)) is not None]
    requests = {name: _larger(_NEEDED[name], said.get(name, most.get(name))) for name in there}
    return {"requests": requests, "limits": {name: _larger(requests[name], most.get(name)) for name in there}}


def _larger(one: Any, other: Any) -> Any:
    """The larger quantity; one, where the other is none."""
    try:
        return one if amount(other) <= amount(one) else other
    except (ArithmeticError, KeyError):  # no number, or one that is too large for any
        return one
