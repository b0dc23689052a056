"""What was seen of one job, and how the attempts to act on it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Reason
from edgecloud_operator.core.observed import Pod, Service

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 15.0
"""Pauses after writes that failed, twice as long each time: the reports that come in meanwhile don't shorten them."""


@dataclass
class Record:
    """What was seen of one job."""

    job: TrainingJob
    pods: dict[str, Pod] = field(default_factory=dict)
    service: Service | None = None
    last_write: datetime | None = None
    failures: int = 0
    """Attempts to act that have failed in a row."""
    retry_at: float = 0.0
    """Until when, on the loop's clock, none is made."""
    refused: tuple[Reason, str] | None = None
    """Why the newest attempt to create the missing children was refused, if it was."""
    refused_since: datetime | None = None
    """Since when each attempt has been refused for that reason."""
    refusals: int = 0
    """Such attempts in a row."""
    put_off: int = 0
    """How often in a row they were put off without being refused."""
    create_at: float = 0.0
    """Until when, on the loop's clock, no other is made. Everything else of the job goes on meanwhile."""


def pause_after(before: int, longest: float = LAST_RETRY_SECONDS) -> float:
    """Seconds until the next attempt, after so many failed ones before this."""
    return float(min(FIRST_RETRY_SECONDS * 2 ** min(before, 10), longest))
