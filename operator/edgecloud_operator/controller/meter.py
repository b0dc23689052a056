"""What the control loop tells of itself to whoever counts; a shell without metrics has nobody count."""

from __future__ import annotations

from typing import Literal, Protocol

from edgecloud_operator.core.measures import Measures

Result = Literal["ok", "conflict", "error"]
"""conflict: the job has changed, or gone, since it was read; it is decided on anew."""


class Meter(Protocol):
    """Counts. What it does is quick, and it raises nothing."""

    def reconciled(self, result: Result, seconds: float) -> None:
        """A job was decided on and acted for, which took so long."""

    def waited(self, seconds: float) -> None:
        """A key was taken from the queue, so long after it could have been."""

    def changed(self, measures: Measures) -> None:
        """A status was written, with all that this counts for."""


class NoMeter:
    """Counts nothing."""

    def reconciled(self, result: Result, seconds: float) -> None:
        """Not counted."""

    def waited(self, seconds: float) -> None:
        """Not counted."""

    def changed(self, measures: Measures) -> None:
        """Not counted."""
