"""What was seen of the cluster: the newest version of each object, handed on to the control loop when it is news."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Literal, Protocol

from edgecloud.api.job import TrainingJob
from edgecloud_operator.coordinator.desk import JobKey
from edgecloud_operator.core.names import CONTROLLER
from edgecloud_operator.core.observed import Pod, Service
from edgecloud_operator.kube.parts import mapping
from edgecloud_operator.kube.sight import (
    Mark,
    SeenPod,
    SeenService,
    UnreadableError,
    mark,
    see_job,
    see_pod,
    see_service,
    version_of,
)

log = logging.getLogger(__name__)

WatchedKind = Literal["TrainingJob", "Service", "Pod"]
CHILDREN: Final[tuple[WatchedKind, ...]] = ("Service", "Pod")
KINDS: Final[tuple[WatchedKind, ...]] = ("TrainingJob", *CHILDREN)
"""In the order in which they are listed: a child of a job that was not seen is nobody's."""
MAX_GONE: Final = 20_000
"""Objects whose end is remembered, so that a list or an answer from before it doesn't bring them back."""


class Sink(Protocol):
    """Who wants to know: the control loop."""

    def saw_job(self, job: TrainingJob) -> None: ...

    def lost_job(self, key: JobKey) -> None: ...

    def saw_pod(self, key: JobKey, pod: Pod) -> None: ...

    def lost_pod(self, key: JobKey, uid: str) -> None: ...

    def saw_service(self, key: JobKey, service: Service | None) -> None: ...


@dataclass(frozen=True)
class _Job:
    """job is None for one that cannot be read: nothing is done about it, and its workers train on. unread: why."""

    mark: Mark
    job: TrainingJob | None
    unread: str = ""


@dataclass(frozen=True)
class _Pod:
    mark: Mark
    seen: SeenPod


@dataclass(frozen=True)
class _Service:
    mark: Mark
    seen: SeenService


@dataclass(frozen=True, kw_only=True)
class Stranger:
    """An object in a child's place that no watch tells of: it lacks our labels."""

    kind: WatchedKind
    namespace: str
    name: str
    uid: str

    @property
    def key(self) -> JobKey:
        return (self.namespace, self.name)


