"""The Pod that measures a job's converted models on a node of the user's choice, as a plain Kubernetes object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from edgecloud.api.job import TrainingJob
from edgecloud.api.spec import MeasureOn
from edgecloud.api.template import CONTAINER as WORKER
from edgecloud_operator.core import names
from edgecloud_operator.core.builders import (
    POD_LAYOUT,
    ROOT,
    Settings,
    child_metadata,
    claim_path,
    pulled,
    templated,
    verbatim,
)
from edgecloud_operator.core.security import container_security, pod_security

CONTAINER: Final = "measure"
PROGRAM: Final = ("python", "-P", "-m", "edgecloud.edge.measure")
"""-P: a select.py in the folder where a local run was started is not for us."""
FOLDER: Final = "export"
"""Of the converted models, in the results."""
GRACE_SECONDS: Final = 10
"""There is nothing to save."""
_NODE_ALONE: Final = ("", "file", "local", "memory")
"""Schemes of URLs that mean another place on each node."""
_OF_TEMPLATE: Final = ("imagePullSecrets", "securityContext")
"""What of podTemplate.spec is for this Pod as well: it comes from the same registry, and reads what workers wrote."""


def measure_on(job: TrainingJob) -> MeasureOn | None:
    """Where the converted models are to be measured, if that is not in worker 0."""
    return job.spec.export.measure_on if job.spec.export else None


def unreachable(job: TrainingJob, settings: Settings) -> str | None:
    """Why another node could not read the converted models; None if it could, or need not."""
    if measure_on(job) is None or settings.one_machine or _shared(job) or _url(job):
        return None
    storage = job.spec.storage_or_default()
    where = f"the claim {storage.claim_name}, which is ReadWriteOnce" if storage.claim_name else "an emptyDir"
    where = f"export.measureOn: worker 0 would leave the converted models in {where}"
    return f"{where}, and the Pod that measures could not read them there; no worker is started for that"


def _shared(job: TrainingJob) -> bool:
    """Whether every node can mount the job's storage."""
    storage = job.spec.storage_or_default()
    return storage.claim_name is not None and storage.access_mode == "ReadWriteMany"


def _url(job: TrainingJob) -> str | None:
    """The URL that the models are copied to, if it means the same on every node."""
    destination = (job.spec.export.destination if job.spec.export else None) or ""
    try:
        urlsplit(destination)
    except ValueError:
        return None
    # fsspec chains file systems: what comes last is where the files are.
    scheme = destination.partition("://")[0].rpartition("::")[2].lower() if "://" in destination else ""
    return destination if scheme not in _NODE_ALONE else None


def measuring_environment(job: TrainingJob, export: str) -> dict[str, str]:
    """Variables of the program that measures. export: folder, or its URL.

    EDGECLOUD_NODE is not known before the Pod has a node: the shell adds it.
    """
    assert job.spec.export is not None
    return {"EDGECLOUD_EXPORT": export, "EDGECLOUD_MAX_ACCURACY_LOSS": str(job.spec.export.max_accuracy_loss)}


def build_measurer(job: TrainingJob, settings: Settings) -> dict[str, Any]:
    """The measuring Pod. It fits the restricted Pod Security level, and it has no token of any kind."""
    where = measure_on(job)
    assert where is not None
    name, spec = job.metadata.name, job.spec
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": child_metadata(job, names.measurer_name(name), names.measurer_labels(name)),
        "spec": {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": pod_security(settings.worker_user),
            "containers": [_container(job, where, settings)],
            "volumes": _volumes(job),
        },
    }
    placement = {
        "nodeSelector": where.node_selector,
        "tolerations": list(where.tolerations or ()),
        "priorityClassName": spec.priority_class_name,
        "serviceAccountName": spec.service_account_name,
    }
    pod["spec"] |= {key: value for key, value in placement.items() if value}
    return templated(pod, _template(job))


def _template(job: TrainingJob) -> dict[str, Any]:
    """The part of the workers' template that is for this Pod too."""
    template = job.spec.template()
    spec = template.get("spec")
    if not isinstance(spec, Mapping):
        return {"metadata": template.get("metadata")}
    kept = {key: spec[key] for key in _OF_TEMPLATE if key in spec}
    if not _shared(job):
        kept["containers"] = [{"name": CONTAINER} | _credentials(spec.get("containers"))]
    return {"metadata": template.get("metadata"), "spec": kept}


def _credentials(containers: Any) -> dict[str, Any]:
    """The environment of the template's worker: what copies the models to a URL and what fetches them need the same."""
    for one in containers if isinstance(containers, list) else ():
        if isinstance(one, Mapping) and one.get("name") == WORKER:
            env = one["env"] if isinstance(one.get("env"), list) else []
            theirs = [each for each in env if isinstance(each, Mapping) and not _is_ours(each.get("name"))]
            return ({"env": theirs} if theirs else {}) | ({"envFrom": one["envFrom"]} if "envFrom" in one else {})
    return {}


def _is_ours(name: Any) -> bool:
    return not isinstance(name, str) or name.startswith("EDGECLOUD_")


def _container(job: TrainingJob, where: MeasureOn, settings: Settings) -> dict[str, Any]:
    export = f"{POD_LAYOUT.results}/{FOLDER}" if _shared(job) else _url(job) or ""
    environment = measuring_environment(job, export)
    variables: list[dict[str, Any]] = [{"name": key, "value": verbatim(value)} for key, value in environment.items()]
    variables.append({"name": "EDGECLOUD_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    container: dict[str, Any] = {
        "name": CONTAINER,
        **pulled(settings.edge_image, settings.edge_pull_policy),
        "command": list(PROGRAM),
        "env": variables,
        "securityContext": container_security(),
        "volumeMounts": _mounts(job),
        "terminationMessagePolicy": "File",
    }
    if limits_or_requests := where.resources.dump() if where.resources else None:
        container["resources"] = limits_or_requests
    return container


def _mounts(job: TrainingJob) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the Pod's own
    if _shared(job):
        mounts.append({"name": "storage", "mountPath": f"{ROOT}/storage", "subPath": claim_path(job)})
    return mounts


def _volumes(job: TrainingJob) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if _shared(job):
        claim = {"claimName": job.spec.storage_or_default().claim_name}
        volumes.append({"name": "storage", "persistentVolumeClaim": claim})
    return volumes
