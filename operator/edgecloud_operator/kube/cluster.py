"""The control loop's writes, made to the API server."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from edgecloud.api.job import API_VERSION, KIND, TrainingJob
from edgecloud.api.status import Rendezvous, TrainingJobStatus
from edgecloud_operator.controller.cluster import (
    ConflictError,
    DeniedError,
    GoneError,
    LaterError,
    RefusedError,
    StandbyError,
)
from edgecloud_operator.coordinator.desk import JobKey
from edgecloud_operator.core.health import UNASKED_WEBHOOK, patience_left
from edgecloud_operator.core.plan import Delete, Event
from edgecloud_operator.core.writes import field_validation, write_class
from edgecloud_operator.kube.client import (
    AlreadyExistsError,
    ApiError,
    BadRequestError,
    ChangedError,
    Client,
    ForbiddenError,
    InvalidError,
    Kind,
    NotFoundError,
    UnavailableError,
    path,
)
from edgecloud_operator.kube.events import Recorder
from edgecloud_operator.kube.pruned import whole
from edgecloud_operator.kube.sight import Mark, owner_of
from edgecloud_operator.kube.store import Store
from edgecloud_operator.kube.turns import Turns

log = logging.getLogger(__name__)

MAX_WORDS: Final = 1500
"""Characters of the server's own words in a refusal."""
AGAIN_SECONDS: Final = 1.0
"""Until a create is tried again that somebody else was in the way of for a moment."""
DENIED_REMEDIES: Final = {
    401: "see to the credentials that the operator has: they are its ServiceAccount's, or those in $KUBECONFIG",
    403: "give the operator that right: apply its roles again, with helm upgrade or kubectl apply -f"
    " manifests/operator.yaml",
    422: "apply the TrainingJob resource of the operator's own release, with helm upgrade or kubectl apply -f"
    " manifests/crd.yaml: the cluster's may be of another one",
}
"""What to do about a write that is not taken, by HTTP status."""
STORED_REMEDY: Final = (
    "the stored job breaks a rule that is newer than it, and a server before Kubernetes 1.30 takes no write of it:"
    " delete it, and apply it corrected"
)
UNREAD_REMEDY: Final = "upgrade the operator to the release of the cluster's TrainingJob resource, or correct the job"
RULE_REMEDY: Final = "have the admission rule changed by whoever runs the cluster"
OTHER_REMEDY: Final = "look at the API server's log"
PRUNED_SECONDS: Final = 600.0
"""How often it is said that the server drops parts of a status, whichever jobs' they are."""
MAX_DROPPED: Final = 3
"""Such parts that are named."""
UNREAD_AT_ONCE: Final = 200
"""Jobs that cannot be read of which is told in one go: there is room for the events of others."""
_TOO_LARGE_STATUS: Final = 413
_TOO_LARGE: Final = re.compile(r"request is too large|larger than max")
"""etcd's refusals of what the API server would have taken, in its own voice and in gRPC's; they come as a 500."""
_ADMISSION: Final = re.compile(rf"{UNASKED_WEBHOOK}|denied (the )?request")
"""Whatever the status that comes with it: a webhook chooses its own, and one that can't be asked is a 500."""
_OF_SPEC: Final = re.compile(r"\bspec(\.\w+)*: ")
"""A field that no write of a status has touched."""
_QUOTA: Final = re.compile(r"(exceeded|failed|insufficient|status unknown for) quota")
"""How the API server's quota words its refusals; a quota that has just been made counts nothing yet."""


