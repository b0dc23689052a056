"""Kubernetes objects, as anybody may have made or mangled them, read into the core's values. Pure, and never raises.

(But for `see_job`, whose UnreadableError is its answer.)
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, get_args

from pydantic import ValidationError

from edgecloud.api.job import API_VERSION, GROUP, KIND, TrainingJob
from edgecloud.api.template import CONTAINER as WORKER
from edgecloud.api.types import MAX_NAME, MAX_WORKERS
from edgecloud_operator.coordinator.desk import JobKey
from edgecloud_operator.core import measurer
from edgecloud_operator.core.names import CA_ANNOTATION, JOB_LABEL, MANAGED_BY_LABEL, MANAGER
from edgecloud_operator.core.observed import Pod, PodPhase, Role, Service, Termination
from edgecloud_operator.core.termination import MAX_BYTES, parse_termination, unstarted
from edgecloud_operator.kube.parts import EPOCH, MAX_MESSAGE, mapping, moment, sequence, text
from edgecloud_operator.kube.startup import blocked, placed_at, running_since, waits_since

SELECTOR: Final = f"{MANAGED_BY_LABEL}={MANAGER},{JOB_LABEL}"
"""Label selector of every child; what doesn't fit it is not watched."""
MAX_DEPTH: Final = 64
MAX_CA: Final = 65_536

_NAME: Final = re.compile(
    rf"(?P<job>[a-z][a-z0-9-]{{0,{MAX_NAME - 1}}})-(measure|worker-(?P<index>0|[1-9][0-9]{{0,2}}))"
)
"""Of a Pod: how it ends tells what the Pod is for, so that no two jobs can mean the same one."""
_CONTAINERS: Final[dict[Role, str]] = {"worker": WORKER, "measure": measurer.CONTAINER}
_METADATA: Final = (
    "name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp", "deletionTimestamp",
)  # fmt: skip
"""What the core reads of a job's metadata. A newer server may send fields that we don't know."""


class UnreadableError(Exception):
    """This is no TrainingJob as this operator knows them; the message says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What tells one object, in one of its versions, from all others. version is None where it is no number."""

    namespace: str
    name: str
    uid: str
    version: int | None


@dataclass(frozen=True, kw_only=True)
class SeenPod:
    """A Pod that bears the name of a job's. Whether it is the job's own depends on the job: owner is a job's uid.

    watched: whether it bears the labels that a watch tells of. ca: the certificates that its launcher goes by; empty
    where it was made without.
    """

    key: JobKey
    owner: str
    watched: bool
    pod: Pod
    ca: str = ""


@dataclass(frozen=True, kw_only=True)
class SeenService:
    """A Service that bears a job's name; see SeenPod."""

    key: JobKey
    owner: str
    watched: bool
    service: Service


def mark(raw: Any) -> Mark | None:
    """Which object this is; None if it is none."""
    metadata = mapping(mapping(raw).get("metadata"))
    namespace, name, uid = (text(metadata.get(key), 253) for key in ("namespace", "name", "uid"))
    if not (namespace and name and uid) or len(uid) > 64:
        return None
    return Mark(namespace=namespace, name=name, uid=uid, version=version_of(metadata.get("resourceVersion")))


def version_of(text: Any) -> int | None:
    """A resourceVersion as the number that it is; they can be compared among objects of a kind."""
    fits = isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= 20
    return int(text) if fits else None


