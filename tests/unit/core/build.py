"""Small words to build a scene with: a job, its Pods, their launchers, and what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Budget, Condition, ConditionType, Member, Reason, Rendezvous, TrainingJobStatus
from edgecloud.protocol import FailureReport, PollRequest, ProgressReport
from edgecloud_operator.coordinator.admission import Admitted, admit
from edgecloud_operator.core import conditions, names
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.core.observed import Launcher, Observed, Pod, Service, Termination
from edgecloud_operator.core.plan import Plan
from edgecloud_operator.core.reconcile import reconcile

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
JOB_UID = "job-uid"
SETTINGS = Settings(trainer_image="edgecloud/trainer:1.0")
MAX_DECISIONS = 8
"""Decisions, on one observation, after which a job has nothing left to write."""


MEASURED: dict[str, Any] = {
    "trainer": {"data": {"name": "digits"}},
    "storage": {"claimName": "models"},
    "export": {"formats": ["onnx", "onnx-int8", "pt2"], "measureOn": {"nodeSelector": {"edge": "true"}}},
}
"""Fields of the spec of a job whose converted models are measured on a node of their own."""

EVICTED = "Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
SHUTDOWN = "Terminated: Pod was terminated in response to imminent node shutdown."


def make_job(**spec: Any) -> TrainingJob:
    """A job with two workers and a script, or as the fields of spec (in camelCase) say."""
    fields: dict[str, Any] = {"workers": 2, "program": {"command": ["python", "train.py"]}} | spec
    if "pools" in fields:
        del fields["workers"]
    if "trainer" in fields:
        del fields["program"]
    return TrainingJob.parse(
        {
            "apiVersion": "edgecloud.io/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": "digits", "namespace": "team", "uid": JOB_UID, "generation": 1},
            "spec": {name: value for name, value in fields.items() if value is not None},
        }
    )


def respec(job: TrainingJob, **spec: Any) -> TrainingJob:
    """The job after its user changed some fields of spec (Python's names): the generation rises."""
    metadata = job.metadata.model_copy(update={"generation": job.metadata.generation + 1})
    return job.model_copy(update={"spec": job.spec.model_copy(update=spec), "metadata": metadata})


def as_served(status: TrainingJobStatus) -> TrainingJobStatus:
    """A status as the API server gives it back."""
    return TrainingJobStatus.parse(status.dump())


def make_pod(index: int, **fields: Any) -> Pod:
    """A worker Pod, running for a minute unless the fields say something else."""
    default: dict[str, Any] = {
        "name": names.worker_name("digits", index),
        "uid": f"pod-{index}",
        "index": index,
        "phase": "Running",
        "created_at": NOW - timedelta(seconds=70),
        "running_since": NOW - timedelta(seconds=60),
        "node": f"node-{index}",
    }
    return Pod(**(default | fields))


def make_measurer(**fields: Any) -> Pod:
    """A measuring Pod, running unless the fields say something else."""
    default: dict[str, Any] = {"name": names.measurer_name("digits"), "uid": "measurer-1", "role": "measure"}
    return make_pod(0, **(default | {"node": "pc-1"} | fields))


def make_export(name: str = "onnx", **fields: Any) -> dict[str, Any]:
    """An entry of status.exports."""
    return {
        "format": name,
        "path": f"{name}.onnx",
        "bytes": 7000,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "accuracy": 0.975,
        "parity": {"images": 1000, "agreement": 0.999, "maxDifference": 0.01},
        "latency": {"p50": 1.5, "p90": 1.75, "p99": 2.0},
        "gate": "passed",
    } | fields


def make_message(*exports: dict[str, Any]) -> str:
    """What a measuring Pod says that has measured these; by default both formats that an edge node runs."""
    return json.dumps({"exports": exports or (make_export("onnx"), make_export("onnx-int8"))})


def died(pod: Pod, exit_code: int | None, **termination: Any) -> Pod:
    """The Pod after its container ended; without an exit code nothing is known of how."""
    end = None if exit_code is None else Termination(exit_code=exit_code, **termination)
    return replace(pod, phase="Succeeded" if exit_code == 0 else "Failed", termination=end)


def make_failure(exit_code: int | None = 1, **fields: Any) -> FailureReport:
    """A process that ended with exit code 1 just now, unless the fields say something else."""
    default: dict[str, Any] = {
        "local_rank": 0,
        "rank": 0,
        "exit_code": None if "signal" in fields else exit_code,
        "reason": "Killed" if "signal" in fields else "ProgramError",
        "message": "ValueError: no such file",
        "at": NOW.timestamp(),
    }
    return FailureReport(**(default | fields))


def make_progress(step: int, **fields: Any) -> ProgressReport:
    return ProgressReport(**({"step": step, "reported_at": NOW.timestamp()} | fields))


def make_report(uid: str = "pod-0", **fields: Any) -> PollRequest:
    """A launcher that is idle, unless the fields say something else."""
    number = int(uid.rsplit("-", 1)[-1])
    default: dict[str, Any] = {
        "protocol": 1,
        "job_uid": JOB_UID,
        "pod_uid": uid,
        "sequence": 1,
        "round": 0,
        "state": "idle",
        "address": f"10.0.0.{number}",
        "next_port": 20000 + number,
    }
    return PollRequest(**(default | fields))


def make_launcher(uid: str = "pod-0", *, at: datetime = NOW, since: datetime | None = None, **report: Any) -> Launcher:
    said = make_report(uid, **report)
    return Launcher(report=said, heard_at=at, since=since or at, progress_at=progress_at(said))


def progress_at(report: PollRequest) -> float:
    """As if the clocks agreed, and all were heard at once."""
    return report.progress.reported_at if report.progress else 0.0


def make_observed(
    pods: Iterable[Pod] = (), launchers: Iterable[Launcher] = (), *, now: datetime = NOW, **fields: Any
) -> Observed:
    default: dict[str, Any] = {
        "service": Service(name="digits", uid="service-uid"),
        "listening_since": now - timedelta(hours=1),
    }
    return Observed(
        pods=tuple(pods),
        launchers={launcher.report.pod_uid: launcher for launcher in launchers},
        **(default | fields),
    )


class Scene:
    """A job, what is seen of it, and the time. Each word changes it and gives it back, so that a test is a story."""

    def __init__(self, **spec: Any) -> None:
        self.job = make_job(**spec)
        self.now = NOW
        self.pods: dict[str, Pod] = {}
        self.measurers: dict[str, Pod] = {}
        self.launchers: dict[str, Launcher] = {}
        self.service: Service | None = Service(name="digits", uid="service-uid")
        self.listening_since = NOW - timedelta(hours=1)
        self.refused: tuple[Reason, str] | None = None
        self.refused_since: datetime | None = None
        self.settings = SETTINGS
        self._seen: list[int] = []

    # What is there

    @property
    def status(self) -> TrainingJobStatus:
        assert self.job.status is not None, "the job has not been accepted yet"
        return self.job.status

    @property
    def rendezvous(self) -> Rendezvous:
        return self.status.rendezvous or Rendezvous()

    @property
    def budget(self) -> Budget:
        return self.status.budget or Budget()

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(member.index for member in self.rendezvous.members)

    @property
    def observed(self) -> Observed:
        return Observed(
            pods=tuple(self.pods.values()),
            measurers=tuple(self.measurers.values()),
            service=self.service,
            launchers=dict(self.launchers),
            refused=self.refused,
            refused_since=self.refused_since,
            listening_since=self.listening_since,
        )

    def condition(self, kind: ConditionType) -> Condition:
        condition = conditions.get(self.status, kind)
        assert condition is not None, f"there is no condition {kind}"
        return condition

    def uid(self, index: int) -> str:
        """The newest Pod of a worker."""
        return max((pod for pod in self.pods.values() if pod.index == index), key=lambda pod: pod.created_at).uid

    def pod(self, index: int) -> Pod:
        return self.pods[self.uid(index)]

    # What happens

    def later(self, seconds: float, *, heard: bool = True) -> Self:
        """Time passes; the launchers go on polling unless they are not heard."""
        self.now += timedelta(seconds=seconds)
        if heard:
            self.launchers = {uid: replace(launcher, heard_at=self.now) for uid, launcher in self.launchers.items()}
        return self

    def spec(self, **fields: Any) -> Self:
        self.job = respec(self.job, **fields)
        return self

    def with_status(self, **fields: Any) -> Self:
        self.job = self.job.with_status(as_served(self.status.model_copy(update=fields)))
        return self

    def up(self, *indices: int) -> Self:
        """Pods of these workers (default: all) run, and their launchers are heard and idle."""
        for index in indices or range(self.job.spec.worker_count()):
            uid = f"pod-{index}" if index not in self._seen else f"pod-{100 * len(self._seen) + index}"
            self._seen.append(index)
            self.pods[uid] = make_pod(index, uid=uid, created_at=self.now, running_since=self.now)
            self.launchers[uid] = make_launcher(uid, at=self.now)
        return self

    def says(self, index: int, **report: Any) -> Self:
        """A launcher says something, of the present round unless the report says something else."""
        uid = self.uid(index)
        last = self.launchers.get(uid)
        fields = {"round": self.rendezvous.round} | report
        if last is None:
            self.launchers[uid] = make_launcher(uid, at=self.now, **fields)
            return self
        said = last.report.model_copy(update=fields)
        same = (said.state, said.round) == (last.report.state, last.report.round)
        since = last.since if same else self.now
        at = progress_at(said)
        self.launchers[uid] = replace(last, report=said, heard_at=self.now, since=since, progress_at=at)
        return self

    def polls(self, index: int, **report: Any) -> Self:
        """The same through the coordinator's door, which goes by the operator's clock."""
        uid, number = self.uid(index), self.rendezvous.round
        last = self.launchers.get(uid)
        sequence = last.report.sequence + 1 if last else 1
        fields = {"round": number, "state": "running", "sequence": sequence} | report
        result = admit(last, make_report(uid, **fields), current_round=number, now=self.now)
        assert isinstance(result, Admitted), result
        self.launchers[uid] = result.launcher
        return self

    def all_say(self, **report: Any) -> Self:
        for member in self.members:
            self.says(member, **report)
        return self

    def fails(self, index: int, exit_code: int | None = 1, **fields: Any) -> Self:
        fields = {"at": self.now.timestamp(), "rank": index} | fields
        return self.says(index, state="failed", failure=make_failure(exit_code, **fields))

    def changes(self, index: int, **fields: Any) -> Self:
        """Something changes about a Pod."""
        pod = self.pod(index)
        self.pods[pod.uid] = replace(pod, **fields)
        return self

    def dies(self, index: int, exit_code: int | None = 137, **termination: Any) -> Self:
        pod = self.pod(index)
        self.pods[pod.uid] = died(pod, exit_code, **termination)
        return self

    def vanishes(self, index: int) -> Self:
        del self.pods[self.uid(index)]
        return self

    def operator_restarts(self) -> Self:
        self.launchers = {}
        self.listening_since = self.now
        return self

    # What is decided

    def decide(self) -> Plan:
        return reconcile(self.job, self.observed, self.now, self.settings)

    def act(self) -> Plan:
        """Decide once, and write the status, if there is one to write."""
        plan = self.decide()
        if plan.status is not None:
            self.job = self.job.with_status(as_served(plan.status))
        return plan

    def settle(self) -> Plan:
        """Decide and write until nothing is left to write; the last plan, with its creates, deletes and directives."""
        for _ in range(MAX_DECISIONS):
            plan = self.act()
            if plan.status is None:
                return plan
        raise AssertionError(f"still something to write after {MAX_DECISIONS} decisions")

    # Short cuts

    def accepted(self) -> Self:
        self.act()
        return self

    def started(self) -> Self:
        """Accepted, all Pods up, round 1 open and told."""
        self.accepted().up().settle()
        return self

    def running(self) -> Self:
        """In a round that all members have taken up."""
        if self.job.status is None:
            self.started()
        self.all_say(state="running").settle()
        return self

    def trained(self) -> Self:
        """Every member has done its part to the end."""
        if self.job.status is None:
            self.running()
        self.all_say(state="succeeded").settle()
        return self

    def measurer(self, **fields: Any) -> Self:
        """A measuring Pod is there, or the one that is there changes."""
        made = make_measurer(**({"created_at": self.now, "running_since": self.now} | fields))
        old = self.measurers.get(made.uid)
        self.measurers[made.uid] = replace(old, **fields) if old is not None else made
        return self

    def measurer_ends(self, exit_code: int | None, message: str = "", **termination: Any) -> Self:
        """The newest measuring Pod's container has ended; without an exit code nothing is known of how."""
        uid = max(self.measurers, key=lambda uid: self.measurers[uid].created_at)
        ended = died(self.measurers[uid], exit_code, **({"message": message} if message else {}), **termination)
        self.measurers[uid] = ended
        return self


def member(index: int, uid: str | None = None) -> Member:
    return Member(index=index, pod_uid=uid or f"pod-{index}")