class Store:
    """Keeps what lists, watches and answers tell, in whatever order they come, and tells the control loop of it."""

    def __init__(self) -> None:
        self._sink: Sink | None = None
        self._jobs: dict[JobKey, _Job] = {}
        self._pods: dict[str, _Pod] = {}
        self._pods_of: dict[JobKey, set[str]] = {}
        self._services: dict[JobKey, _Service] = {}
        self._gone: OrderedDict[str, int | None] = OrderedDict()
        self._unread: dict[JobKey, tuple[Mark, str]] = {}
        """Jobs that cannot be read, with why, and of which nobody was told yet."""
        self._held: dict[JobKey, Any] = {}
        """For each job whose status is being written: what a watch told of it meanwhile."""

    def connect(self, sink: Sink) -> None:
        """Name the control loop; before anything is seen."""
        self._sink = sink

    def job(self, key: JobKey) -> TrainingJob | None:
        """A job as it was last seen, if it can be read."""
        known = self._jobs.get(key)
        return known.job if known else None

    def worker(self, uid: str) -> SeenPod | None:
        """The worker Pod of that uid."""
        known = self._pods.get(uid)
        return known.seen if known and known.seen.pod.role == "worker" else None

    def untold(self, ca: str) -> list[Mark]:
        """Running workers that go by other certificates than these."""
        return [known.mark for known in self._running() if ca and known.seen.ca not in ("", ca)]

    def deaf(self, ca: str) -> int:
        """How many running workers can't be told of these: a Pod is made to go by certificates, or (empty) by none."""
        return sum(bool(known.seen.ca) != bool(ca) for known in self._running())

    def _running(self) -> Iterator[_Pod]:
        """The jobs' own workers that are neither over nor about to be."""
        for known in self._pods.values():
            seen, job = known.seen, self.job(known.seen.key)
            ours = job is not None and seen.watched and seen.owner == job.metadata.uid and seen.pod.role == "worker"
            if ours and not seen.pod.dead and not seen.pod.terminating:
                yield known

    def take_unread(self, limit: int) -> list[tuple[Mark, str]]:
        """So many of the jobs that cannot be read, and why: each but once while the same keeps it from being read."""
        return [self._unread.pop(key) for key in list(islice(self._unread, limit))]

    def is_gone(self, uid: str) -> bool:
        """Whether the object of that uid was seen, and seen to go."""
        return uid in self._gone

    def counts(self) -> dict[WatchedKind, int]:
        """How many objects are known."""
        return {"TrainingJob": len(self._jobs), "Service": len(self._services), "Pod": len(self._pods)}

    def strangers(self) -> list[Stranger]:
        """What has to be looked after one by one; what was in the way of a job that is gone is forgotten."""
        self._forget_strangers()
        found: list[tuple[WatchedKind, Mark, bool]] = [
            ("Pod", known.mark, known.seen.watched) for known in self._pods.values()
        ]
        found += [("Service", known.mark, known.seen.watched) for known in self._services.values()]
        return [
            Stranger(kind=kind, namespace=which.namespace, name=which.name, uid=which.uid)
            for kind, which, watched in found
            if not watched
        ]

    def _forget_strangers(self) -> None:
        """Nobody asks for what is not watched and has no job; a later job of that name meets it anew."""
        for uid, pod in list(self._pods.items()):
            if not pod.seen.watched and pod.seen.key not in self._jobs:
                self._drop_pod(uid)
        for key, service in list(self._services.items()):
            if not service.seen.watched and key not in self._jobs:
                del self._services[key]

    # What is told

    def saw(self, kind: WatchedKind, raw: Any) -> None:
        """An object as it was at some moment; what is older than what is known is passed over."""
        which = mark(raw)
        if which is None:
            log.warning("a %s without a name or uid was passed over", kind)
        elif kind == "TrainingJob":
            self._saw_job(which, raw)
        elif kind == "Pod":
            self._saw_pod(which, raw)
        else:
            self._saw_service(which, raw)

    def gone(self, kind: WatchedKind, raw: Any) -> None:
        """An object no longer exists, or no longer bears our labels."""
        if which := mark(raw):
            self._drop(kind, which, which.version)

    def listed(self, kind: WatchedKind, uids: Collection[str], version: str, namespace: str | None) -> None:
        """A list of a kind, in a namespace or in all, has been seen: what is known and not in it has gone unnoticed."""
        when = version_of(version)
        for which in self._watched(kind):
            in_scope = namespace is None or which.namespace == namespace
            newer = when is None or which.version is None or which.version > when
            if in_scope and not newer and which.uid not in uids:
                log.debug("%s %s/%s had gone unnoticed", kind, which.namespace, which.name)
                self._drop(kind, which, when)

    def missing(self, stranger: Stranger) -> None:
        """It was looked for, and is not there any more."""
        known = self._pods.get(stranger.uid) if stranger.kind == "Pod" else self._services.get(stranger.key)
        if known is not None and known.mark.uid == stranger.uid:
            self._drop(stranger.kind, known.mark, known.mark.version)

    @contextmanager
    def writing(self, key: JobKey) -> Iterator[None]:
        """While a job's status is being written, what a watch tells of the job is held back: most likely it is our own
        write, whose answer comes next and makes it stale."""
        self._held[key] = None
        try:
            yield
        finally:
            held = self._held.pop(key)
            if held is not None:
                self.saw("TrainingJob", held)

    def wrote(self, raw: Any) -> TrainingJob:
        """The answer to our own write of a job's status. The control loop learns it from whoever wrote.

        Raises:
            UnreadableError: it is no job any more.
        """
        job, which = see_job(raw), mark(raw)
        if which is not None and not self._is_old(which, self._mark_of_job(which)):
            self._jobs[(which.namespace, which.name)] = _Job(which, job)
        return job

    # Jobs

    def _mark_of_job(self, which: Mark) -> Mark | None:
        known = self._jobs.get((which.namespace, which.name))
        return known.mark if known else None

    def _saw_job(self, which: Mark, raw: Any) -> None:
        key = (which.namespace, which.name)
        if key in self._held:
            self._held[key] = raw
            return
        known = self._jobs.get(key)
        if self._is_old(which, known.mark if known else None):
            return
        try:
            job = see_job(raw)
        except UnreadableError as error:
            why = str(error)
            if known is None or known.unread != why or known.mark.uid != which.uid:
                log.error("%s/%s is no TrainingJob that this release understands, and is left alone: %s", *key, why)
                if mapping(raw.get("spec")).get("managedBy") in (None, "", CONTROLLER):
                    self._unread[key] = (which, why)
            self._jobs[key] = _Job(which, None, why)
            if known is not None and known.job is not None:
                self._tell().lost_job(key)
            return
        self._jobs[key] = _Job(which, job)
        self._unread.pop(key, None)
        other = known is None or known.job is None or known.mark.uid != which.uid
        if known is not None and known.job is not None and other:
            self._tell().lost_job(key)
        self._tell().saw_job(job)
        if other:
            for uid in self._pods_of.get(key, ()):
                self._show_pod(self._pods[uid].seen)
            self._show_service(key)

    # Pods

    def _saw_pod(self, which: Mark, raw: Any) -> None:
        known = self._pods.get(which.uid)
        if self._is_old(which, known.mark if known else None):
            return
        seen = see_pod(raw)
        if seen is None:
            return
        self._gone.pop(which.uid, None)
        self._pods[which.uid] = _Pod(which, seen)
        self._pods_of.setdefault(seen.key, set()).add(which.uid)
        if known is None or known.seen != seen:
            self._show_pod(seen)

    def _show_pod(self, seen: SeenPod) -> None:
        if job := self.job(seen.key):
            owned = seen.owner == job.metadata.uid
            leftover = not owned and seen.owner != ""
            self._tell().saw_pod(seen.key, replace(seen.pod, owned=owned, leftover=leftover))

    # Services

    def _saw_service(self, which: Mark, raw: Any) -> None:
        key = (which.namespace, which.name)
        known = self._services.get(key)
        if self._is_old(which, known.mark if known else None):
            return
        seen = see_service(raw)
        if seen is None:
            return
        self._gone.pop(which.uid, None)
        self._services[key] = _Service(which, seen)
        if known is None or known.seen != seen:
            self._show_service(key)

    def _show_service(self, key: JobKey) -> None:
        known, job = self._services.get(key), self.job(key)
        if job is not None and known is not None:
            owned = known.seen.owner == job.metadata.uid
            leftover = not owned and known.seen.owner != ""
            self._tell().saw_service(key, replace(known.seen.service, owned=owned, leftover=leftover))

    # All kinds

    def _tell(self) -> Sink:
        assert self._sink is not None, "the store has not been connected"
        return self._sink

    def _is_old(self, which: Mark, known: Mark | None) -> bool:
        """Whether this is no news: older than, or the same as, what is known, or of an object that has gone since."""
        if which.uid in self._gone:
            end = self._gone[which.uid]
            return end is None or which.version is None or which.version < end
        if known is None or which.version is None or known.version is None:
            return False
        return which.version < known.version or (which.uid == known.uid and which.version == known.version)

    def _watched(self, kind: WatchedKind) -> list[Mark]:
        if kind == "TrainingJob":
            return [known.mark for known in self._jobs.values()]
        if kind == "Pod":
            return [known.mark for known in self._pods.values() if known.seen.watched]
        return [known.mark for known in self._services.values() if known.seen.watched]

    def _drop(self, kind: WatchedKind, which: Mark, version: int | None) -> None:
        key = (which.namespace, which.name)
        self._gone[which.uid] = version
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)
        if kind == "TrainingJob":
            self._drop_job(key, which.uid)
        elif kind == "Pod":
            self._drop_pod(which.uid)
        elif (known := self._services.get(key)) and known.mark.uid == which.uid:
            del self._services[key]
            if self.job(key):
                self._tell().saw_service(key, None)

    def _drop_job(self, key: JobKey, uid: str) -> None:
        known = self._jobs.get(key)
        if known is None or known.mark.uid != uid:
            return
        del self._jobs[key]
        self._unread.pop(key, None)
        if key in self._held:
            self._held[key] = None
        if known.job is not None:
            self._tell().lost_job(key)

    def _drop_pod(self, uid: str) -> None:
        known = self._pods.pop(uid, None)
        if known is None:
            return
        uids = self._pods_of[known.seen.key]
        uids.discard(uid)
        if not uids:
            del self._pods_of[known.seen.key]
        if self.job(known.seen.key):
            self._tell().lost_pod(known.seen.key, uid)
