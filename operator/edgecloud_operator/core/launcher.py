"""The init container that brings the launcher, one file that any python3 runs, into images of the users' own."""

from __future__ import annotations

from typing import Any, Final

from edgecloud.api.spec import ResourceRequirements
from edgecloud.api.types import amount
from edgecloud_operator.core.security import container_security

LAUNCHER: Final = "launcher"
"""Name of the container, and of the volume through which it hands the file over."""
FOLDER: Final = f"/edgecloud/{LAUNCHER}"
LAUNCHER_FILE: Final = f"{FOLDER}/edgecloud-launcher.pyz"
_NEEDED: Final[dict[str, str | int]] = {"cpu": "100m", "memory": "64Mi"}


def launcher_container(image: dict[str, Any], worker: ResourceRequirements) -> dict[str, Any]:
    """A container that writes the launcher, and ends.

    image: the fields that say which, and how it is pulled. worker: what the container that runs the launcher asks for.
    """
    return {
        "name": LAUNCHER,
        **image,
        "command": ["python", "-m", "edgecloud.launcher.archive", LAUNCHER_FILE],
        "resources": _resources(worker),
        "securityContext": container_security(),
        "volumeMounts": [{"name": LAUNCHER, "mountPath": FOLDER}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _resources(worker: ResourceRequirements) -> dict[str, Any]:
    """What it needs, or what the worker has where that is more, which the Pod has set aside anyway.

    A LimitRange's least would else keep out a Pod for this container, of which the user says nothing.
    """
    said, most = worker.requests or {}, worker.limits or {}
    requests = {name: _larger(value, said.get(name, most.get(name))) for name, value in _NEEDED.items()}
    return {"requests": requests, "limits": {name: _larger(value, most.get(name)) for name, value in requests.items()}}


def _larger(one: str | int, other: str | int | None) -> str | int:
    return one if other is None or amount(other) <= amount(one) else other
