"""What EdgeCloud reports: `status` of a TrainingJob, and the closed lists of its conditions and reasons."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgecloud.api.base import Model, Time
from edgecloud.api.types import MAX_WORKERS, Count, Fraction, PassedThrough

Phase = Literal["Pending", "Starting", "Running", "Recovering", "Suspended", "Succeeded", "Failed"]
ConditionType = Literal["Accepted", "Running", "Blocked", "Stalled", "Suspended", "Complete", "Failed"]
Reason = Literal[
    # Accepted
    "Accepted",
    # Running; the first one Blocked as well
    "WaitingForWorkers",
    "RendezvousOpened",
    "WorkersRunning",
    "RoundClosed",
    "Resizing",
    "Measuring",
    "Finished",
    # Blocked
    "NotBlocked",
    "NameTaken",
    "Unschedulable",
    "ErrImagePull",
    "CreateContainerConfigError",
    "QuotaExceeded",
    "AdmissionDenied",
    "VolumeNotBound",
    "VolumeNotDetached",
    "CoordinatorUnreachable",
    "WorkerSilent",
    "ModelUnreachable",
    # Stalled
    "Progressing",
    "NoProgress",
    # Suspended
    "NotSuspended",
    "Stopping",
    "Suspended",
    # Complete, Failed
    "AllWorkersSucceeded",
    "NotFinished",
    "RestartBudgetExceeded",
    "BadConfiguration",
    "ExportFailed",
    "ExitCodeRule",
    "StartDeadlineExceeded",
    "ActiveDeadlineExceeded",
    "StatusEdited",
]
TERMINAL: tuple[Phase, ...] = ("Succeeded", "Failed")

Round = Annotated[int, Field(ge=0, le=10**9)]
Message = Annotated[str, Field(max_length=2048)]
Index = Annotated[int, Field(ge=0, lt=MAX_WORKERS)]
PodUid = Annotated[str, Field(min_length=1, max_length=64)]
Summary = Annotated[str, Field(max_length=64)]


class Condition(Model):
    """One aspect of the job's state, as Kubernetes' conventions have it."""

    type: ConditionType = Field(description="Aspect that this is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Reason = Field(description="Why, in one word of a closed list.")
    message: Message = Field("", description="Why, in a sentence, with the remedy where one is needed.")
    last_transition_time: Time = Field(description="Since when status is what it is.")
    observed_generation: Count = Field(0, description="Generation of the spec that this speaks of.")


class SummaryStatus(Model):
    """The strings that `kubectl get` shows."""

    workers: Summary = Field("", description="Ready and wanted workers, such as 3/4.")
    progress: Summary = Field("", description="Progress, such as 41%.")
    eta: Summary = Field("", description="Time to the end, such as 3m.")
    loss: Summary = Field("", description="Newest loss, to four digits.")
    accuracy: Summary = Field("", description="Newest accuracy, such as 97.8%.")
    samples_per_second: Summary = Field("", description="Throughput of all workers together.")
    reason: Summary = Field("", description="Reason of the condition that matters most now.")


class ProgressStatus(Model):
    """How far the training is."""

    percent: Annotated[float, Field(ge=0, le=100)] | None = Field(None, description="Part done, in percent.")
    step: Count | None = Field(None, description="Newest step done.")
    total_steps: Count | None = Field(None, description="Steps in all.")
    epoch: Annotated[float, Field(ge=0)] | None = Field(None, description="Newest epoch.")
    loss: float | None = Field(None, description="Newest training loss.")
    accuracy: Fraction | None = Field(None, description="Newest accuracy reported.")
    samples_per_second: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Samples a second, all workers together."
    )
    eta_seconds: Count | None = Field(None, description="Seconds to the end at the newest speed.")
    metrics: Annotated[dict[str, float], Field(max_length=32)] | None = Field(
        None, description="Further values that the program reports."
    )
    reported_at: Time | None = Field(None, description="When the newest step was reported.")


class WorkersStatus(Model):
    """How many workers there are."""

    desired: Count = Field(0, description="Workers wanted.")
    ready: Count = Field(0, description="Workers that the coordinator hears.")


class Member(Model):
    """A worker's place in a round; its position in the list fixes its ranks."""

    index: Index = Field(description="Index of the worker.")
    pod_uid: PodUid = Field(description="Pod that plays it in this round.")


class Rendezvous(Model):
    """The round of the moment; it never goes back."""

    round: Round = Field(0, description="Number of the newest round.")
    members: Annotated[tuple[Member, ...], Field(max_length=MAX_WORKERS)] = Field(
        (), description="Who takes part, in the order of ranks; empty: the round is closed and the next not yet open."
    )
    opened_at: Time | None = Field(None, description="When the round was opened.")
    stopping: bool | None = Field(
        None, description="Whether it was called to stop at a checkpoint for one with other members."
    )


