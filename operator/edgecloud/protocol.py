"""The worker protocol: what a launcher says to the coordinator, and what it is told.

One endpoint, `POST /v1/namespaces/{namespace}/trainingjobs/{name}/workers/{index}/poll`, JSON both ways, with
`Authorization: Bearer <token>`. A launcher keeps one poll open (`hold` up to 10 s, answered as soon as the directive
is another than the one it acknowledges) and sends a second one with `hold: 0` whenever its own state changes or
progress is due.

The launcher is written with the standard library alone and so speaks these models as plain dicts; a test holds both
together.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from edgecloud.api.base import Model
from edgecloud.strangers import plain, plain_lines

VERSION: Final = 1
"""The version spoken here. The one before it is understood too, from version 2 on."""
OLDEST_VERSION: Final = 1
MAX_BODY_BYTES: Final = 64 * 1024
MAX_HOLD_SECONDS: Final = 10.0
MAX_MESSAGE: Final = 2048

State = Literal["idle", "running", "stopping", "succeeded", "failed", "preempted"]
"""idle: no process, ready for a round. running: the processes of `round` are alive. stopping: they are being stopped.
succeeded, failed, preempted: how `round` ended for this worker; nothing of it is alive."""

Action = Literal["wait", "run", "stop", "exit"]

FailureReason = Literal[
    "ProgramError",
    "BadConfiguration",
    "Transient",
    "Killed",
    "OutOfMemory",
    "NonFinite",
    "StartFailed",
    "PortTaken",
    "GPUNotVisible",
    "ExportFailed",
    "Stalled",
    "PodLost",
]
"""Why a process, or a whole worker, failed. PodLost and Stalled only the operator sees; the launcher names the rest."""

Step = Annotated[int, Field(ge=0, le=2**53)]
Text = Annotated[str, Field(max_length=MAX_MESSAGE), AfterValidator(plain_lines)]
Name = Annotated[str, AfterValidator(plain)]
"""As a Text, it comes to be seen in conditions, Events and status: what a terminal would obey is taken out here."""
Uid = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
RoundNumber = Annotated[int, Field(ge=0, le=10**9)]
Port = Annotated[int, Field(ge=1, le=65535)]
EpochSeconds = Annotated[float, Field(ge=0, le=1e11)]


MAX_DOCUMENT_DEPTH: Final = 8


def _storable(value: Any, depth: int = 0) -> Any:
    """JSON that an API server stores: no NaN, no number beyond a double's, not too deep.

    Raises:
        ValueError: for anything else; one such value in a status would block every later write of it.
    """
    if depth > MAX_DOCUMENT_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DOCUMENT_DEPTH}")
    if isinstance(value, dict):
        return {str(key): _storable(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(entry, depth + 1) for entry in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        raise ValueError("a whole number beyond 2 ** 53")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that is not finite")
    return value


Document = Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_storable)]
"""A JSON object of the program's own making; bounded with the request."""


class ProgressReport(Model):
    """The newest values that the processes of one worker reported; a missing one was not reported."""

    step: Step
    total_steps: Step | None = None
    epoch: Annotated[float, Field(ge=0, le=1e9)] | None = None
    loss: float | None = None
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    samples_per_second: Annotated[float, Field(ge=0, le=1e12)] | None = None
    checkpoint_step: Step | None = None
    metrics: Annotated[dict[Annotated[Name, Field(max_length=63)], float], Field(max_length=32)] = Field(
        default_factory=dict
    )
    checkpoint: Document | None = None
    evaluation: Document | None = None
    performance: Document | None = None
    exports: Document | None = None
    """{"exports": [...]}: an entry for each converted model."""
    reported_at: EpochSeconds


class FailureReport(Model):
    """How the first of a worker's processes to fail ended."""

    local_rank: Annotated[int, Field(ge=0, le=1023)]
    rank: Annotated[int, Field(ge=0, le=10**6)]
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    signal: Annotated[str, Field(max_length=16, pattern=r"^SIG[A-Z0-9+-]+$")] | None = None
    reason: FailureReason
    message: Text = ""
    at: EpochSeconds
    seen_round: RoundNumber | None = None
    """A round whose traces the process met in its storage: the next one has to be above it."""


class Acknowledged(Model):
    """The last directive that a launcher took up."""

    action: Action
    round: RoundNumber


class PollRequest(Model):
    """What a launcher says."""

    protocol: Annotated[int, Field(ge=1, le=1000)]
    job_uid: Uid
    pod_uid: Uid
    sequence: Annotated[int, Field(ge=1, le=2**53)]
    """Rises with every request of one launcher process; a request that is not newer than the last one is refused."""
    hold: Annotated[float, Field(ge=0, le=MAX_HOLD_SECONDS)] = 0.0
    """Seconds that the answer may be kept back while there is nothing new to say."""
    round: RoundNumber
    """The round that state, progress and failure speak of; 0 before the first."""
    state: State
    draining: bool = False
    """The worker was asked from outside (SIGTERM) to leave: the others should stop with it at a checkpoint."""
    address: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:%_-]+$")]
    """Where the other workers reach this one."""
    port: Port | None = None
    """The rendezvous port in use in `round`."""
    next_port: Port
    """A port that was free a moment ago, for the next round."""
    node: Annotated[Name, Field(max_length=253)] = ""
    ack: Acknowledged | None = None
    progress: ProgressReport | None = None
    failure: FailureReport | None = None
    asks: bool = False
    """A process of `round` looks at the stop flag; only said to a coordinator whose directives say `asked`."""


class RunOrder(Model):
    """A worker's part in a round."""

    first_rank: Annotated[int, Field(ge=0)]
    """Rank of the worker's local rank 0."""
    world_size: Annotated[int, Field(ge=1)]
    processes: Annotated[int, Field(ge=1)]
    """Processes to start here."""
    group_rank: Annotated[int, Field(ge=0)]
    """The worker's place among the members."""
    group_size: Annotated[int, Field(ge=1)]
    master_address: str
    master_port: Port


class Directive(Model):
    """What a launcher is told."""

    protocol: int = VERSION
    action: Action
    round: RoundNumber
    """run: the round to take part in. Else the newest round."""
    run: RunOrder | None = None
    grace_seconds: float = 30.0
    """stop: how long the processes may take to save and leave before they are killed."""
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    """exit: what the launcher ends with."""
    reason: str = ""
    """A sentence for the worker's log."""
    report_seconds: float = 1.0
    """How often progress is wanted."""
    asked: bool = False
    """stop: a process of the round, of any worker, looks at the stop flag. The others may learn of it from that one,
    and none is to be sent a SIGTERM before the grace is nearly over."""
