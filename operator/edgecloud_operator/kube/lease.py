"""Who leads, by a Lease: the decisions. Pure: what stands at the server and this process's clock come from outside.

No two clocks are compared. A replica counts, on its own clock, how long the Lease has not changed under its eyes; a
holder counts from the moment at which it began to write, and stops to act before any other may begin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

DURATION_SECONDS: Final = 8.0
"""A Lease that has not changed for so long may be taken."""
ACT_SECONDS: Final = 5.0
"""A holder acts for so long after its last renewal. The rest of the duration is for what is on its way then."""
RETRY_SECONDS: Final = 1.0
"""Between two renewals, and between two looks at another's Lease."""
MAX_DURATION: Final = 3600.0
"""Whatever a Lease says of itself: a forged one must not keep everybody out for ever."""
MAX_HOLDER: Final = 512


@dataclass(frozen=True, kw_only=True)
class Record:
    """A Lease as it stands at the server. holder is empty where it was given back."""

    holder: str
    duration: float
    version: str
    transitions: int = 0


@dataclass(frozen=True)
class Seen:
    """A Lease, and when, on this process's clock, it was first seen as it is."""

    record: Record
    since: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do now.

    create: there is none. take: nobody holds it any more. renew: it is ours. wait: another one holds it.
    """

    do: Literal["create", "take", "renew", "wait"]
    seconds: float = 0.0
    """wait: how long, before the next look."""


def looked(before: Seen | None, record: Record, now: float) -> Seen:
    """What is known after a look at the Lease."""
    return before if before is not None and before.record == record else Seen(record, now)


def next_step(seen: Seen | None, me: str, now: float) -> Step:
    """What a replica does about the Lease that it has just looked at; None: there is none."""
    if seen is None:
        return Step(do="create")
    record = seen.record
    if record.holder == me:
        return Step(do="renew")
    if not record.holder:
        return Step(do="take")
    left = seen.since + min(max(record.duration, DURATION_SECONDS), MAX_DURATION) - now
    return Step(do="wait", seconds=min(left, RETRY_SECONDS)) if left > 0 else Step(do="take")


def may_act(renewed: float | None, now: float) -> bool:
    """Whether a holder may still write. renewed: when it began the last renewal that succeeded; None: it never held."""
    return renewed is not None and now - renewed < ACT_SECONDS


def may_speak(renewed: float | None, now: float) -> bool:
    """Whether a holder still answers workers: until another one may have taken its place."""
    return renewed is not None and now - renewed < DURATION_SECONDS


def read(raw: Any) -> Record:
    """A Lease object, as anybody may have mangled it."""
    whole = raw if isinstance(raw, dict) else {}
    metadata, spec = (value if isinstance(value := whole.get(key), dict) else {} for key in ("metadata", "spec"))
    holder, duration, transitions = (
        spec.get(f"{key}") for key in ("holderIdentity", "leaseDurationSeconds", "leaseTransitions")
    )
    version = metadata.get("resourceVersion")
    seconds = duration if isinstance(duration, int) and not isinstance(duration, bool) else 0
    return Record(
        holder=holder[:MAX_HOLDER] if isinstance(holder, str) else "",
        duration=float(min(seconds, MAX_DURATION)) if seconds > 0 else DURATION_SECONDS,
        version=version if isinstance(version, str) and re.fullmatch("[0-9]{1,20}", version) else "",
        transitions=transitions if isinstance(transitions, int) and 0 <= transitions < 2**31 - 1 else 0,
    )


def build(namespace: str, name: str, me: str, now: datetime, record: Record | None, raw: Any = None) -> dict[str, Any]:
    """The Lease with us as its holder; record and raw: what stands there, if there is one."""
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": me, "leaseDurationSeconds": int(DURATION_SECONDS), "renewTime": moment}
    if record is not None and record.holder == me:
        said = raw.get("spec") if isinstance(raw, dict) else None
        acquired = said.get("acquireTime") if isinstance(said, dict) else None
        spec |= {"acquireTime": acquired or moment, "leaseTransitions": record.transitions}
    else:
        spec |= {"acquireTime": moment, "leaseTransitions": record.transitions + 1 if record else 0}
    metadata: dict[str, Any] = {"namespace": namespace, "name": name}
    if record is not None:
        metadata["resourceVersion"] = record.version
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def given_back(body: dict[str, Any]) -> dict[str, Any]:
    """The same Lease without a holder: whoever comes next need not wait."""
    return body | {"spec": body["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}}
