"""What a decision comes to: writes to make, in this order, and words for the launchers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgecloud.api.status import TrainingJobStatus
from edgecloud.protocol import Directive


@dataclass(frozen=True, kw_only=True)
class Delete:
    """A child to delete, if it is still this one."""

    kind: Literal["Pod", "Service", "TrainingJob"]
    name: str
    uid: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a person who watches the job wants to know."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do now.

    status is the whole new status, or None where it is as it should be. With `status_first` nothing else of the plan is
    done: the shell writes the status and decides again on what the server returned.
    """

    status: TrainingJobStatus | None = None
    status_first: bool = False
    create: tuple[dict[str, Any], ...] = ()
    delete: tuple[Delete, ...] = ()
    directives: Mapping[str, Directive] = field(default_factory=dict)
    """By Pod uid."""
    events: tuple[Event, ...] = ()
    held: bool = False
    """Whether children are missing that must not be made yet: what half of a gang holds is to be given back first."""
    requeue_after: float | None = None
    """Seconds until time alone may change the decision."""
