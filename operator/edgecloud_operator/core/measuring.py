"""The last stage of a job with export.measureOn: a Pod measures the converted models on a node of their own. Pure.

That the training is complete stands in status.measuring before its workers are told to leave, so that an operator that
is killed anywhere goes on from there. Which Pod measures stands there too: one that is gone unseen is counted as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgecloud.api.status import MeasuringStatus, TrainingJobStatus
from edgecloud_operator.core.context import Context
from edgecloud_operator.core.measured import read_end
from edgecloud_operator.core.measurer import build_measurer, measure_on, unreachable
from edgecloud_operator.core.observed import Pod
from edgecloud_operator.core.plan import Delete

MAX_FAILURES: Final = 5
"""Pods in a row that came to nothing; then the job fails."""
PAUSE_SECONDS: Final = 5.0
"""Before a second Pod is made; before each further one it is twice as long."""
MAX_SELECTOR: Final = 300
"""Characters of the node selector in a message."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the measuring comes to now.

    status: with what has ended reckoned with. measured: all was measured, and may be used. failed: why the job ends in
    failure. create, delete: Pods, if status is as it was. wait: seconds until time alone may change this.
    """

    status: TrainingJobStatus
    measured: bool = False
    failed: str | None = None
    create: tuple[dict[str, Any], ...] = ()
    delete: tuple[Delete, ...] = ()
    wait: float | None = None


def begun(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """The training is complete, and the measuring begins."""
    return shown(context, status.model_copy(update={"measuring": MeasuringStatus(since=context.now)}))


def given_up(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """The Pod goes, at nobody's cost; another one measures when the job is resumed."""
    assert status.measuring is not None
    uids = [pod.uid for pod in context.observed.measurers if pod.owned]
    ended = uids[-1] if uids else status.measuring.ended_pod_uid
    return status.model_copy(update={"measuring": MeasuringStatus(since=status.measuring.since, ended_pod_uid=ended)})


def shown(context: Context, status: TrainingJobStatus) -> TrainingJobStatus:
    """Phase and Running condition of a job that is being measured."""
    measuring = status.measuring
    assert measuring is not None
    update = {"phase": "Running", "running_time": status.running_time or context.now}
    words = f"the training is complete; its converted models are measured {_place(context)}"
    if measuring.failures:
        words += f" (try {measuring.failures + 1} of {MAX_FAILURES}; the last one: {measuring.message})"
    return context.put(status.model_copy(update=update), "Running", True, "Measuring", words)


def _place(context: Context) -> str:
    where = measure_on(context.job)
    if context.settings.one_machine:
        return "on this machine"
    if where is None or not where.node_selector:
        return "on any node"
    labels = ",".join(f"{key}={value}" for key, value in sorted(where.node_selector.items()))
    return f"on a node with {labels if len(labels) <= MAX_SELECTOR else labels[: MAX_SELECTOR - 1] + '…'}"


def advance(context: Context, status: TrainingJobStatus) -> Stage:
    """Reckon with a Pod that has ended or gone, note the one that is there, or have one made."""
    measuring = status.measuring
    assert measuring is not None
    own = [pod for pod in context.observed.measurers if pod.owned]
    unread = [pod for pod in own if pod.dead and pod.uid != measuring.ended_pod_uid]
    if unread:
        return _ended(context, status, unread[-1])
    if _gone(measuring, own):
        return _again(context, status, measuring.pod_uid, "the Pod is gone")
    fresh = [pod for pod in own if not pod.dead and not pod.terminating and pod.uid != measuring.pod_uid]
    if fresh:
        uid = fresh[-1].uid
        ended = None if uid == measuring.ended_pod_uid else measuring.ended_pod_uid  # it was given up, and goes on
        return Stage(status=_with(status, pod_uid=uid, ended_pod_uid=ended))
    over = tuple(_delete(pod) for pod in own if pod.dead and not pod.terminating)
    if context.observed.measurers or unreachable(context.job, context.settings):
        return Stage(status=status, delete=over)
    wait = _pause(context, measuring)
    if wait > 0:
        return Stage(status=status, wait=wait)
    return Stage(status=status, create=(build_measurer(context.job, context.settings),))


def _gone(measuring: MeasuringStatus, own: list[Pod]) -> bool:
    """Whether the Pod that was to measure is there no more, and nothing is known of how it ended."""
    uid = measuring.pod_uid
    return uid is not None and uid != measuring.ended_pod_uid and uid not in {pod.uid for pod in own}


def _ended(context: Context, status: TrainingJobStatus, pod: Pod) -> Stage:
    end = read_end(context.job, status.exports or (), pod)
    if end.again is not None:
        return _again(context, status, pod.uid, end.again)
    status = _with(status, pod_uid=pod.uid, ended_pod_uid=pod.uid)
    if end.exports is not None:
        status = status.model_copy(update={"exports": end.exports})
    if end.failed is not None:
        return Stage(status=status, failed=end.failed)
    return Stage(status=status, measured=True)


def _again(context: Context, status: TrainingJobStatus, uid: str | None, why: str) -> Stage:
    """A Pod came to nothing: another one is made after a pause, unless there were too many."""
    assert status.measuring is not None
    failures = min(status.measuring.failures, MAX_FAILURES - 1) + 1  # somebody may have written any number there
    status = _with(status, pod_uid=uid, ended_pod_uid=uid, failures=failures, failed_at=context.now, message=why[:2048])
    if failures < MAX_FAILURES:
        return Stage(status=status)
    text = f"the converted models could not be measured {_place(context)}: {failures} Pods in a row came to nothing,"
    return Stage(status=status, failed=f"{text} the last one: {why}")


def _pause(context: Context, measuring: MeasuringStatus) -> float:
    """Seconds until the next Pod may be made."""
    if not measuring.failures or measuring.failed_at is None:
        return 0.0
    longest = PAUSE_SECONDS * float(2 ** (min(measuring.failures, MAX_FAILURES) - 1))
    return min(longest, longest - (context.now - measuring.failed_at).total_seconds())


def _with(status: TrainingJobStatus, **fields: Any) -> TrainingJobStatus:
    assert status.measuring is not None
    return status.model_copy(update={"measuring": status.measuring.model_copy(update=fields)})


def _delete(pod: Pod) -> Delete:
    return Delete(kind="Pod", name=pod.name, uid=pod.uid)
