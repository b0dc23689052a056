"""How far a Pod has come up, as its status tells. Pure, and never raises."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from edgecloud.api.status import Reason
from edgecloud_operator.core.health import GATED
from edgecloud_operator.core.observed import PodPhase
from edgecloud_operator.kube.parts import MAX_MESSAGE, mapping, moment, sequence, text

_IMAGE: Final = frozenset(
    ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
     "RegistryUnavailable", "SignatureValidationFailed")
)  # fmt: skip
_CONFIG: Final = frozenset(
    ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreStartHookError",
     "PostStartHookError", "CreatePodSandboxError", "ConfigPodSandboxError")
)  # fmt: skip
_VOLUME: Final = re.compile(
    r"persistent ?volume|volume node affinity|volume binding|volume zone|max volume count|unbound", re.IGNORECASE
)
_BACK_OFF: Final = re.compile(r'Back-off pulling image ".*?": ErrImagePull: ')
"""A kubelet that waits before it pulls again says first that it does, and then why."""


def running_since(phase: PodPhase, container: dict[str, Any], status: dict[str, Any]) -> datetime | None:
    """Since when its container runs; None if it doesn't."""
    started = moment(_state(container, "running").get("startedAt"))
    if started is None and phase == "Running" and not container:
        started = moment(status.get("startTime"))
    return started


def blocked(phase: PodPhase, status: dict[str, Any]) -> tuple[Reason, str] | None:
    """What keeps a Pod from coming up, as far as its status tells."""
    if phase not in ("Pending", "Unknown"):
        return None
    for one in map(
        mapping, (*sequence(status.get("initContainerStatuses")), *sequence(status.get("containerStatuses")))
    ):
        waiting = _state(one, "waiting")
        word = text(waiting.get("reason"), 64)
        reason: Reason | None = None
        if word in _IMAGE:
            reason = "ErrImagePull"
        elif word in _CONFIG:
            reason = "CreateContainerConfigError"
        if reason is not None:
            said = text(waiting.get("message"), MAX_MESSAGE)
            if word == "ImagePullBackOff" and (waits := _BACK_OFF.match(said)):
                word, said = "ErrImagePull", said[waits.end() :]
            return reason, f"{word}: {said}" if said else word
    for condition in map(mapping, sequence(status.get("conditions"))):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said, why = text(condition.get("message"), MAX_MESSAGE), text(condition.get("reason"), 64)
            if why == GATED:
                return "Unschedulable", f"{GATED}: {said}" if said else GATED
            said = said or why
            return ("VolumeNotBound" if _VOLUME.search(said) else "Unschedulable"), said or "not scheduled"
    return None


def waits_since(
    phase: PodPhase, container: dict[str, Any], status: dict[str, Any], spec: dict[str, Any]
) -> datetime | None:
    """Since when a Pod that has its node waits to be started there: for an image, a volume, or the network.

    None if it does not: while an init container runs it gets on, however long that takes; unless it is one that runs
    beside the others for as long as the Pod lives.
    """
    specs = map(mapping, sequence(spec.get("initContainers")))
    beside = [one.get("name") for one in specs if one.get("restartPolicy") == "Always"]
    statuses = map(mapping, sequence(status.get("initContainerStatuses")))
    inits = [one for one in statuses if one.get("name") not in beside]
    if phase != "Pending" or _state(container, "running") or any(_state(one, "running") for one in inits):
        return None
    placed = placed_at(status)
    if placed is None:
        return None
    ends = [moment(_state(one, "terminated").get("finishedAt")) for one in inits]
    return max([placed, *(end for end in ends if end is not None)])


def placed_at(status: dict[str, Any]) -> datetime | None:
    """When a Pod got its node; None while it has none."""
    scheduled = [
        moment(condition.get("lastTransitionTime"))
        for condition in map(mapping, sequence(status.get("conditions")))
        if condition.get("type") == "PodScheduled" and condition.get("status") == "True"
    ]
    return scheduled[0] if scheduled else None


def _state(container: dict[str, Any], name: str) -> dict[str, Any]:
    return mapping(mapping(container.get("state")).get(name))