def see_job(raw: Any) -> TrainingJob:
    """The job of an object.

    What a newer release has added to status is passed over: it can be read without, and it is written anew from what is
    known. An unknown field of spec is another matter: it may change what the job is.

    A job that breaks a rule which is newer than the job is read too, if the trainer refuses what breaks it: the status
    tells of that (exit code 2), while of a job that is not read nobody would hear again, nor of its Pods. All bounds of
    single fields, and the rules that the operator goes by, hold for stored jobs as well.

    Raises:
        UnreadableError: it is none, or one of another time.
    """
    whole = mapping(raw)
    metadata = mapping(whole.get("metadata"))
    data = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {key: metadata[key] for key in _METADATA if metadata.get(key) is not None},
        "spec": whole.get("spec"),
    }
    if whole.get("status"):
        data["status"] = whole["status"]
    try:
        try:
            return TrainingJob.parse(data, stored=True)
        except (ValidationError, RecursionError):
            data = _cut(data, MAX_DEPTH)
        try:
            return TrainingJob.parse(data, stored=True)
        except ValidationError as error:
            if not (known := _without_unknown_status(data, error)):
                raise
            return TrainingJob.parse(known, stored=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnreadableError(text(f"{place}: {first['msg']}", 300)) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableError(f"no plain data: {type(error).__name__}") from None


def _cut(value: Any, depth: int) -> Any:
    """The same without what is nested deeper than that: no field that means something is, and nothing could read it."""
    if depth == 0 and isinstance(value, (dict, list)):
        return None
    if isinstance(value, dict):
        return {key: _cut(entry, depth - 1) for key, entry in value.items()}
    return [_cut(entry, depth - 1) for entry in value] if isinstance(value, list) else value


def _without_unknown_status(data: dict[str, Any], error: ValidationError) -> dict[str, Any] | None:
    """The same without the fields of status that are not known here; None if there are none."""
    unknown = [one["loc"] for one in error.errors(include_url=False) if one["type"] == "extra_forbidden"]
    places = [loc for loc in unknown if loc and loc[0] == "status"]
    if not places:
        return None
    copy: dict[str, Any] = json.loads(json.dumps(data))
    for loc in places:
        parent: Any = copy
        for part in loc[:-1]:
            if isinstance(parent, dict) and part in parent:
                parent = parent[str(part)]
            elif isinstance(parent, list) and isinstance(part, int) and part < len(parent):
                parent = parent[part]
            else:
                return None
        if isinstance(parent, dict):
            parent.pop(str(loc[-1]), None)
    return copy


def see_pod(raw: Any) -> SeenPod | None:
    """The Pod of an object; None if its name is none of a job's."""
    which = mark(raw)
    named = _NAME.fullmatch(which.name) if which else None
    index = int(named["index"] or 0) if named else 0
    if which is None or named is None or index >= MAX_WORKERS:
        return None
    role: Role = "measure" if named["index"] is None else "worker"
    whole = mapping(raw)
    metadata, spec, status = (mapping(whole.get(key)) for key in ("metadata", "spec", "status"))
    phase = _phase(status.get("phase"))
    container = _container(status, _CONTAINERS[role])
    created_at = moment(metadata.get("creationTimestamp")) or EPOCH
    termination = _termination(container, role, created_at)
    pod = Pod(
        name=which.name,
        uid=which.uid,
        index=index,
        role=role,
        phase=phase,
        created_at=created_at,
        terminating=metadata.get("deletionTimestamp") is not None,
        leaves_by=moment(metadata.get("deletionTimestamp")),
        finalizers=tuple(text(one, 253) for one in sequence(metadata.get("finalizers"))[:3]),
        placed_at=placed_at(status),
        waits_since=waits_since(phase, container, status, spec),
        running_since=running_since(phase, container, status),
        node=text(spec.get("nodeName"), 253),
        termination=termination,
        blocked=blocked(phase, status),
        over=termination is not None,
        why=_why(phase, status, container, began=termination is not None),
    )
    # Thousands of Pods have the same certificates.
    ca = sys.intern(text(mapping(metadata.get("annotations")).get(CA_ANNOTATION), MAX_CA))
    key = (which.namespace, named["job"])
    return SeenPod(key=key, owner=_owner(metadata), watched=_watched(metadata), pod=pod, ca=ca)


def see_service(raw: Any) -> SeenService | None:
    """The Service of an object; its name may be a job's."""
    which = mark(raw)
    if which is None:
        return None
    metadata = mapping(mapping(raw).get("metadata"))
    return SeenService(
        key=(which.namespace, which.name),
        owner=_owner(metadata),
        watched=_watched(metadata),
        service=Service(name=which.name, uid=which.uid),
    )


def owner_of(raw: Any) -> str:
    """Uid of the TrainingJob that owns an object; empty if none does."""
    return _owner(mapping(mapping(raw).get("metadata")))


def _owner(metadata: dict[str, Any]) -> str:
    for reference in map(mapping, sequence(metadata.get("ownerReferences"))):
        group = text(reference.get("apiVersion"), 300).partition("/")[0]
        if reference.get("controller") is True and (group, reference.get("kind")) == (GROUP, KIND):
            return text(reference.get("uid"), 64)
    return ""


def _watched(metadata: dict[str, Any]) -> bool:
    labels = mapping(metadata.get("labels"))
    return labels.get(MANAGED_BY_LABEL) == MANAGER and JOB_LABEL in labels


def _phase(value: Any) -> PodPhase:
    phases: tuple[PodPhase, ...] = get_args(PodPhase)
    return next((phase for phase in phases if phase == value), "Pending" if value is None else "Unknown")


def _container(status: dict[str, Any], name: str) -> dict[str, Any]:
    """Status of our container; an admission hook may have put others beside it."""
    found = (one for one in map(mapping, sequence(status.get("containerStatuses"))) if one.get("name") == name)
    return next(found, {})


def _termination(container: dict[str, Any], role: Role, created_at: datetime) -> Termination | None:
    """How our container ended. Its message is its program's, if that came to write one."""
    ended = _ended(container)
    code = ended.get("exitCode")
    if type(code) is not int:
        return None
    code = code if 0 <= code <= 255 else 255
    message, out_of_memory = text(ended.get("message"), MAX_BYTES), ended.get("reason") == "OOMKilled"
    if role == "measure":
        return Termination(exit_code=code, out_of_memory=out_of_memory, message=message)
    end = parse_termination(message, code, out_of_memory=out_of_memory)
    return unstarted(end, _unstarted(container), max(moment(ended.get("finishedAt")) or EPOCH, created_at))


def _ended(container: dict[str, Any]) -> dict[str, Any]:
    return mapping(mapping(container.get("state")).get("terminated"))


def _unstarted(container: dict[str, Any]) -> str:
    """The runtime's words, in one line, on why a container could not be started; empty if it was."""
    ended = _ended(container)
    if (word := ended.get("reason")) not in ("StartError", "ContainerCannotRun"):
        return ""
    said = " ".join(text(ended.get("message"), MAX_MESSAGE).split())
    return f"{word}: {said}" if said else str(word)


def _why(phase: PodPhase, status: dict[str, Any], container: dict[str, Any], *, began: bool) -> str:
    """Why a Pod failed, where its worker's program can't tell: evicted, not admitted, not prepared, not started.

    container: our own, with its worker. began: whether it had its turn; then what came before it went well.
    """
    if words := _unstarted(container):
        return words
    if phase != "Failed":
        return ""
    if word := text(status.get("reason"), 64):
        said = text(status.get("message"), MAX_MESSAGE)
        return f"{word}: {said}" if said else word
    for one in map(mapping, sequence(status.get("initContainerStatuses")) if not began else ()):
        ended = _ended(one)
        code = ended.get("exitCode")
        if type(code) is int and code != 0:
            said = text(ended.get("message"), MAX_MESSAGE).strip() or text(ended.get("reason"), 64)
            words = f"init container {text(one.get('name'), 63)} ended with {code}"
            return f"{words}: {said}" if said else words
    return ""
