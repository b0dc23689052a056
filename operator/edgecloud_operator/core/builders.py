"""A job's children as plain Kubernetes objects: the headless Service, the files' ConfigMap, the worker Pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edgecloud.api.job import API_VERSION, KIND, TrainingJob
from edgecloud.api.template import CONTAINER
from edgecloud_operator.core import names
from edgecloud_operator.core.environment import Layout, launcher_environment, program_command
from edgecloud_operator.core.home import with_home
from edgecloud_operator.core.launcher import (
    FOLDER,
    LAUNCHER,
    LAUNCHER_FILE,
    launcher_container,
    with_launcher_resources,
)
from edgecloud_operator.core.merge import merged
from edgecloud_operator.core.security import USER, container_security, pod_security

ROOT: Final = "/edgecloud"
_LAUNCHERS: Final = ("edgecloud.launcher", LAUNCHER_FILE)
_NOT_OF_TEMPLATES: Final = frozenset(
    ("name", "generateName", "namespace", "uid", "selfLink", "resourceVersion", "generation", "creationTimestamp",
     "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "managedFields")
)  # fmt: skip
"""What Kubernetes' own controllers pass over in a Pod template's metadata. What is no field, the server refuses."""
_OF_PODS_ALONE: Final = "prometheus.io/"
"""Annotations by which Pods are scraped, and Services as well: workers would be, twice."""
EXTRA_GRACE_SECONDS: Final = 15
"""What the launcher needs beside the processes' own grace: the word to the others, and the way out."""

POD_LAYOUT: Final = Layout(
    checkpoints=f"{ROOT}/storage/checkpoints",
    results=f"{ROOT}/storage/results",
    scratch=f"{ROOT}/scratch",
    token_file=f"{ROOT}/identity/token",
    ca_file=f"{ROOT}/identity/ca.crt",
    working_dir=f"{ROOT}/files",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the operator's release and installation add to a job."""

    trainer_image: str = "edgecloud/trainer:dev"
    launcher_image: str = "edgecloud/operator:dev"
    """Has the launcher, for images of the users' own that don't."""
    edge_image: str = "edgecloud/edge:dev"
    """Measures converted models."""
    trainer_pull_policy: str | None = None
    launcher_pull_policy: str | None = None
    edge_pull_policy: str | None = None
    """Of each of the three images: Always, IfNotPresent or Never; None: as Kubernetes decides."""
    worker_user: int | None = USER
    """Id of the user, its group and its volumes' group that worker and measuring Pods ask for; None: whichever the
    platform gives them."""
    one_machine: bool = False
    """Whether all of a job runs on one machine, as in a local run: what one process writes every other one can read."""
    give_back_seconds: float = 300.0
    """How long, and at most twice as long, untrained workers keep places while no scheduler finds one for the others;
    0: for ever."""
    coordinator: str = "https://edgecloud-coordinator:8443"
    ca: str = ""
    """Certificates (PEM) that workers check an https coordinator with; empty: those that their images trust."""


def pulled(image: str, policy: str | None) -> dict[str, Any]:
    """The fields of a container that say which image it has, and when that is pulled."""
    return {"image": image} | ({"imagePullPolicy": policy} if policy else {})


def owner_reference(job: TrainingJob) -> dict[str, Any]:
    """The job as the owner of a child: with it goes the child."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid or "",
        "controller": True,
        "blockOwnerDeletion": True,
    }


def audience(job: TrainingJob) -> str:
    """Audience of the workers' tokens: the job, this one and no later one of its name."""
    return f"edgecloud.io/{job.metadata.uid}"


def build_service(job: TrainingJob) -> dict[str, Any]:
    """The headless Service: it gives the workers their host names, ready or not, and carries no traffic of its own."""
    name = job.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _marked(job, names.service_name(name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.job_labels(name) | {names.COMPONENT_LABEL: names.WORKER},
        },
    }


def build_files(job: TrainingJob) -> dict[str, Any] | None:
    """The ConfigMap of program.files; None without files."""
    if not job.spec.program or not job.spec.program.files:
        return None
    name = job.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _marked(job, names.files_name(name)),
        "data": dict(job.spec.program.files),
    }


