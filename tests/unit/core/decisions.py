"""What holds for every single decision, whatever it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud_operator.core import names
from edgecloud_operator.core.observed import Observed, Pod, Service
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.reconcile import reconcile
from tests.unit.core.build import MAX_DECISIONS, SETTINGS, as_served


def check_decision(job: TrainingJob, observed: Observed, now: datetime, plan: Plan, *, thorough: bool) -> None:
    """thorough: also what takes some ten decisions more to see."""
    if plan.requeue_after is not None:
        assert plan.requeue_after > 0
    if not thorough:
        return
    turned = replace(
        observed,
        pods=observed.pods[::-1],
        measurers=observed.measurers[::-1],
        launchers=dict(reversed(list(observed.launchers.items()))),
    )
    assert reconcile(job, turned, now, SETTINGS) == plan, "a decision depends on the order of what is seen"
    quiet, decisions = plan, 0
    while quiet.status is not None:
        decisions += 1
        assert decisions <= MAX_DECISIONS, "the same observation never comes to rest"
        before, job = quiet, job.with_status(as_served(quiet.status))
        quiet = reconcile(job, observed, now, SETTINGS)
        if not before.status_first:
            assert (quiet.status, quiet.create, quiet.delete) == (None, before.create, before.delete)
    assert reconcile(job, observed, now, SETTINGS) == quiet
    assert not quiet.events, "an event without a change"
    for part in (0.3, 0.98):
        wait = 3600.0 if quiet.requeue_after is None else quiet.requeue_after
        soon = reconcile(job, observed, now + timedelta(seconds=part * wait), SETTINGS)
        assert replace(soon, requeue_after=None) == replace(quiet, requeue_after=None), "it should have looked earlier"
    _check_rest(job, observed, now, quiet)


def _check_rest(job: TrainingJob, observed: Observed, now: datetime, plan: Plan) -> None:
    """When what is to be made is made and what is to go is gone, nothing is left to do but to wait."""
    for _ in range(MAX_DECISIONS):
        if not plan.create and not plan.delete and plan.status is None:
            return
        gone = {target.uid for target in plan.delete}
        if job.metadata.uid in gone:
            return
        made = tuple(
            made_pod(child, uid=f"new-{child['metadata']['name']}", now=now)
            for child in plan.create
            if child["kind"] == "Pod"
        )
        service = any(child["kind"] == "Service" for child in plan.create)
        pods = tuple(pod for pod in (*observed.pods, *observed.measurers) if pod.uid not in gone) + made
        assert len({pod.name for pod in pods}) == len(pods), "a Pod is made whose name is still taken"
        observed = replace(
            observed,
            pods=tuple(pod for pod in pods if pod.role == "worker"),
            measurers=tuple(pod for pod in pods if pod.role == "measure"),
            service=Service(name="digits", uid="s") if service else observed.service,
        )
        if plan.status is not None:
            job = job.with_status(as_served(plan.status))
        plan = reconcile(job, observed, now, SETTINGS)
    raise AssertionError("children are made and deleted without end")


def made_pod(child: dict[str, Any], *, uid: str, now: datetime) -> Pod:
    """The Pod that a server makes of what we build."""
    labels = child["metadata"]["labels"]
    return Pod(
        name=child["metadata"]["name"],
        uid=uid,
        index=int(labels.get(names.INDEX_LABEL, 0)),
        role=labels[names.COMPONENT_LABEL],
        phase="Pending",
        created_at=now,
    )
