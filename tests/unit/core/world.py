"""A whole small world to try the core in: an API server with one job, nodes, launchers, and an operator that may die.

It keeps the rules that a real one keeps, and its books complain (`AssertionError`) as soon as the core breaks one of
its own. Nothing here waits: whoever drives it says who does what next.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TERMINAL, TrainingJobStatus
from edgecloud.protocol import FailureReport, ProgressReport
from edgecloud_operator.core import names
from edgecloud_operator.core.observed import Observed, Pod, Service, Termination
from edgecloud_operator.core.plan import Delete
from tests.unit.core.books import Books, rendezvous_of
from tests.unit.core.build import NOW, as_served, make_job, make_message, respec
from tests.unit.core.decisions import made_pod
from tests.unit.core.shell import ConflictError, Operator
from tests.unit.core.worker import Worker

OUTCOMES = ("succeeded", "failed", "preempted")


class World:
    """The API server with its job, the nodes with their workers, and the operator, if one is up."""

    def __init__(self, **spec: Any) -> None:
        self.now = NOW
        job = make_job(**spec)
        metadata = job.metadata.model_copy(update={"resource_version": "1"})
        self.job = job.model_copy(update={"metadata": metadata})
        self.pods: dict[str, Pod] = {}
        """By name."""
        self.service: Service | None = None
        self.files = False
        self.workers: dict[str, Worker] = {}
        """Launchers that are alive, by Pod uid."""
        self.lost: set[str] = set()
        """Pods whose node is lost: the API server goes on to show them as they were."""
        self.events: list[tuple[str, Any]] = [("job", self.job)]
        self.deleted = False
        self.history: list[TrainingJobStatus] = []
        """Every status that was written."""
        self.books = Books()
        self.made = 0
        self.operator: Operator | None = None
        self.operator_starts()

    # The API server

    @property
    def status(self) -> TrainingJobStatus:
        return self.job.status or TrainingJobStatus()

    @property
    def finished(self) -> bool:
        return self.status.phase in TERMINAL

    def _job_is(self, job: TrainingJob) -> None:
        version = str(int(self.job.metadata.resource_version or 0) + 1)
        self.job = job.model_copy(update={"metadata": job.metadata.model_copy(update={"resource_version": version})})
        self.events.append(("job", self.job))

    def write_status(
        self, read: TrainingJob, status: TrainingJobStatus, observed: Observed, decided: datetime
    ) -> TrainingJob:
        if read.metadata.resource_version != self.job.metadata.resource_version:
            raise ConflictError
        new = as_served(status)
        assert new == status, "a status that the server gives back as another one"
        self.books.check_transition(self.job.spec, self.status, new, observed, decided)
        self._job_is(self.job.with_status(new))
        self.history.append(new)
        return self.job

    def create(self, child: dict[str, Any]) -> None:
        name = child["metadata"]["name"]
        assert child["metadata"]["ownerReferences"][0]["uid"] == self.job.metadata.uid
        assert not self.finished, f"a child {name} for a finished job"
        if child["kind"] == "ConfigMap":
            self.files = True
        elif child["kind"] == "Service" and self.service is None:
            self._service_is(Service(name=name, uid="service-uid"))
        elif child["kind"] == "Pod" and name not in self.pods:
            assert self.job.spec.program is None or not self.job.spec.program.files or self.files
            self.made += 1
            pod = made_pod(child, uid=f"pod-{self.made}", now=self.now)
            measuring = self.status.measuring is not None
            assert self.books.life or measuring == (pod.role == "measure"), f"{name} is made at the wrong time"
            self._pod_is(pod)

    def delete(self, target: Delete) -> None:
        if target.kind == "TrainingJob":
            assert self.finished
            self.deleted = True
        elif target.kind == "Pod":
            pod = self.pods.get(target.name)
            free = self.finished or self.books.life
            member = self.is_member(target.uid) and self.status.measuring is None
            assert free or not member, "a member is deleted"
            resting = self.status.phase == "Suspended"
            alive = pod is not None and pod.role == "measure" and not pod.dead
            assert free or resting or not alive, "what measures is deleted"
            if pod is not None and pod.uid == target.uid:
                self.pod_is_deleted(pod)

    def _pod_is(self, pod: Pod) -> None:
        self.pods[pod.name] = pod
        self.events.append(("pod", pod))

    def _service_is(self, service: Service | None) -> None:
        self.service = service
        self.events.append(("service", service))

    def pod_is_deleted(self, pod: Pod) -> None:
        """A graceful deletion begins: the kubelet tells the launcher."""
        if not pod.terminating:
            self._pod_is(replace(pod, terminating=True))
        if (worker := self.workers.get(pod.uid)) is not None:
            if worker.cut_off or self.operator is None:
                self.books.credit += 1  # nobody will hear that it was asked to leave
            worker.drain()

    # Nodes

    def kubelet(self, pod: Pod) -> None:
        """Start a Pod, or see off one that is to go."""
        if pod.uid in self.lost:
            return
        if pod.terminating and pod.uid not in self.workers:
            self._gone(pod)
        elif not pod.terminating and pod.phase == "Pending":
            node = f"node-{pod.index}" if pod.role == "worker" else "pc-1"
            self._pod_is(replace(pod, phase="Running", running_since=self.now, node=node))
            if pod.role == "worker":
                self.workers[pod.uid] = Worker(uid=pod.uid, index=pod.index, world=self)

    def _gone(self, pod: Pod) -> None:
        del self.pods[pod.name]
        self.events.append(("gone", pod.uid))
        if self.operator is None or self.is_member(pod.uid):
            self.books.credit += 1  # its end may not have been seen

    def worker_ends(self, worker: Worker, code: int, *, told: bool = True, out_of_memory: bool = False) -> None:
        """A launcher ends, and with it its Pod."""
        worker.group = False
        if told:
            worker.say()
        del self.workers[worker.uid]
        pod = next(pod for pod in self.pods.values() if pod.uid == worker.uid)
        outcome: Any = worker.state if told and worker.state in OUTCOMES else "none"
        end = Termination(
            exit_code=code,
            round=worker.round if told else 0,
            outcome=outcome,
            failure=worker.failure if told else None,
            out_of_memory=out_of_memory,
        )
        self._pod_is(replace(pod, phase="Succeeded" if code == 0 else "Failed", termination=end))

    # What measures

    def measuring(self) -> Pod | None:
        """The Pod that measures, if it runs."""
        found = self.pods.get(names.measurer_name(self.job.metadata.name))
        return found if found is not None and found.phase == "Running" and found.uid not in self.lost else None

    def measurer_ends(self, pod: Pod, code: int | None, message: str = "") -> None:
        """It ends; without a code it is evicted."""
        if (code, message) == (0, make_message()):
            self.books.measured.add(pod.uid)
        end = None if code is None else Termination(exit_code=code, message=message)
        self._pod_is(replace(pod, phase="Succeeded" if code == 0 else "Failed", termination=end, over=end is not None))

    # Programs

    def mates(self, worker: Worker) -> list[Worker]:
        return [other for other in self.workers.values() if other.round == worker.round and other.group]

    def all_there(self, worker: Worker) -> bool:
        """Whether the ranks of its round can meet: every member has taken it up, and none has broken.

        Who has done its part is not needed any more, whatever has become of it since.
        """
        _, members = self.books.members_of(worker.round)
        left = [self.workers.get(uid) for uid in members if (worker.round, uid) not in self.books.done]
        return bool(members) and all(
            mate is not None and mate.round == worker.round and mate.group and not mate.hard for mate in left
        )

    def program_steps(self, worker: Worker, *, checkpoint: bool) -> None:
        """A step of the training, and a checkpoint if one is due."""
        if not worker.group or worker.hard or not self.all_there(worker):
            return
        done = worker.progress.step if worker.progress else self.trained()
        saved = worker.progress.checkpoint_step if worker.progress else None
        worker.progress = ProgressReport(
            step=done + 1,
            total_steps=100,
            checkpoint_step=done + 1 if checkpoint else saved,
            reported_at=self.now.timestamp() + 0.25,
        )

    def trained(self) -> int:
        return self.status.checkpoint.step if self.status.checkpoint else 0

    def program_ends(self, worker: Worker) -> None:
        """The training is complete on this worker, or it has left where it was asked to."""
        if not worker.group:
            return
        if worker.hard:
            worker.group_ends("preempted")
        elif worker.agreed or any(mate.agreed for mate in self.mates(worker)):
            worker.group_ends("preempted")  # the flag rides in the next reduction
        elif self.all_there(worker):
            worker.group_ends("succeeded")

    def program_loses_peer(self, worker: Worker) -> None:
        """A process whose peer has gone dies of it; for one that has not come yet it waits."""
        life, members = self.books.members_of(worker.round)
        if len(self.books.parts.get((life, worker.round), ())) < len(members):
            return
        if worker.group and not worker.hard and not self.all_there(worker):
            worker.breaks(self._report(worker, "Connection closed by peer", exit_code=1))

    def program_fails(self, worker: Worker, how: dict[str, Any]) -> None:
        """A process fails by itself."""
        if worker.group and not worker.hard:
            self.books.credit += 1
            worker.breaks(self._report(worker, "it broke", **how))

    def _report(self, worker: Worker, message: str, **how: Any) -> FailureReport:
        fields: dict[str, Any] = {"reason": "Killed" if "signal" in how else "ProgramError"} | how
        return FailureReport(
            local_rank=0, rank=worker.index, message=message, at=self.now.timestamp() + 0.125, **fields
        )

    # Faults

    def worker_dies(self, worker: Worker, code: int, *, out_of_memory: bool = False) -> None:
        """The whole container is gone at once."""
        self.books.credit += 1
        self.worker_ends(worker, code, told=False, out_of_memory=out_of_memory)

    def node_rejects(self, pod: Pod) -> None:
        """A node does not take a Pod that was to run there."""
        self.books.credit += 1
        why = "UnexpectedAdmissionError: no healthy devices"
        self._pod_is(replace(pod, phase="Failed", node=f"node-{pod.index}", why=why))

    def pod_vanishes(self, pod: Pod) -> None:
        """Somebody removed it by force."""
        self.books.credit += 1
        self.workers.pop(pod.uid, None)
        self.lost.discard(pod.uid)
        self._gone(pod)

    def node_is_lost(self, pod: Pod) -> None:
        self.books.credit += 1
        self.workers.pop(pod.uid, None)
        self.lost.add(pod.uid)

    def operator_dies(self) -> None:
        if self.operator is not None:
            self.operator = None
            self.books.credit += self._unnoticed()

    def operator_starts(self) -> None:
        if self.operator is None:
            self.operator = Operator(
                world=self,
                job=self.job,
                pods={pod.uid: pod for pod in self.pods.values()},
                service=self.service,
                listening_since=self.now,
                seen=len(self.events),
            )

    def is_member(self, uid: str) -> bool:
        return uid in {member.pod_uid for member in rendezvous_of(self.status).members}

    def _unnoticed(self) -> int:
        """Ends of which only the operator that is gone may have known why."""
        alive = {pod.uid for pod in self.pods.values() if pod.uid in self.workers and not pod.terminating}
        members = [member.pod_uid for member in rendezvous_of(self.status).members]
        dead = [pod.uid for pod in self.pods.values() if pod.uid not in alive]
        return len({uid for uid in (*members, *dead) if uid not in alive})

    # The user

    def user_changes(self, **spec: Any) -> None:
        self._job_is(respec(self.job, **spec))

    def user_meddles(self, place: int) -> None:
        """The status is put back to one of old, or wiped."""
        past = [status for status in self.history if status.phase not in TERMINAL]
        status = past[place % len(past)] if place and past else None
        self.books.life += 1
        self.books.credit += 2 + len(self.pods)
        self.books.reckoned = set()
        self._job_is(self.job.with_status(status))
        if self.operator is not None:
            self.operator.published = {}
        for worker in self.workers.values():
            worker.answers = []

    def user_deletes_service(self) -> None:
        if self.service is not None:
            self._service_is(None)
