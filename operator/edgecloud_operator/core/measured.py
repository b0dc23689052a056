"""How a measuring Pod ended, and what it measured: a stranger's word, held against what worker 0 published. Pure."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgecloud.api.job import TrainingJob
from edgecloud.strangers import one_line
from edgecloud_operator.core.exports import accepted
from edgecloud_operator.core.observed import Pod, Termination

MEASURED: Final = 0
UNUSABLE: Final = 2
"""There is nothing that could be measured: another try would find the same."""
GATE_FAILED: Final = 3
EDGE_FORMATS: Final = ("onnx", "onnx-int8")
"""What an edge node runs, of the formats that there are."""
MAX_WORDS: Final = 600
"""Characters of the program's own words in a message."""

Exports = tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class End:
    """What the end of a measuring Pod comes to. One of failed and again may be said.

    exports: status.exports with what was measured; None if nothing was. failed: why the job fails for it. again: why it
    came to nothing that another Pod might not bring.
    """

    exports: Exports | None = None
    failed: str | None = None
    again: str | None = None


class _RefusedError(Exception):
    """The message is not believed; str() says why."""


def read_end(job: TrainingJob, published: Sequence[dict[str, Any]], pod: Pod) -> End:
    """What the end of a Pod comes to. published: status.exports so far."""
    end = pod.termination
    if end is None:
        return End(again=_line(pod.why) or "the Pod was lost")
    if end.exit_code not in (MEASURED, GATE_FAILED, UNUSABLE):
        return End(again=_how(end, pod))
    if end.exit_code == UNUSABLE:
        return End(failed=_error(end) or "it said that there is nothing to be measured, and not why")
    try:
        measured = _measured(job, published, pod, end)
    except _RefusedError as refusal:
        return End(again=f"its termination message was refused: {refusal}")
    known = _by_format(published)
    exports = tuple(measured.get(str(one.get("format")), one) for one in published)
    exports += tuple(one for name, one in measured.items() if name not in known)
    return End(exports=exports, failed=_gates(job, measured, pod))


def _measured(
    job: TrainingJob, published: Sequence[dict[str, Any]], pod: Pod, end: Termination
) -> dict[str, dict[str, Any]]:
    """What was measured of what was asked for, by format.

    Raises:
        _RefusedError: the message says something else than it may.
    """
    entries = accepted(_said(end))
    if entries is None:
        raise _RefusedError("it is no list of measured models" if end.message else "it is empty")
    said = _by_format(entries)
    if len(said) < len(entries):
        raise _RefusedError("it names a format twice")
    if (end.exit_code == GATE_FAILED) != any(one["gate"] == "failed" for one in entries):
        raise _RefusedError(f"its gates contradict its exit code {end.exit_code}")
    asked = [name for name in EDGE_FORMATS if job.spec.export and name in job.spec.export.formats]
    if missing := [name for name in asked if name not in said]:
        raise _RefusedError(f"it says nothing of {' and '.join(missing)}")
    known = _by_format(published)
    for name in asked:
        theirs, ours = said[name]["sha256"], known.get(name, {}).get("sha256")
        if ours is not None and ours != theirs:
            raise _RefusedError(
                f"it speaks of another {name} than worker 0 wrote: sha256 {theirs[:12]}…, not {str(ours)[:12]}…"
            )
    return {name: said[name] | ({"node": pod.node} if pod.node else {}) for name in asked}


def _by_format(exports: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries of status.exports, which anybody may have edited, by format."""
    return {name: one for one in exports if isinstance(name := one.get("format"), str)}


def _gates(job: TrainingJob, measured: dict[str, dict[str, Any]], pod: Pod) -> str | None:
    """What is said of models that lose too much; None if there are none."""
    lost = [f"{name} (accuracy {one['accuracy']:.2%})" for name, one in measured.items() if one["gate"] == "failed"]
    if not lost:
        return None
    limit = job.spec.export.max_accuracy_loss if job.spec.export else 0.0
    where = f"measured on {pod.node}" if pod.node else "as it was measured"
    return (
        f"{' and '.join(lost)}, {where}: more is lost than the {limit:g} percentage points of export.maxAccuracyLoss;"
        " raise calibrationImages or the limit, in a job of another name"
    )


def _said(end: Termination) -> Any:
    try:
        return json.loads(end.message)
    except (ValueError, RecursionError):
        return None


def _error(end: Termination) -> str:
    """What the program said of its own failure, in one line."""
    said = _said(end)
    return _line(said.get("error")) if isinstance(said, dict) else ""


def _how(end: Termination, pod: Pod) -> str:
    """How a program ended that measured nothing."""
    if end.out_of_memory:
        return "it was killed, out of memory: export.measureOn.resources sets the limit"
    words = _error(end) or _line(pod.why)
    try:
        how = f"killed by {signal.Signals(end.exit_code - 128).name}"
    except ValueError:
        how = f"exit code {end.exit_code}"
    return f"{words} ({how})" if words else f"it ended with {how}" if how.startswith("exit") else f"it was {how}"


def _line(text: Any) -> str:
    """A stranger's words as one bounded line."""
    return one_line(text, MAX_WORDS) if isinstance(text, str) else ""