def build_pod(job: TrainingJob, index: int, image: str, settings: Settings) -> dict[str, Any]:
    """A worker Pod. It fits the restricted Pod Security level, and it mounts no API token."""
    name, spec = job.metadata.name, job.spec
    pool = spec.pool_of(index)
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": child_metadata(job, names.worker_name(name, index), names.worker_labels(name, index)),
        "spec": {
            "restartPolicy": "Never",
            "hostname": names.worker_name(name, index),
            "subdomain": names.service_name(name),
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": spec.stop_grace_seconds + EXTRA_GRACE_SECONDS,
            "securityContext": pod_security(settings.worker_user),
            "containers": [_container(job, index, image, settings)],
            "volumes": _volumes(job, index, settings),
        },
    }
    if settings.ca:
        pod["metadata"]["annotations"] = {names.CA_ANNOTATION: settings.ca}
    if _is_foreign(job):
        image_of_ours = pulled(settings.launcher_image, settings.launcher_pull_policy)
        pod["spec"]["initContainers"] = [launcher_container(image_of_ours)]
    placement = {
        # An empty one of a pool's takes the job's away.
        "nodeSelector": pool.node_selector if pool and pool.node_selector is not None else spec.node_selector,
        "tolerations": list((pool.tolerations if pool and pool.tolerations is not None else spec.tolerations) or ())
        + _gpu_toleration(job, index),
        "priorityClassName": spec.priority_class_name,
        "serviceAccountName": spec.service_account_name,
    }
    pod["spec"] |= {key: value for key, value in placement.items() if value}
    result = templated(pod, spec.template())
    return with_launcher_resources(with_home(result, CONTAINER), CONTAINER) if _is_foreign(job) else result


def templated(pod: dict[str, Any], pod_template: Mapping[str, Any]) -> dict[str, Any]:
    """A Pod with what a user's Pod template says of it; whose it is and how often it starts stays ours to say."""
    if not pod_template:
        return pod
    template = {key: value for key in ("metadata", "spec") if isinstance(value := pod_template.get(key), Mapping)}
    # The rest of metadata is no template's to say, and some of it the server meets with an error of its own.
    said = {key: value for key, value in template.get("metadata", {}).items() if key not in _NOT_OF_TEMPLATES}
    result = merged(pod, template | {"metadata": said})
    # Who a Pod belongs to and what it is called is not the template's to say; and a launcher lives once.
    labels = result["metadata"].get("labels")
    result["metadata"] |= {key: pod["metadata"][key] for key in ("name", "namespace", "ownerReferences")}
    result["metadata"]["labels"] = (labels if isinstance(labels, Mapping) else {}) | pod["metadata"]["labels"]
    annotations = result["metadata"].get("annotations")
    if ours := pod["metadata"].get("annotations"):
        result["metadata"]["annotations"] = (annotations if isinstance(annotations, Mapping) else {}) | ours
    result["spec"]["restartPolicy"] = pod["spec"]["restartPolicy"]
    if result["spec"].get("hostNetwork") is True:
        # Kubernetes' default there is the node's own DNS, which knows neither the workers nor the operator.
        result["spec"].setdefault("dnsPolicy", "ClusterFirstWithHostNet")
    _keep_command(pod["spec"], result["spec"])
    return result


def _keep_command(pod: dict[str, Any], result: dict[str, Any]) -> None:
    """The container that trains starts the launcher, whatever a stored template has it run in its place.

    Without the launcher each Pod would do all of the work, alone. A command that names it may start it its own way.
    """
    (ours,), theirs = pod["containers"], result.get("containers")
    first, *others = theirs if isinstance(theirs, list) and theirs else [None]
    if not isinstance(first, dict) or first.get("name") != ours["name"] or first.get("command") == ours["command"]:
        return
    if not any(name in str(first.get("command")) for name in _LAUNCHERS):
        kept = {key: value for key, value in first.items() if key != "args"}
        result["containers"] = [kept | {"command": ours["command"]}, *others]


def _is_foreign(job: TrainingJob) -> bool:
    """Whether the program comes in an image that need not have the launcher inside."""
    return job.spec.program is not None and job.spec.image is not None