class KubeCluster:
    """Implements the control loop's Cluster on the API server."""

    def __init__(
        self, client: Client, store: Store, recorder: Recorder, *, acts: Callable[[], bool] = lambda: True
    ) -> None:
        """acts: whether this replica may write at this moment."""
        self._acts = acts
        self._client = client
        self._store = store
        self._recorder = recorder
        self._turns: Turns[JobKey] = Turns()
        self._tell_pruned_at = 0.0

    async def write_status(self, job: TrainingJob, status: TrainingJobStatus) -> TrainingJob:
        key = (job.metadata.namespace, job.metadata.name)
        self._take_turn(key, job, status)
        where = path("TrainingJob", *key, sub="status")
        sent = status.dump()
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            # The uid is a precondition too: a job that was deleted and made anew has no use for this status.
            "metadata": {
                "namespace": job.metadata.namespace,
                "name": job.metadata.name,
                "uid": job.metadata.uid,
                "resourceVersion": job.metadata.resource_version,
            },
            "status": sent,
        }
        self._check()
        try:
            with _denials("the status cannot be written"), self._store.writing(key):
                answer = await self._client.request("PUT", where, body=body)
                return self._store.wrote(self._unpruned(key, sent, answer))
        except ChangedError:
            await self._look(key)
            raise ConflictError from None
        except NotFoundError:
            raise GoneError from None

    def _unpruned(self, key: JobKey, sent: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """The answer to the write of a status, with what the server dropped of it.

        Without that the same would be decided, and written, again and again, and nothing that waits for it done.
        """
        status, dropped = whole(sent, answer.get("status") or {})
        if not dropped:
            return answer
        now = asyncio.get_running_loop().time()
        if now >= self._tell_pruned_at:
            self._tell_pruned_at = now + PRUNED_SECONDS
            more = f" and {len(dropped) - MAX_DROPPED} more" if len(dropped) > MAX_DROPPED else ""
            log.error(
                "%s/%s: the API server drops %s%s, which nobody knows once the job is written by somebody else; %s",
                *key,
                ", ".join(dropped[:MAX_DROPPED]),
                more,
                DENIED_REMEDIES[422],
            )
        return answer | {"status": status}

    def _check(self) -> None:
        """Before every write: a replica that may not lead any more, and does not know it yet, writes nothing.

        One that was stopped between this and its write is caught by the server: a status by its resourceVersion, a
        child by its name, a deletion by the uid.
        """
        if not self._acts():
            raise StandbyError

    def _take_turn(self, key: JobKey, job: TrainingJob, status: TrainingJobStatus) -> None:
        """Count a write against the bounds, or put it off."""
        wait = self._turns.wait(key, write_class(job.status, status), asyncio.get_running_loop().time())
        if wait > 0:
            raise LaterError(wait)

    async def _look(self, key: JobKey) -> None:
        """See what stands there now; a watch will tell as well, but may be late."""
        try:
            # A list of one: the right to list is there anyway.
            only = {"fieldSelector": f"metadata.name={key[1]}"}
            found = await self._client.request("GET", path("TrainingJob", key[0]), query=only)
            for raw in found.get("items") or ():
                self._store.saw("TrainingJob", raw)
        except ApiError as error:
            log.debug("%s/%s was not seen after a conflict: %s", *key, error)

    async def create(self, job: TrainingJob, child: dict[str, Any]) -> None:
        kind: Kind = child["kind"]
        namespace, name = job.metadata.namespace, child["metadata"]["name"]
        # What we write ourselves has to be known to Kubernetes 1.30, the oldest that the chart takes.
        query = {"fieldValidation": field_validation(job)}
        # Files come with each batch of Pods, and mostly are there: a used-up quota would refuse them nevertheless.
        made = await self._see(kind, namespace, name) if kind == "ConfigMap" else None
        for _ in range(2):
            if made is not None:
                break
            self._check()
            try:
                made = await self._client.request("POST", path(kind, namespace), query=query, body=child)
            except AlreadyExistsError:
                made = await self._see(kind, namespace, name)  # if it has just gone, its place is free now
            except ApiError as error:
                with _denials(f"the {kind} {name} cannot be made"):
                    raise _refusal(error, kind, name) from None
        if made is None:
            raise UnavailableError(f"{kind} {namespace}/{name} comes and goes")
        self._show(job, kind, made)

    async def _see(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """What stands in a child's place; None for nothing."""
        try:
            with _denials(f"the {kind} {name} cannot be seen"):
                return await self._client.request("GET", path(kind, namespace, name))
        except NotFoundError:
            return None

    def _show(self, job: TrainingJob, kind: Kind, made: dict[str, Any]) -> None:
        """Show the control loop at once what stands in a child's place, whosever it is."""
        if kind in ("Pod", "Service"):
            self._store.saw(kind, made)
            return
        name, owner = made["metadata"]["name"], owner_of(made)
        if owner == job.metadata.uid:
            return
        whose = "is left of an earlier job of this name" if owner else "is not this job's"
        text = f"a {kind} {name} that {whose} exists"
        if owner and patience_left(job.status or TrainingJobStatus(), datetime.now(UTC)) > 0:
            raise LaterError(AGAIN_SECONDS, text)  # the garbage collector is about to take it away
        raise RefusedError("NameTaken", f"{text}; delete it (kubectl delete {kind.lower()} {name})")

    async def delete(self, job: TrainingJob, target: Delete) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": target.uid},
            "propagationPolicy": "Background",
        }
        where = path(target.kind, job.metadata.namespace, target.name)
        self._check()
        try:
            with _denials(f"the {target.kind} {target.name} cannot be deleted"):
                answer = await self._client.request("DELETE", where, body=body)
        except (NotFoundError, ChangedError):
            return  # it is gone, or another one has its name
        metadata = answer.get("metadata")
        if self._store.is_gone(target.uid):
            return  # the watch was faster, and the answer, of the same version as the end, would bring it back
        if target.kind == "Pod" and isinstance(metadata, dict) and metadata.get("deletionTimestamp"):
            self._store.saw("Pod", answer)

    async def emit(self, job: TrainingJob, event: Event) -> None:
        which = Mark(namespace=job.metadata.namespace, name=job.metadata.name, uid=job.metadata.uid or "", version=None)
        rendezvous = (job.status or TrainingJobStatus()).rendezvous or Rendezvous()
        self._recorder.add(which, event, round=rendezvous.round)

    def tell_unread(self) -> None:
        """Record an event at each job that cannot be read: nothing else of it would be seen to.

        At a bounded number of them, and no more than can wait to be recorded; at the others the next time.
        """
        fit = min(UNREAD_AT_ONCE, self._recorder.room) if self._acts() else 0
        for which, why in self._store.take_unread(fit):
            said = f"this release of the operator does not understand the job, and leaves it alone: {why}"
            self._recorder.add(which, Event(type="Warning", reason="NotUnderstood", message=f"{said}; {UNREAD_REMEDY}"))


@contextmanager
def _denials(what: str) -> Iterator[None]:
    """Turns an answer that other writes would get as well into one sentence, with the remedy. what: as it begins."""
    try:
        yield
    except (UnavailableError, NotFoundError, ChangedError):
        raise
    except ApiError as error:
        remedy = _denied_remedy(error)
        said = " ".join(str(error).split())[:MAX_WORDS].rstrip(" .;")
        raise DeniedError(f"{what}: {said}; {remedy}") from None


def _denied_remedy(error: ApiError) -> str:
    if _ADMISSION.search(error.message):
        return RULE_REMEDY
    if isinstance(error, InvalidError) and _OF_SPEC.search(error.message):
        return STORED_REMEDY
    return DENIED_REMEDIES.get(error.status, OTHER_REMEDY)


def _refusal(error: ApiError, kind: Kind, name: str) -> Exception:
    """What the server's no to a create comes to; the error itself, if it has nothing to do with this child."""
    words = error.message[:MAX_WORDS]
    if error.status and _ADMISSION.search(words):
        return RefusedError("AdmissionDenied", words)
    if isinstance(error, NotFoundError):
        return GoneError()  # the namespace
    if isinstance(error, ChangedError):
        return LaterError(AGAIN_SECONDS, words)  # a quota that counts what others make in this very moment
    if isinstance(error, ForbiddenError):
        if _namespace_ends(error):
            return GoneError()
        return RefusedError("QuotaExceeded" if _QUOTA.search(words) else "AdmissionDenied", words)
    if isinstance(error, InvalidError | BadRequestError):
        return RefusedError("AdmissionDenied", words)
    if error.status == _TOO_LARGE_STATUS or _TOO_LARGE.search(words):
        text = f"the {kind} {name} is larger than the API server stores; make spec.program or spec.podTemplate smaller"
        return RefusedError("AdmissionDenied", f"{text} ({words})")
    return error


def _namespace_ends(error: ForbiddenError) -> bool:
    causes = error.details.get("causes")
    return isinstance(causes, list) and any(
        isinstance(cause, dict) and cause.get("reason") == "NamespaceTerminating" for cause in causes
    )
