"""What a decision comes to: writes to make, in this order, and words for the launchers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

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
class GivenBack:
    """That the workers which had places go, so that somebody else can use these. pause: seconds until all are made
    anew, of which up to a half may be left out by chance."""

    message: str
    pause: float


class Children(Sequence[dict[str, Any]]):
    """Children to create, each built when it is looked at, and anew each time.

    A thousand large Pods built at once would hold up all other jobs, and be built for nothing where creates have to
    wait.
    """

    def __init__(self, *builders: Callable[[], dict[str, Any]]) -> None:
        self._builders = builders

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> Children: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | Children:
        return Children(*self._builders[place]) if isinstance(place, slice) else self._builders[place]()

    def __len__(self) -> int:
        return len(self._builders)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do now.

    status is the whole new status, or None where it is as it should be. With `status_first` nothing else of the plan is
    done: the shell writes the status and decides again on what the server returned.
    """

    status: TrainingJobStatus | None = None
    status_first: bool = False
    create: Sequence[dict[str, Any]] = ()
    """What Pods need, before the Pods."""
    delete: tuple[Delete, ...] = ()
    directives: Mapping[str, Directive] = field(default_factory=dict)
    """By Pod uid."""
    events: tuple[Event, ...] = ()
    held: bool = False
    """Whether children are missing that must not be made yet: what half of a gang holds is to be given back first."""
    given_back: GivenBack | None = None
    """Said once, by the plan that deletes them."""
    requeue_after: float | None = None
    """Seconds until time alone may change the decision."""
