"""The restricted Pod Security level, as kubernetes.io/docs/concepts/security/pod-security-standards has it."""

from __future__ import annotations

from typing import Any, Final

_VOLUMES: Final = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def violations(spec: dict[str, Any]) -> list[str]:
    """What the level has against a Pod's spec; empty if it is admitted."""
    pod = spec.get("securityContext") or {}
    found = [f"{key}: true" for key in ("hostNetwork", "hostPID", "hostIPC", "hostProcess") if spec.get(key)]
    found += [
        f"volume {volume['name']} of another kind"
        for volume in spec.get("volumes") or ()
        if not set(volume) - {"name"} <= _VOLUMES
    ]
    if pod.get("sysctls"):
        found.append("sysctls")
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        own = container.get("securityContext") or {}
        both = pod | own
        capabilities = own.get("capabilities") or {}
        checks = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in (capabilities.get("drop") or ())
            and set(capabilities.get("add") or ()) <= {"NET_BIND_SERVICE"},
            "privileged": not own.get("privileged"),
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": (both.get("seccompProfile") or {}).get("type") in {"RuntimeDefault", "Localhost"},
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPort": not any(port.get("hostPort") for port in container.get("ports") or ()),
        }
        found += [f"{container['name']}: {name}" for name, fits in checks.items() if not fits]
    return found
