"""The columns of `kubectl get trainingjobs`: the CRD's printer columns, and the same table without a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgecloud.api.job import TrainingJob


@dataclass(frozen=True)
class Column:
    """A printer column: one JSONPath of plain keys, as all of ours are."""

    name: str
    path: str
    type: str
    description: str
    wide: bool = False


COLUMNS: Final = (
    Column("Phase", ".status.phase", "string", "Where the job is in its life"),
    Column("Workers", ".status.summary.workers", "string", "Ready and wanted workers"),
    Column("Progress", ".status.summary.progress", "string", "Part of the training done"),
    Column("ETA", ".status.summary.eta", "string", "Time to the end"),
    Column("Loss", ".status.summary.loss", "string", "Newest training loss"),
    Column("Restarts", ".status.restarts", "integer", "Failures that were paid for"),
    Column("Accuracy", ".status.summary.accuracy", "string", "Newest accuracy", wide=True),
    Column("Samples/s", ".status.summary.samplesPerSecond", "string", "Samples a second", wide=True),
    Column("Round", ".status.rendezvous.round", "integer", "Number of the newest rendezvous round", wide=True),
    Column("Reason", ".status.summary.reason", "string", "Reason of the condition that matters", wide=True),
    Column("Age", ".metadata.creationTimestamp", "date", "Time since the job was created"),
)


_DAY: Final = 24 * 3600
_YEAR: Final = 365 * _DAY
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": _DAY, "y": _YEAR}
_FORMS: Final = (
    (120, "s"), (10 * 60, "ms"), (3 * 3600, "m"), (8 * 3600, "hm"), (2 * _DAY, "h"), (8 * _DAY, "dh"),
    (2 * _YEAR, "d"), (8 * _YEAR, "yd"), (math.inf, "y"),
)  # fmt: skip
"""Below so many seconds: the units that are named, one or two."""


def lookup(resource: dict[str, Any], path: str) -> Any:
    """The value at a path such as .status.phase; None where something on the way is missing."""
    value: Any = resource
    for key in path.removeprefix(".").split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def short_duration(seconds: float) -> str:
    """A length of time as kubectl prints ages: 45s, 3m12s, 10h, 5d6h, 40d (apimachinery's duration.HumanDuration)."""
    whole = max(0, int(seconds))
    form = next(form for limit, form in _FORMS if whole < limit)
    text, rest = "", whole
    for unit in form:
        count, rest = divmod(rest, _UNITS[unit])
        text += f"{count}{unit}" if count or not text else ""
    return text


def table(jobs: list[TrainingJob], now: datetime, *, wide: bool = False) -> str:
    """The jobs as `kubectl get trainingjobs` prints them, `-o wide` with wide.

    kubectl puts the columns in the CRD's order, and so does this.
    """
    columns = [column for column in COLUMNS if wide or not column.wide]
    rows = [["NAME", *(column.name.upper() for column in columns)]]
    for job in jobs:
        resource = job.dump()
        rows.append([job.metadata.name, *(_cell(column, resource, job, now) for column in columns)])
    widths = [max(len(row[place]) for row in rows) + 3 for place in range(len(rows[0]))]
    return "\n".join(
        "".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cell(column: Column, resource: dict[str, Any], job: TrainingJob, now: datetime) -> str:
    if column.type == "date":
        created = job.metadata.creation_timestamp
        return short_duration((now - created).total_seconds()) if created else "<unknown>"
    value = lookup(resource, column.path)
    return "" if value is None else str(value)