class Budget(Model):
    """What the restart budget is reckoned from; it comes back when the checkpointed step advances."""

    spent: Count = Field(0, description="Failures paid since the checkpointed step last advanced.")
    unpaid: Count = Field(0, description="Unpaid restarts in a row since then.")
    checkpoint_step: Count = Field(0, description="Checkpointed step at the last failure.")
    highest_step: Count = Field(0, description="Highest checkpointed step at any failure.")
    falls: Count = Field(0, description="Failures at a lower checkpointed step than the one before, since then.")
    rejected: Count = Field(
        0, description="Times in a row that Pods came to nothing by no failure of a round, since one was last opened."
    )
    paid_pods: Annotated[tuple[PodUid, ...], Field(max_length=MAX_WORKERS)] = Field(
        (), description="Dead Pods that still exist and whose end has been reckoned with."
    )


class LastFailure(Model):
    """The first cause of the newest failure."""

    worker: Index = Field(description="Index of the worker.")
    rank: Count | None = Field(None, description="Rank of the process.")
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = Field(None, description="Its exit code.")
    signal: Annotated[str, Field(max_length=16)] | None = Field(None, description="Signal that ended it.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="What happened, in one word.")
    message: Message = Field("", description="Its last lines.")
    node: Annotated[str, Field(max_length=253)] = Field("", description="Node that it ran on.")
    round: Round = Field(description="Round that it was in.")
    at: Time = Field(description="When it failed.")


class CheckpointStatus(Model):
    """The newest checkpoint."""

    step: Count = Field(description="Step that it was written after.")
    path: Annotated[str, Field(max_length=1024)] | None = Field(None, description="Where it lies in the job's storage.")
    weights_sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="weightsSha256", description="Digest of the weights."
    )


class EvaluationStatus(Model):
    """The model on the test images."""

    accuracy: Fraction | None = Field(None, description="Part of the test images classified rightly.")
    correct: Count | None = Field(None, description="Test images classified rightly.")
    total: Count | None = Field(None, description="Test images.")
    details: PassedThrough | None = Field(None, description="Interval, per class and confusion.")


class MeasuringStatus(Model):
    """The last stage of a job with export.measureOn: the training is complete, and its models are being measured."""

    since: Time = Field(description="When the training was complete.")
    pod_uid: PodUid | None = Field(None, description="Pod that measures, or was the last to.")
    ended_pod_uid: PodUid | None = Field(None, description="Newest Pod whose end has been reckoned with.")
    failures: Count = Field(0, description="Pods that came to nothing.")
    failed_at: Time | None = Field(None, description="When the newest of them was reckoned with.")
    message: Message = Field("", description="Why it came to nothing.")


class TrainingJobStatus(Model):
    """What is known of a job; everything that must survive a restart of the operator stands here."""

    phase: Phase = Field("Pending", description="Where the job is in its life.")
    observed_generation: Count = Field(0, description="Generation of the spec that was last acted on.")
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = Field(
        (),
        description="Aspects of the state, by type.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    summary: SummaryStatus | None = Field(None, description="What kubectl get shows.")
    progress: ProgressStatus | None = Field(None, description="How far the training is.")
    workers: WorkersStatus | None = Field(None, description="How many workers there are.")
    ready_workers: Count = Field(0, description="workers.ready again, for the scale subresource.")
    selector: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Label selector of the worker Pods, for the scale subresource."
    )
    rendezvous: Rendezvous | None = Field(None, description="The round of the moment.")
    restarts: Count = Field(0, description="Failures that were paid for.")
    budget: Budget | None = Field(None, description="What the restart budget is reckoned from.")
    last_failure: LastFailure | None = Field(None, description="First cause of the newest failure.")
    checkpoint: CheckpointStatus | None = Field(None, description="The newest checkpoint.")
    image: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Image pinned when the job was accepted, or resumed."
    )
    evaluation: EvaluationStatus | None = Field(None, description="The model on the test images.")
    performance: PassedThrough | None = Field(None, description="Speed, waits and efficiency.")
    exports: Annotated[tuple[PassedThrough, ...], Field(max_length=16)] | None = Field(
        None, description="Converted models and their measures."
    )
    measuring: MeasuringStatus | None = Field(
        None, description="Where measuring on a node of its own is; there once the training is complete."
    )
    gpu_seconds: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="GPU time of the rounds that have ended: whole GPUs of their members times seconds since each was"
        " opened.",
    )
    start_time: Time | None = Field(None, description="When the job was accepted, or resumed.")
    running_time: Time | None = Field(None, description="When it first ran since then.")
    completion_time: Time | None = Field(None, description="When it ended.")
