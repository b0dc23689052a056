"""An API server in memory, with everything that one can refuse, and launchers that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud.protocol import Acknowledged, Directive, PollRequest, ProgressReport, State
from edgecloud_operator.controller.cluster import ConflictError, GoneError
from edgecloud_operator.controller.controller import Controller
from edgecloud_operator.coordinator.admission import Identity, Refusal
from edgecloud_operator.coordinator.desk import JobKey
from edgecloud_operator.core.names import INDEX_LABEL
from edgecloud_operator.core.observed import Pod, Service, Termination
from edgecloud_operator.core.plan import Delete, Event
from tests.unit.controller.simulated import SimulatedDatetime, now

Fault = Callable[[str, str, str], Exception | None]
"""From verb, job and what it is about to what goes wrong, if anything does."""


def no_fault(_verb: str, _job: str, _about: str) -> Exception | None:
    return None


def make_job(name: str = "digits", **spec: Any) -> TrainingJob:
    return TrainingJob.parse(
        {
            "apiVersion": "edgecloud.io/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": "team", "uid": f"uid-of-{name}"},
            "spec": {"workers": 2, "program": {"command": ["python", "train.py"]}} | spec,
        }
    )


def key_of(job: TrainingJob) -> JobKey:
    return (job.metadata.namespace, job.metadata.name)


@dataclass(frozen=True)
class Write:
    """A request, as it was made."""

    verb: str
    job: str
    about: str
    at: float


@dataclass
class Memory:
    """Keeps jobs and children, and tells the controller what happens to them, as a watch would.

    latency: how long a request takes. lag: how long after that the watch tells of it. answers: what a create returns is
    taken up at once, without waiting for the watch.
    """

    latency: float = 0.005
    lag: float = 0.01
    answers: bool = True
    fault: Fault = no_fault
    jobs: dict[JobKey, TrainingJob] = field(default_factory=dict)
    pods: dict[JobKey, dict[str, Pod]] = field(default_factory=dict)
    services: dict[JobKey, Service] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    events: list[tuple[str, Event]] = field(default_factory=list)
    under_way: dict[str, int] = field(default_factory=dict)
    """Writes of each job at this moment, and the most there ever were."""
    most_under_way: dict[str, int] = field(default_factory=dict)
    controller: Controller | None = None
    launchers: list[asyncio.Task[None]] = field(default_factory=list)
    steps: int = 3
    with_launchers: bool = True
    _version: int = 0
    _made: int = 0

    async def _request(self, verb: str, job: TrainingJob, about: str) -> None:
        name = job.metadata.name
        self.writes.append(Write(verb, name, about, now()))
        self.under_way[name] = self.under_way.get(name, 0) + 1
        self.most_under_way[name] = max(self.most_under_way.get(name, 0), self.under_way[name])
        try:
            await asyncio.sleep(self.latency)
            if error := self.fault(verb, name, about):
                raise error
        finally:
            self.under_way[name] -= 1

    def told(self, tell: Callable[[Controller], None], *, at_once: bool = False) -> None:
        """The watch tells, a moment later."""
        if at_once and self.controller is not None:
            tell(self.controller)

        def later() -> None:
            if self.controller is not None:
                tell(self.controller)

        asyncio.get_running_loop().call_later(self.lag, later)

    # What a user does

    def store(self, job: TrainingJob) -> TrainingJob:
        self._version += 1
        metadata = job.metadata.model_copy(update={"resource_version": str(self._version)})
        job = job.model_copy(update={"metadata": metadata})
        self.jobs[key_of(job)] = job
        self.told(lambda controller: controller.saw_job(job))
        return job

    def change_spec(self, key: JobKey, **spec: Any) -> TrainingJob:
        job = self.jobs[key]
        metadata = job.metadata.model_copy(update={"generation": job.metadata.generation + 1})
        return self.store(job.model_copy(update={"spec": job.spec.model_copy(update=spec), "metadata": metadata}))

    def remove(self, key: JobKey) -> None:
        """Delete a job; the garbage collector takes its children."""
        self.jobs.pop(key, None)
        self.pods.pop(key, None)
        self.services.pop(key, None)
        self.told(lambda controller: controller.lost_job(key))

    # What the controller asks for

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        await self._request("status", job, status.phase)
        stored = self.jobs.get(key_of(job))
        if stored is None:
            raise GoneError
        if stored.metadata.resource_version != job.metadata.resource_version:
            raise ConflictError
        return self.store(stored.with_status(TrainingJobStatus.parse(status.dump())))

    async def create(self, job: TrainingJob, child: dict[str, Any]) -> None:
        await self._request("create", job, f"{child['kind']}/{child['metadata']['name']}")
        key = key_of(job)
        if child["kind"] == "Service":
            service = self.services.setdefault(key, Service(name=child["metadata"]["name"], uid="service"))
            self.told(lambda controller: controller.saw_service(key, service), at_once=self.answers)
        elif child["kind"] == "Pod":
            index = int(child["metadata"]["labels"][INDEX_LABEL])
            if all(pod.index != index for pod in self.pods.get(key, {}).values()):
                self._start(job, child["metadata"]["name"], index)

    def _start(self, job: TrainingJob, name: str, index: int) -> None:
        self._made += 1
        moment = SimulatedDatetime.now(UTC)
        pod = Pod(
            name=name, uid=f"{name}-{self._made}", index=index, phase="Running", created_at=moment, running_since=moment
        )
        self.put_pod(key_of(job), pod, at_once=self.answers)
        if self.with_launchers:
            self.launchers.append(asyncio.create_task(self._play(job, pod)))

    def put_pod(self, key: JobKey, pod: Pod, *, at_once: bool = False) -> None:
        self.pods.setdefault(key, {})[pod.uid] = pod
        self.told(lambda controller: controller.saw_pod(key, pod), at_once=at_once)

    async def delete(self, job: TrainingJob, target: Delete) -> None:
        await self._request("delete", job, f"{target.kind}/{target.name}")
        key = key_of(job)
        if target.kind == "Pod" and self.pods.get(key, {}).pop(target.uid, None):
            self.told(lambda controller: controller.lost_pod(key, target.uid))

    async def emit(self, job: TrainingJob, event: Event) -> None:
        self.events.append((job.metadata.name, event))

    # What a worker does

    async def _play(self, job: TrainingJob, pod: Pod) -> None:
        """A launcher whose training takes so many steps, one in half a second."""
        identity = Identity(
            namespace=job.metadata.namespace,
            job=job.metadata.name,
            job_uid=job.metadata.uid or "",
            pod_uid=pod.uid,
            index=pod.index,
        )
        state: State = "idle"
        number, step, sequence = 0, 0, 0
        directive: Directive | None = None
        while True:
            sequence += 1
            report = PollRequest(
                protocol=1,
                job_uid=identity.job_uid,
                pod_uid=pod.uid,
                sequence=sequence,
                hold=0.0 if state == "running" else 10.0,
                round=number,
                state=state,
                address="10.0.0.1",
                port=2000 if number else None,
                next_port=2001,
                ack=Acknowledged(action=directive.action, round=directive.round) if directive else None,
                progress=ProgressReport(step=step, total_steps=self.steps, reported_at=now()) if number else None,
            )
            desk = self.controller.desk if self.controller else None
            if desk is None or desk.hear(identity, report):
                await asyncio.sleep(0.5)
                continue
            answer = await desk.directive(identity, report)
            if isinstance(answer, Refusal):
                await asyncio.sleep(0.1)
                continue
            directive = answer
            if directive.action == "exit":
                break
            if directive.action == "run" and directive.round > number and directive.run is not None:
                state, number, step = "running", directive.round, 0
            elif directive.action == "stop" and state == "running":
                state = "preempted"
            elif state == "running":
                await asyncio.sleep(0.5)
                step += 1
                state = "succeeded" if step >= self.steps else "running"
        outcome = "succeeded" if directive.exit_code == 0 else "preempted"
        end = Termination(exit_code=directive.exit_code, round=number, outcome=outcome)  # type: ignore[arg-type]
        key = key_of(job)
        if pod.uid in self.pods.get(key, {}):
            phase = "Succeeded" if directive.exit_code == 0 else "Failed"
            self.put_pod(key, replace(pod, phase=phase, termination=end))  # type: ignore[arg-type]

    # What a test looks at

    def phase(self, name: str = "digits") -> str:
        job = self.jobs.get(("team", name))
        return job.status.phase if job and job.status else "-"

    def of(self, verb: str, job: str | None = None) -> list[Write]:
        return [write for write in self.writes if write.verb == verb and job in (None, write.job)]

    def reasons(self, name: str = "digits") -> list[str]:
        return [event.reason for job, event in self.events if job == name]
