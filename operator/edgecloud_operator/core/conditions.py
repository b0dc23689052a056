"""Conditions, as Kubernetes keeps them: one of each type, the transition time kept while the status stays."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from edgecloud.api.status import Condition, ConditionType, Reason, TrainingJobStatus


def get(status: TrainingJobStatus, kind: ConditionType) -> Condition | None:
    """The condition of that type, if there is one."""
    return next((condition for condition in status.conditions if condition.type == kind), None)


def is_true(status: TrainingJobStatus, kind: ConditionType) -> bool:
    condition = get(status, kind)
    return condition is not None and condition.status == "True"


def put(
    status: TrainingJobStatus,
    kind: ConditionType,
    value: Literal["True", "False", "Unknown"],
    reason: Reason,
    *,
    now: datetime,
    message: str = "",
    generation: int = 0,
) -> TrainingJobStatus:
    """The status with that condition set; the order of types stays."""
    old = get(status, kind)
    new = Condition(
        type=kind,
        status=value,
        reason=reason,
        message=message[:2048],
        last_transition_time=old.last_transition_time if old and old.status == value else now,
        observed_generation=generation,
    )
    if old is None:
        return status.model_copy(update={"conditions": (*status.conditions, new)})
    changed = tuple(new if condition.type == kind else condition for condition in status.conditions)
    return status.model_copy(update={"conditions": changed})


def of_generation(status: TrainingJobStatus, generation: int) -> TrainingJobStatus:
    """The status, and each of its conditions, as what this generation of the spec comes to.

    `kubectl wait` believes no condition that speaks of an earlier one, though it may have been true all the while.
    """
    spoken = tuple(
        condition.model_copy(update={"observed_generation": generation})
        if condition.observed_generation != generation
        else condition
        for condition in status.conditions
    )
    return status.model_copy(update={"observed_generation": generation, "conditions": spoken})