def child_metadata(job: TrainingJob, name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Metadata of a child: its name and labels, and whose it is."""
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": labels,
        "ownerReferences": [owner_reference(job)],
    }


def _marked(job: TrainingJob, name: str) -> dict[str, Any]:
    """Metadata of a child that is no Pod. It bears what the template has Pods bear: policies look at all objects."""
    said = job.spec.template().get("metadata") or {}
    labels, annotations = (_texts(said.get(key)) for key in ("labels", "annotations"))
    metadata = child_metadata(job, name, labels | names.job_labels(job.metadata.name))
    kept = {key: value for key, value in annotations.items() if not key.startswith(_OF_PODS_ALONE)}
    return metadata | ({"annotations": kept} if kept else {})


def _texts(said: Any) -> dict[str, str]:
    """Labels or annotations of a template, without what no server takes for one."""
    return {key: value for key, value in said.items() if isinstance(value, str)} if isinstance(said, Mapping) else {}


def _container(job: TrainingJob, index: int, image: str, settings: Settings) -> dict[str, Any]:
    program, resources = job.spec.program, job.spec.resources_of(index)
    layout = replace(
        POD_LAYOUT,
        own_storage=job.spec.storage_or_default().claim_name is None,
        ca_file=POD_LAYOUT.ca_file if settings.ca else None,
    )
    environment = launcher_environment(job, index, layout=layout, coordinator=settings.coordinator)
    variables: list[dict[str, Any]] = [{"name": key, "value": verbatim(value)} for key, value in environment.items()]
    for name, path in (
        ("EDGECLOUD_POD_UID", "metadata.uid"),
        ("EDGECLOUD_ADDRESS", "status.podIP"),
        ("EDGECLOUD_NODE", "spec.nodeName"),
    ):
        variables.append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    for variable in (program.env if program else None) or ():
        said = variable.dump()
        variables.append(said | {"value": verbatim(said["value"])} if "value" in said else said)
    # -I: neither a select.py among the user's files nor the PYTHONPATH of the program is for the launcher.
    launcher = ["python3", "-I", LAUNCHER_FILE] if _is_foreign(job) else ["python", "-I", "-m", "edgecloud.launcher"]
    container: dict[str, Any] = {
        "name": CONTAINER,
        **pulled(image, settings.trainer_pull_policy if job.spec.image is None else None),
        "command": [*launcher, "--", *map(verbatim, program_command(job))],
        "env": variables,
        "securityContext": container_security(),
        "volumeMounts": _mounts(job, index),
        "terminationMessagePolicy": "File",
    }
    working_dir = program.working_dir if program else None
    if working_dir or (program and program.files):
        container["workingDir"] = working_dir or POD_LAYOUT.working_dir
    if limits_or_requests := resources.dump():
        container["resources"] = limits_or_requests
    return container


def verbatim(text: str) -> str:
    """As a Pod has to spell a text so that a process gets it as it is: a kubelet takes $(NAME) for a variable's value,
    and $$ for $. In a local run nobody does."""
    return text.replace("$", "$$")


def claim_path(job: TrainingJob) -> str:
    """The job's folder within its claim."""
    return job.spec.storage_or_default().sub_path or job.metadata.name


def _has_claim(job: TrainingJob, index: int) -> bool:
    """A claim that one node mounts at a time is worker 0's alone."""
    storage = job.spec.storage_or_default()
    return storage.claim_name is not None and (storage.access_mode == "ReadWriteMany" or index == 0)


def _mounts(job: TrainingJob, index: int) -> list[dict[str, Any]]:
    storage: dict[str, Any] = {"name": "storage", "mountPath": f"{ROOT}/storage"}
    if _has_claim(job, index):
        storage["subPath"] = claim_path(job)
    mounts = [
        storage,
        {"name": "scratch", "mountPath": POD_LAYOUT.scratch},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the Pod's own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        {"name": "identity", "mountPath": f"{ROOT}/identity", "readOnly": True},
    ]
    if job.spec.program and job.spec.program.files:
        mounts.append({"name": "files", "mountPath": POD_LAYOUT.working_dir, "readOnly": True})
    if _is_foreign(job):
        mounts.append({"name": LAUNCHER, "mountPath": FOLDER, "readOnly": True})
    return mounts


def _volumes(job: TrainingJob, index: int, settings: Settings) -> list[dict[str, Any]]:
    storage = job.spec.storage_or_default()
    empty: dict[str, Any] = {"sizeLimit": storage.size_limit} if storage.size_limit is not None else {}
    claim = {"persistentVolumeClaim": {"claimName": storage.claim_name}}
    token = {"audience": audience(job), "expirationSeconds": 3600, "path": "token"}
    identity: list[dict[str, Any]] = [{"serviceAccountToken": token}]
    if settings.ca:
        field = {"fieldPath": f"metadata.annotations['{names.CA_ANNOTATION}']"}
        identity.append({"downwardAPI": {"items": [{"path": "ca.crt", "fieldRef": field}]}})
    volumes: list[dict[str, Any]] = [
        {"name": "storage", **(claim if _has_claim(job, index) else {"emptyDir": empty})},
        {"name": "scratch", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "identity", "projected": {"sources": identity}},
    ]
    if job.spec.program and job.spec.program.files:
        volumes.append({"name": "files", "configMap": {"name": names.files_name(job.metadata.name)}})
    if _is_foreign(job):
        volumes.append({"name": LAUNCHER, "emptyDir": {}})
    return volumes


def _gpu_toleration(job: TrainingJob, index: int) -> list[dict[str, str]]:
    """GPU nodes are commonly tainted with the resource's name, so that only those who ask for one land there."""
    if job.spec.gpus_of(index) == 0:
        return []
    return [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
