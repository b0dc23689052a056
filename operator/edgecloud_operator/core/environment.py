"""The environment of a worker's launcher: one function for a Pod and for a local process."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgecloud.api.job import TrainingJob


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where things lie, as a worker sees them. Absolute paths; token_file and the folders are there when it starts."""

    checkpoints: str
    results: str
    scratch: str
    token_file: str
    ca_file: str | None = None
    working_dir: str | None = None
    """Where program.files were laid."""
    own_storage: bool = False
    """Whether checkpoints and results are this worker's alone, and go with it."""


def launcher_environment(job: TrainingJob, index: int, *, layout: Layout, coordinator: str) -> dict[str, str]:
    """Variables that tell a launcher who it is, where it asks, and where its program finds its folders.

    The Pod's uid, address and node are not known before it exists: the shell adds EDGECLOUD_POD_UID, EDGECLOUD_ADDRESS
    and EDGECLOUD_NODE.
    """
    environment = {
        "EDGECLOUD_COORDINATOR": coordinator,
        "EDGECLOUD_TOKEN_FILE": layout.token_file,
        "EDGECLOUD_NAMESPACE": job.metadata.namespace,
        "EDGECLOUD_JOB": job.metadata.name,
        "EDGECLOUD_JOB_UID": job.metadata.uid or "",
        "EDGECLOUD_WORKER_INDEX": str(index),
        "EDGECLOUD_SCRATCH": layout.scratch,
        "EDGECLOUD_CHECKPOINT_DIR": layout.checkpoints,
        "EDGECLOUD_RESULTS_DIR": layout.results,
        "EDGECLOUD_MAX_RESTARTS": str(job.spec.restart_policy_or_default().max_restarts),
        "EDGECLOUD_STOP_GRACE_SECONDS": str(job.spec.stop_grace_seconds),
    }
    if job.spec.trainer is not None:
        environment |= {
            "EDGECLOUD_TRAINER": _trainer(job, index, own_storage=layout.own_storage),
            "EDGECLOUD_STANDBY": str(job.spec.processes_of(index)),
        }
    if layout.ca_file and coordinator.startswith("https:"):
        environment["EDGECLOUD_CA_FILE"] = layout.ca_file
    return environment


def _trainer(job: TrainingJob, index: int, *, own_storage: bool) -> str:
    """The built-in trainer's configuration: the parts of the spec that it reads."""
    assert job.spec.trainer is not None
    said = {
        "trainer": job.spec.trainer.dump(),
        "storage": job.spec.storage_or_default().dump(),
        "gpus": job.spec.gpus_of(index),
        "wholeGpus": job.spec.whole_gpus_of(index),
        "ownStorage": own_storage,
    } | ({"export": job.spec.export.dump()} if job.spec.export else {})
    return json.dumps(said, separators=(",", ":"))


def program_command(job: TrainingJob) -> list[str]:
    """What each rank runs."""
    if job.spec.program:
        return [*job.spec.program.command, *(job.spec.program.args or ())]
    return ["python", "-m", "edgecloud_trainer.train"]
