"""Names and labels of a job's children: functions of the job, so that nothing has to be remembered."""

from __future__ import annotations

from typing import Final

from edgecloud.api.job import GROUP

JOB_LABEL: Final = f"{GROUP}/job"
INDEX_LABEL: Final = f"{GROUP}/worker-index"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
WORKER: Final = "worker"
MEASURER: Final = "measure"
"""What a Pod is for: values of that label."""
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "edgecloud"
CA_ANNOTATION: Final = f"{GROUP}/coordinator-ca"
"""On a worker Pod: the certificates by which its launcher knows the coordinator. A volume shows them to it."""
CONTROLLER: Final = f"{GROUP}/operator"
"""Our name in spec.managedBy."""


def service_name(job: str) -> str:
    """Name of the headless Service; the workers' subdomain."""
    return job


def worker_name(job: str, index: int) -> str:
    """Name, and host name, of a worker Pod."""
    return f"{job}-worker-{index}"


def measurer_name(job: str) -> str:
    """Name of the Pod that measures the converted models. No worker's name ends like this."""
    return f"{job}-measure"


def files_name(job: str) -> str:
    """Name of the ConfigMap that holds program.files."""
    return f"{job}-files"


def job_labels(job: str) -> dict[str, str]:
    """Labels of every child."""
    return {MANAGED_BY_LABEL: MANAGER, JOB_LABEL: job}


def worker_labels(job: str, index: int) -> dict[str, str]:
    """Labels of a worker Pod."""
    return job_labels(job) | {COMPONENT_LABEL: WORKER, INDEX_LABEL: str(index)}


def measurer_labels(job: str) -> dict[str, str]:
    """Labels of the Pod that measures: no selector of workers fits it."""
    return job_labels(job) | {COMPONENT_LABEL: MEASURER}


def worker_selector(job: str) -> str:
    """Selector of the job's worker Pods, in the form of the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in (*job_labels(job).items(), (COMPONENT_LABEL, WORKER)))
