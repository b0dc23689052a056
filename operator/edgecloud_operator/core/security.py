"""The security contexts of worker and measuring Pods, for the restricted Pod Security level."""

from __future__ import annotations

from typing import Any, Final

USER: Final = 1000
"""Of our images, and of whatever else runs in our Pods."""


def pod_security(user: int | None) -> dict[str, Any]:
    """Of a Pod. user: the id that it asks for, as user, group and group of its volumes; None leaves all three to the
    platform, which gives them out."""
    ids = {} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}
    return {"runAsNonRoot": True, **ids, "seccompProfile": {"type": "RuntimeDefault"}}


def container_security() -> dict[str, Any]:
    """Of a container, likewise."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
