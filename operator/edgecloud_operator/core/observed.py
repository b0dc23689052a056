"""What a shell has seen of one job's world: the input of every decision, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from edgecloud.api.status import Reason
from edgecloud.protocol import FailureReport, PollRequest, RoundNumber

Role = Literal["worker", "measure"]
PodPhase = Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]


@dataclass(frozen=True, kw_only=True)
class Termination:
    """What a worker left behind when it ended: its exit code and the launcher's termination message."""

    exit_code: int
    round: RoundNumber = 0
    outcome: Literal["succeeded", "preempted", "failed", "none"] = "none"
    failure: FailureReport | None = None
    out_of_memory: bool = False
    message: str = ""
    """What the program of a measuring Pod said, as it is; a launcher's message is in the fields above."""


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A Pod of a job's as the API server, or the local run, shows it."""

    name: str
    uid: str
    index: int
    """Of a worker; else 0."""
    phase: PodPhase
    created_at: datetime
    role: Role = "worker"
    """Whether it is a worker, or measures the converted models when the workers are done."""
    owned: bool = True
    """Whether the job's uid stands in its ownerReferences; a foreign Pod of our name is never touched."""
    leftover: bool = False
    """Whether another TrainingJob owns it: an earlier one of this name, which is gone; its garbage is collected."""
    terminating: bool = False
    leaves_by: datetime | None = None
    """When one that is being deleted is to be gone at the latest."""
    finalizers: tuple[str, ...] = ()
    """What has to let go of it before it goes; the first few."""
    placed_at: datetime | None = None
    """When it got its node; None if it has none, or nothing tells."""
    waits_since: datetime | None = None
    """Since when it has waited on its node to be started there; None if it does not."""
    running_since: datetime | None = None
    node: str = ""
    termination: Termination | None = None
    blocked: tuple[Reason, str] | None = None
    """Why it does not come up: reason and the cluster's own words."""
    over: bool = False
    """Whether its own container has ended. A container beside it may run on, and the phase with it."""
    why: str = ""
    """Why it failed where that was not its own program's doing, in the cluster's own words."""

    @property
    def dead(self) -> bool:
        """Whether its worker, or its measuring, has ended: no container of a Pod is ever started again."""
        return self.over or self.finished

    @property
    def finished(self) -> bool:
        """Whether nothing runs in it any more."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class Service:
    """The headless Service as it is."""

    name: str
    uid: str
    owned: bool = True
    leftover: bool = False
    """As of a Pod."""


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """The newest word of a worker's launcher."""

    report: PollRequest
    heard_at: datetime
    since: datetime
    """When this operator first heard the state that the report is in."""
    first_step: tuple[int, float] | None = None
    """Step and epoch seconds, by the worker's clock, of the first progress heard in the round, for the speed."""
    progress_at: float = 0.0
    """Epoch seconds, by this operator's clock, of the report's progress: a worker's own clock may be wrong."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """All that was seen."""

    pods: tuple[Pod, ...] = ()
    """The workers'."""
    measurers: tuple[Pod, ...] = ()
    """Pods that measure; there is one name for them, so that a second one can only be about to be forgotten."""
    service: Service | None = None
    launchers: Mapping[str, Launcher] = field(default_factory=dict)
    """By Pod uid; a vanished Pod's last word stays while it is a member of the round."""
    refused: tuple[Reason, str] | None = None
    """Why the API server does not take a child: reason and its own words; None once it has taken them all."""
    refused_since: datetime | None = None
    """Since when it has not, for that reason."""
    listening_since: datetime
    """When this operator began to hear launchers: silence before that says nothing."""
