"""A suspended job at rest: its conditions; and what of any job does not outlive its Pods. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgecloud.api.status import Budget, Rendezvous, TrainingJobStatus
from edgecloud_operator.core import conditions
from edgecloud_operator.core.context import Context
from edgecloud_operator.core.failures import refreshed
from edgecloud_operator.core.observed import Observed, Pod
from edgecloud_operator.core.plan import Event, Plan

_ANEW: Final = "without spec.storage.claimName the job starts from the beginning when it is resumed"
_UNLESS: Final = ", unless the program keeps its checkpoints elsewhere"
_LOST: Final = (
    "no worker is left that had the checkpoints: without spec.storage.claimName, where they outlive the Pods, the job"
    " starts from the beginning"
)


def stopping(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """The Suspended condition of a job whose workers are told to stop."""
    words = f"stopping at a checkpoint, which goes with the Pods: {_ANEW}{_unless(context)}"
    return conditions.put(
        status,
        "Suspended",
        "Unknown",
        "Stopping",
        now=context.now,
        message=words if _loses(context, status) else "stopping at a checkpoint",
        generation=context.job.metadata.generation,
    )


def at_rest(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """The conditions of a suspended job: nothing blocks what is not meant to go on."""
    words = "stopped at a checkpoint; the workers are gone"
    if status.measuring is not None:
        words = "the training is complete; its converted models are measured when the job is resumed"
    elif not _round(status):
        words = "suspended before it has run; there are no workers"
    elif _loses(context, status):
        words = f"the workers are gone, and their checkpoints with them: {_ANEW}{_unless(context)}"
    status = context.put(status, "Suspended", True, "Suspended", words)
    status = context.put(status, "Running", False, "RoundClosed", "the job is suspended")
    status = context.put(status, "Blocked", False, "NotBlocked")
    return context.put(status, "Stalled", False, "Progressing")


def warned(context: Context, old: TrainingJobStatus, plan: Plan) -> Plan:
    """The plan that begins a suspension, with a word about what will be lost."""
    condition = conditions.get(old, "Suspended")
    begun = condition is not None and condition.reason == "Stopping"
    if begun or plan.status is None or not _loses(context, old):
        return plan
    return _with_word(plan, f"the checkpoints go with the Pods: {_ANEW}{_unless(context)}")


def warned_anew(context: Context, old: TrainingJobStatus, plan: Plan) -> Plan:
    """The plan of a decision that `begins_anew`, which says so. Who was suspended has been told then."""
    running = conditions.get(old, "Running")
    resumed = running is not None and running.reason == "WaitingForWorkers"
    return plan if resumed or plan.status is None else _with_word(plan, f"{_LOST}{_unless(context)}")


def without_lost(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """The status of a suspended job without the progress that went with its Pods, once they are gone."""
    # A program may keep its own elsewhere, such as in a bucket: what it reports next shows where it goes on from.
    program = context.job.spec.program is not None
    if (
        program
        or not _loses(context, status)
        or any(pod.owned and not pod.terminating for pod in context.observed.pods)
    ):
        return status
    # The budget comes back when a checkpoint is newer than this: the next ones begin at 0 again.
    budget = status.budget and status.budget.model_copy(update={"checkpoint_step": 0})
    return status.model_copy(update={"checkpoint": None, "progress": None, "budget": budget})


def begins_anew(context: Context, old: TrainingJobStatus, status: TrainingJobStatus) -> bool:
    """Whether this status opens a round with nobody who could go on from the progress of the rounds before."""
    known = (status.checkpoint, status.progress) != (None, None)
    opened = _round(status) > _round(old)
    if not (known and opened and _loses(context, old)):
        return False
    return not any(may_hold_copy(pod, context.observed) for pod in context.observed.pods)


def begun_anew(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """The status that `begins_anew`, without the progress that is lost; a program's stays until it reports its own."""
    # What was trained counts once more before it is lost; to lose it again and again gives no budget without end.
    budget = refreshed(status.budget or Budget(), status.checkpoint.step if status.checkpoint else 0)
    if context.job.spec.program is not None:
        return status.model_copy(update={"budget": budget})
    return status.model_copy(update={"checkpoint": None, "progress": None, "budget": refreshed(budget, 0)})


def may_hold_copy(pod: Pod, observed: Observed) -> bool:
    """Whether a worker that goes on living may hold a copy of what was trained, for all that is known of it.

    It was in a round; or it runs, and this operator has not heard it yet.
    """
    if not pod.owned or pod.dead or pod.terminating:
        return False
    launcher = observed.launchers.get(pod.uid)
    return pod.running_since is not None if launcher is None else launcher.report.round > 0


def _loses(context: Context, status: TrainingJobStatus) -> bool:
    """Whether what the job needs to go on goes with its Pods: there are checkpoints, and they lie in the Pods.

    Where a program keeps them in a volume of the template's own, if it does, nobody knows here.
    """
    spec = context.job.spec
    elsewhere = spec.program is not None and bool((spec.template().get("spec") or {}).get("volumes"))
    kept = context.settings.one_machine or elsewhere or spec.storage_or_default().claim_name is not None
    return not kept and status.measuring is None and _round(status) > 0


def _unless(context: Context) -> str:
    return _UNLESS if context.job.spec.program is not None else ""


def _with_word(plan: Plan, message: str) -> Plan:
    lost = Event(type="Warning", reason="CheckpointsLost", message=message)
    return replace(plan, events=(*plan.events, lost))


def _round(status: TrainingJobStatus) -> int:
    return (status.rendezvous or Rendezvous()).round
