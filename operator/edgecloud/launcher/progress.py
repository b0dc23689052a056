"""What a progress report may hold: values of any kind go in, the protocol's fields come out.

Used at both ends of the channel. In the training process it turns whatever `float()` takes (numbers, numpy and torch
scalars) into plain numbers; in the launcher it is the check on a file that an untrusted process wrote.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

MAX_COUNT = 2**53
MAX_METRICS = 32
MAX_NAME = 63

COUNTS = ("step", "totalSteps", "checkpointStep")
RANGES = {
    "epoch": (0.0, 1e9),
    "loss": (-math.inf, math.inf),
    "accuracy": (0.0, 1.0),
    "samplesPerSecond": (0.0, 1e12),
}
DOCUMENTS = ("checkpoint", "evaluation", "performance", "exports")
"""Parts of a report that are JSON objects of the program's own making; the operator looks at them with its models."""
MAX_DOCUMENT = 2400
"""Bytes of one of them: all four, and the numbers, fit the channel."""
MAX_ENTRIES = 64
MAX_DEPTH = 8
"""Lists and objects round a value, the document itself counted: the protocol's own bound."""
_ROUNDING = 1e-6
"""A mean of float32 values may come out a little above 1."""


def number(value: Any) -> float | None:
    """A finite float, or None for what is none. Never raises."""
    if value is None or isinstance(value, (str, bytes, bytearray)):
        return None
    try:
        result = float(value)
    except Exception:
        return None
    return result if math.isfinite(result) else None


def count(value: Any) -> int | None:
    """A whole number from 0 to 2**53, or None for what is none. Never raises."""
    try:
        result = operator.index(value)
    except Exception:
        as_float = number(value)
        if as_float is None:
            return None
        result = int(as_float)
    return result if 0 <= result <= MAX_COUNT else None


def metric_name(name: str) -> str:
    """At most 63 characters that can be printed (and so no lone surrogates, which JSON readers refuse)."""
    return "".join(character for character in name[: 4 * MAX_NAME] if character.isprintable())[:MAX_NAME]


def metrics(values: Mapping[Any, Any]) -> dict[str, float]:
    """The first 32 metrics that are finite numbers."""
    kept: dict[str, float] = {}
    for name, value in values.items():
        key, as_float = metric_name(str(name)), number(value)
        if key and as_float is not None and (key in kept or len(kept) < MAX_METRICS):
            kept[key] = as_float
    return kept


def fitted(value: Any) -> dict[str, Any] | None:
    """A document as plain JSON of at most MAX_DOCUMENT bytes, or None. Never raises.

    What is no plain JSON, or too deep, goes, and then the largest entries until the rest fits.
    """
    kept: dict[str, Any] = {}
    for key, entry in value.items() if isinstance(value, Mapping) else ():
        try:
            copy = json.loads(json.dumps(entry, allow_nan=False))
        except Exception:  # noqa: S112  (not JSON: it is left out)
            continue
        if plain(copy, MAX_DEPTH - 1):
            kept[metric_name(str(key))] = copy
    while kept and document(kept) is None:
        del kept[max(kept, key=lambda key: len(json.dumps(kept[key])))]
    return kept or None


def left_out(value: Any, kept: Mapping[str, Any] | None) -> list[str]:
    """The names of the entries that `fitted` left out."""
    names = [metric_name(str(key)) for key in value] if isinstance(value, Mapping) else []
    return [name for name in names if name not in (kept or {})]


def document(value: Any) -> dict[str, Any] | None:
    """A JSON object of at most MAX_DOCUMENT bytes that every JSON reader takes, or None. Never raises."""
    if not isinstance(value, dict) or len(value) > MAX_ENTRIES or not plain(value):
        return None
    return value if len(json.dumps(value, separators=(",", ":"))) <= MAX_DOCUMENT else None


def plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether every JSON reader takes this: no lone surrogates, no numbers out of range, no depth without end.

    A coordinator that refuses a poll for such a thing would refuse this worker's polls for ever.
    """
    if depth < 0:
        return False
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(key) and plain(entry, depth - 1) for key, entry in value.items())
    if isinstance(value, list):
        return all(plain(entry, depth - 1) for entry in value)
    if isinstance(value, int):  # a bool is one
        return abs(value) <= MAX_COUNT
    return value is None or (isinstance(value, float) and math.isfinite(value))


def clean(raw: Any) -> dict[str, Any]:
    """The fields of a ProgressReport (camelCase) that are in `raw` and in order; without `reportedAt`."""
    if not isinstance(raw, dict):
        return {}
    report: dict[str, Any] = {}
    for field in COUNTS:
        whole = count(raw.get(field))
        if whole is not None:
            report[field] = whole
    for field, (low, high) in RANGES.items():
        value = number(raw.get(field))
        if value is not None and low <= value <= high * (1 + _ROUNDING):
            report[field] = min(value, high)
    for field in DOCUMENTS:
        if (found := document(raw.get(field))) is not None:
            report[field] = found
    if isinstance(raw.get("metrics"), dict):
        kept = metrics(raw["metrics"])
        if kept:
            report["metrics"] = kept
    return report


def received(raw: Any) -> dict[str, Any] | None:
    """A whole ProgressReport out of what a process wrote, or None if it has no step or no time."""
    report = clean(raw)
    at = number(raw.get("reportedAt")) if isinstance(raw, dict) else None
    if "step" not in report or at is None or not 0 <= at <= 1e11:
        return None
    report["reportedAt"] = at
    return report


def merge(reports: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """One report for a worker: of each value the newest, whichever of its processes said it."""
    merged: dict[str, Any] = {}
    together: dict[str, float] = {}
    for report in sorted(reports, key=lambda one: float(one["reportedAt"])):
        merged.update(report)
        together.update(report.get("metrics", {}))
    if together:
        merged["metrics"] = dict(list(together.items())[:MAX_METRICS])
    return merged or None
