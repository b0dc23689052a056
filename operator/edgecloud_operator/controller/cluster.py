"""What a shell offers to the control loop: the few writes that a plan is made of."""

from __future__ import annotations

from typing import Any, Protocol

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Reason, TrainingJobStatus
from edgecloud_operator.core.plan import Delete, Event


class ConflictError(Exception):
    """The resource has changed since it was read; the change will be seen, and the decision made again."""


class GoneError(Exception):
    """The resource no longer exists."""


class RefusedError(Exception):
    """The API server does not take a child: a quota, an admission rule, or somebody else's stands in its place.

    Another try may succeed when somebody has put that right; the reason is shown in the job's Blocked condition.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class LaterError(Exception):
    """A write was not made, for what will soon pass by itself. Its turn comes in so many seconds."""

    def __init__(self, seconds: float, why: str = "too many writes were made just now") -> None:
        super().__init__(f"in {seconds:.1f} s: {why}")
        self.seconds = seconds


class AwayError(Exception):
    """The server is not there, or not able to answer. The same write may succeed later."""


class UnstartedError(AwayError):
    """A process that plays a Pod can't be started now; the message says of whom. Another attempt may succeed."""


class DeniedError(Exception):
    """The server takes none of these writes from us, as things are; the message says of which, and the remedy."""


class StandbyError(Exception):
    """This replica may not write at the moment: it cannot be sure to lead. What is decided now comes to nothing."""


class Cluster(Protocol):
    """The API server, as far as the control loop needs it.

    Every write may raise StandbyError, AwayError and DeniedError.
    """

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        """Replace a job's status, at the resourceVersion that it was read at, and return what then stands there.

        Raises:
            ConflictError: it has changed since.
            GoneError: there is no such job any more.
            LaterError: writes are bounded, and it is not this one's turn; a newer status may come in its place.
        """

    async def create(self, job: TrainingJob, child: dict[str, Any]) -> None:
        """Create a child. One of that name that exists already is no error: it will be seen, and judged.

        What the server returns is best shown to the control loop before this returns: a watch takes a while to tell
        of it, and what has not been seen is asked for again.

        Raises:
            RefusedError: the server takes no such child.
            LaterError: something is in its way that goes by itself.
        """

    async def delete(self, job: TrainingJob, target: Delete) -> None:
        """Delete a child if it still has that uid. One that is gone already is no error."""

    async def emit(self, job: TrainingJob, event: Event) -> None:
        """Record an event. May fail quietly: events are for people."""
