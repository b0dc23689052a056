"""The brain: from a job and what is seen of it to what should be done now."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, Reason, Rendezvous, TrainingJobStatus
from edgecloud_operator.core import conditions, measuring, names
from edgecloud_operator.core.builders import EXTRA_GRACE_SECONDS, Settings, build_files, build_pod, build_service
from edgecloud_operator.core.context import Context
from edgecloud_operator.core.directives import directives
from edgecloud_operator.core.gang import given_back, half_gang, until_given_back, until_nobody_waits, whole_gang
from edgecloud_operator.core.healing import healed
from edgecloud_operator.core.health import (
    past_deadline,
    until_heard,
    waits_for_silence,
    with_blocked,
    with_phase,
    with_stalled,
)
from edgecloud_operator.core.measurer import measure_on, unreachable
from edgecloud_operator.core.members import blind, member_states
from edgecloud_operator.core.observed import Observed, Pod
from edgecloud_operator.core.plan import Children, Delete, Plan
from edgecloud_operator.core.progress import with_progress
from edgecloud_operator.core.reckoning import comes_to_nothing, free, pause, reckoned
from edgecloud_operator.core.resting import (
    at_rest,
    begins_anew,
    begun_anew,
    stopping,
    warned,
    warned_anew,
    without_lost,
)
from edgecloud_operator.core.rounds import advance, stopped
from edgecloud_operator.core.unmakeable import unmakeable


def reconcile(job: TrainingJob, observed: Observed, now: datetime, settings: Settings | None = None) -> Plan:
    """What to do about a job now.

    Applied twice it comes to the same as once; nothing is remembered between two calls but what stands in job.status.
    Pure: no I/O, no clock.
    """
    pods, measurers = (
        tuple(sorted(seen, key=lambda pod: (pod.index, pod.created_at, pod.uid)))
        for seen in (observed.pods, observed.measurers)
    )
    context = Context(job, replace(observed, pods=pods, measurers=measurers), now, settings or Settings())
    if job.metadata.deletion_timestamp is not None or job.spec.managed_by not in (None, names.CONTROLLER):
        return Plan()  # the garbage collector, or another controller, sees to it
    written = job.status or TrainingJobStatus()
    status = healed(job, written, context.observed, now)
    resumed = status.phase == "Suspended" and not job.spec.suspend
    if status.phase not in TERMINAL and (status.start_time is None or resumed):
        return _accept(context, status)
    if status != written:
        return context.plan(status, status, status_first=True)
    if status.phase in TERMINAL:
        return _finished(context, status)
    if job.spec.suspend:
        return _suspend(context, status)
    return _run(context, status) if status.measuring is None else _measure(context, status)


def _accept(context: Context, old: TrainingJobStatus) -> Plan:
    """Take the job on, for the first time or again after it was suspended: from here the deadlines run."""
    job = context.job
    update = {"start_time": context.now, "running_time": None, "phase": "Pending", "completion_time": None}
    # Whoever is dead now died in the life before this one.
    status = reckoned(old.model_copy(update=update), context.observed)
    if old.phase == "Suspended":
        status = without_lost(context, status)
    status = status.model_copy(update={"image": _pinned(context, old.image)})
    status = context.put(status, "Accepted", True, "Accepted")
    if status.measuring is not None:
        status = measuring.shown(context, status)
    elif job.spec.suspend:
        status = context.put(status, "Running", False, "RoundClosed", "the job is suspended")
    else:
        status = context.put(status, "Running", False, "WaitingForWorkers", "waiting for the workers to be heard")
    for kind, reason in (("Blocked", "NotBlocked"), ("Suspended", "NotSuspended"), ("Complete", "NotFinished")):
        status = context.put(status, kind, False, reason)  # type: ignore[arg-type]
    status = context.put(status, "Failed", False, "NotFinished")
    # With all that the next decision would add: a thousand jobs submitted together are a thousand writes the fewer.
    status = context.put(status, "Stalled", False, "Progressing")
    status = with_progress(job, status, context.observed, context.now, members_of=Rendezvous())
    return context.plan(old, status, status_first=True)


def _pinned(context: Context, before: str | None) -> str:
    """The image of the workers from here on.

    A job that is resumed takes up another one that its user names, unless there are workers of the one before. The
    default stays what it was: that of a newer operator may have another torch than the checkpoints were made with.
    """
    if before is None or not any(pod.owned and not pod.terminating for pod in context.observed.pods):
        return context.job.spec.image or before or context.settings.trainer_image
    return before


def _finished(context: Context, status: TrainingJobStatus) -> Plan:
    """A finished job: its launchers are sent home, and it goes when its time is up. It never gets a child again."""
    job, now = context.job, context.now
    told = directives(job, status, context.observed, stop=False)
    ttl, since = job.spec.ttl_seconds_after_finished, (now - (status.completion_time or now)).total_seconds()
    if ttl is not None and since >= ttl:
        gone = Delete(kind="TrainingJob", name=job.metadata.name, uid=job.metadata.uid or "")
        return Plan(directives=told, delete=(gone,))
    hanging, waits = _hanging(context, (*context.observed.pods, *context.observed.measurers), since)
    waits += [ttl - since] if ttl is not None else []
    rest: dict[str, Any] = {"directives": told, "delete": hanging, "requeue_after": min(waits, default=None)}
    if status.observed_generation >= job.metadata.generation:
        return Plan(**rest)  # whatever a newer operator would word differently stays as it was told
    return context.plan(status, status, **rest)  # an edit of ttlSecondsAfterFinished, say, was acted on


def _hanging(context: Context, pods: Iterable[Pod], since: float) -> tuple[tuple[Delete, ...], list[float]]:
    """Pods that should have ended by themselves, so many seconds after their end has come; and when more would be."""
    running = [pod for pod in pods if pod.owned and not pod.finished and not pod.terminating]
    left = [(pod, _may_stay(context, pod) - since) for pod in running]
    return tuple(_delete(pod) for pod, wait in left if wait <= 0), [wait for _, wait in left if wait > 0]


def _may_stay(context: Context, pod: Pod) -> float:
    """Seconds after its end has come that a Pod may run on.

    One whose worker has ended is kept, with its log, for as long as the kubelet gives a sidecar to end by itself. A
    worker is told to leave; a Pod that measures can't be.
    """
    if pod.role == "measure" and not pod.dead:
        return 0.0
    return EXTRA_GRACE_SECONDS + (context.job.spec.stop_grace_seconds if pod.dead else 0)


def _suspend(context: Context, old: TrainingJobStatus) -> Plan:
    """Stop at a checkpoint, then give the nodes back."""
    job, observed, now = context.job, context.observed, context.now
    rendezvous = old.rendezvous or Rendezvous()
    if old.phase == "Suspended":
        return _suspended(context, old)
    if old.measuring is not None:
        stage = measuring.advance(context, old)
        if stage.measured:
            return _succeed(context, old, stage.status)
        if stage.failed is not None:
            return _fail(context, old, stage.status, "ExportFailed", stage.failed)
        status = measuring.given_up(context, old)
        status = status.model_copy(update={"phase": "Suspended", "rendezvous": Rendezvous(round=rendezvous.round)})
        return context.plan(old, at_rest(context, status), status_first=True)
    states = member_states(job.spec, rendezvous, observed, now)
    status = with_progress(job, old, observed, now, members_of=rendezvous)
    if states and all(state.doing == "succeeded" for state in states):
        return _trained(context, old, status)
    condition = conditions.get(old, "Suspended")
    asked = condition.last_transition_time if condition and condition.reason == "Stopping" else None
    left = job.spec.stop_grace_seconds + EXTRA_GRACE_SECONDS - ((now - asked).total_seconds() if asked else 0.0)
    left = left if left > 0 else until_heard(context, old)
    if all(stopped(state, observed, now) for state in states) or left <= 0:
        update = {"phase": "Suspended", "rendezvous": Rendezvous(round=rendezvous.round)}
        status = status.model_copy(update=update)
        return warned(context, old, context.plan(old, at_rest(context, status), status_first=True))
    status = stopping(context, status)
    told = directives(job, old, observed, stop=True, awaits=until_heard(context, old) > 0)
    wait = min([left, *waits_for_silence(context, states)])
    return warned(context, old, context.plan(old, status, directives=told, requeue_after=max(0.05, wait)))


def _suspended(context: Context, old: TrainingJobStatus) -> Plan:
    """A suspended job: its Pods go, and nothing else changes until it is resumed."""
    job, observed = context.job, context.observed
    status = old.model_copy(update={"rendezvous": Rendezvous(round=(old.rendezvous or Rendezvous()).round)})
    status = without_lost(context, with_progress(job, status, observed, context.now, members_of=Rendezvous()))
    return context.plan(
        old,
        at_rest(context, status),
        delete=tuple(
            _delete(pod) for pod in (*observed.pods, *observed.measurers) if pod.owned and not pod.terminating
        ),
        directives=directives(job, old, observed, stop=False),
        requeue_after=min(waits_for_silence(context, ()), default=None),
    )


def _run(context: Context, old: TrainingJobStatus) -> Plan:
    """The life of a job that is neither finished nor suspended."""
    if (words := unmakeable(context.job, old)) and _missing(context):
        refused = replace(context.observed, refused=("AdmissionDenied", words))
        context = replace(context, observed=refused)
    job, observed, now = context.job, context.observed, context.now
    before = old.rendezvous or Rendezvous()
    status = with_progress(job, old, observed, now, members_of=before)
    step = advance(job, status, observed, now)
    anew = begins_anew(context, old, step.status)
    status = begun_anew(context, step.status) if anew else step.status
    if step.succeeded:
        return _trained(context, old, status)
    if step.failed:
        return _fail(context, old, status, *step.failed)
    if not step.stop:  # a stop that a suspension had asked for is over, or was not begun
        status = context.put(status, "Suspended", False, "NotSuspended")
    status = with_phase(context, status)
    overdue, deadline = past_deadline(context, status)
    if overdue:
        return _fail(context, old, status, *overdue)
    status, blocked_in = with_blocked(context, status)
    status, stalled_in = with_stalled(context, status)
    paused = pause(job, status, observed, now) or None
    states = member_states(job.spec, status.rendezvous or Rendezvous(), observed, now)
    waits = [
        wait
        for wait in (step.wait, deadline, blocked_in, stalled_in, paused, *waits_for_silence(context, states))
        if wait is not None
    ]
    waits += [wait for wait in (until_given_back(context), until_nobody_waits(context, status)) if 0 < wait < math.inf]
    # What must not go backwards is written before anything is done about it.
    first = status.rendezvous != old.rendezvous or status.restarts != old.restarts or status.budget != old.budget
    create, delete, held = _children(context, old)
    # One that measures what is trained again, for somebody has set the status back.
    delete += tuple(_delete(pod) for pod in observed.measurers if pod.owned and not pod.terminating)
    plan = context.plan(
        old,
        status,
        status_first=first,
        create=create,
        delete=delete,
        held=held,
        given_back=given_back(context, old),
        directives=directives(job, old, observed, stop=step.stop, awaits=until_heard(context, old) > 0),
        requeue_after=max(0.05, min(waits)) if waits else None,
    )
    return warned_anew(context, old, plan) if anew and step.status.checkpoint is not None else plan


def _measure(context: Context, old: TrainingJobStatus) -> Plan:
    """The last stage of a job that is measured on a node of its own: its workers leave, and one Pod measures."""
    job, observed, now = context.job, context.observed, context.now
    assert old.measuring is not None
    rendezvous = old.rendezvous or Rendezvous()
    stage = measuring.advance(context, with_progress(job, old, observed, now, members_of=rendezvous))
    if stage.measured:
        return _succeed(context, old, stage.status)
    if stage.failed is not None:
        return _fail(context, old, stage.status, "ExportFailed", stage.failed)
    status = context.put(measuring.shown(context, stage.status), "Suspended", False, "NotSuspended")
    overdue, deadline = past_deadline(context, status)
    if overdue:
        return _fail(context, old, status, *overdue)
    status, blocked_in = with_blocked(context, status)
    status = context.put(status, "Stalled", False, "Progressing")
    states = member_states(job.spec, rendezvous, observed, now)
    hanging, waits = _hanging(context, observed.pods, (now - old.measuring.since).total_seconds())
    waits += [wait for wait in (stage.wait, deadline, blocked_in) if wait is not None]
    waits += waits_for_silence(context, states)
    return context.plan(
        old,
        status,
        # Which Pod measures, and which one came to nothing, is written before another one is made.
        status_first=status.measuring != old.measuring,
        create=stage.create,
        delete=(*hanging, *stage.delete),
        directives=directives(job, old, observed, stop=False),
        requeue_after=max(0.05, min(waits)) if waits else None,
    )


def _children(context: Context, status: TrainingJobStatus) -> tuple[Sequence[dict[str, Any]], tuple[Delete, ...], bool]:
    """Children to create and to delete, by what stands in status; and whether creates are held back."""
    job, observed, settings = context.job, context.observed, context.settings
    if unreachable(job, settings):
        return (), _done(context, status), False
    if half := half_gang(context, status):
        # Then all or nothing again, but not before all are gone: who is on the way out holds what the others need.
        return (), tuple(_delete(pod) for pod in half if not pod.terminating), True
    if unmakeable(job, status):
        return (), _done(context, status), False
    if observed.service is None:
        # The Service last: where it is, the files were made as well, whatever happened in between.
        return tuple(child for child in (build_files(job), build_service(job)) if child), (), False
    missing = _missing(context)
    if not missing or not observed.service.owned or not whole_gang(job, observed):
        return (), _done(context, status), False
    image = status.image or job.spec.image or settings.trainer_image
    pods = [partial(build_pod, job, index, image, settings) for index in missing]
    # Nobody sees whether they are still there, and without them the Pods would wait on their nodes for ever.
    files = build_files(job)
    return Children(*([lambda: files] if files else []), *pods), _done(context, status), False


def _missing(context: Context) -> list[int]:
    """Indices of the workers that have no Pod."""
    taken = {pod.index for pod in context.observed.pods}
    return [index for index in range(context.job.spec.worker_count()) if index not in taken]


def _done(context: Context, status: TrainingJobStatus) -> tuple[Delete, ...]:
    """Pods outside of the round that are of no use any more. What came to nothing keeps its name for a pause."""
    job, observed = context.job, context.observed
    held = pause(job, status, observed, context.now) > 0
    members = {member.pod_uid for member in (status.rendezvous or Rendezvous()).members}
    paid = set(status.budget.paid_pods if status.budget else ())
    return tuple(
        _delete(pod)
        for pod in observed.pods
        if pod.owned and not pod.terminating and pod.uid not in members
        if blind(observed.launchers.get(pod.uid))
        or _done_with(job, pod, paid, held=held and comes_to_nothing(job, status, pod, observed))
    )


def _done_with(job: TrainingJob, pod: Pod, paid: set[str], *, held: bool) -> bool:
    if pod.index >= job.spec.worker_count():
        return True
    return pod.dead and not held and (pod.uid in paid or free(pod))


def _delete(pod: Pod) -> Delete:
    return Delete(kind="Pod", name=pod.name, uid=pod.uid)


def _trained(context: Context, old: TrainingJobStatus, status: TrainingJobStatus) -> Plan:
    """The training is complete: so is the job, unless its converted models are still to be measured elsewhere."""
    if measure_on(context.job) is None:
        return _succeed(context, old, status)
    return context.plan(old, measuring.begun(context, _whole(status)), status_first=True)


def _whole(status: TrainingJobStatus) -> TrainingJobStatus:
    """A program that does not say how many steps there are has done all of them."""
    progress = status.progress
    if progress is not None and progress.total_steps is None and progress.percent is None:
        return status.model_copy(update={"progress": progress.model_copy(update={"percent": 100.0})})
    return status


def _succeed(context: Context, old: TrainingJobStatus, status: TrainingJobStatus) -> Plan:
    status = _whole(status)
    update = {"phase": "Succeeded", "completion_time": context.now, "running_time": status.running_time or context.now}
    status = context.put(status.model_copy(update=update), "Complete", True, "AllWorkersSucceeded")
    status = context.put(status, "Running", False, "Finished")
    return context.plan(old, _settled(context, status), status_first=True)


def _fail(context: Context, old: TrainingJobStatus, status: TrainingJobStatus, reason: Reason, message: str) -> Plan:
    update = {"phase": "Failed", "completion_time": context.now}
    status = context.put(status.model_copy(update=update), "Failed", True, reason, message)
    status = context.put(status, "Running", False, "Finished")
    return context.plan(old, _settled(context, status), status_first=True)


def _settled(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """Nothing blocks, stalls or suspends a job that is over."""
    status = context.put(status, "Blocked", False, "NotBlocked")
    status = context.put(status, "Suspended", False, "NotSuspended")
    return context.put(status, "Stalled", False, "Progressing")
