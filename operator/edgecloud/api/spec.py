"""What a user asks for: `spec` of a TrainingJob."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from edgecloud.api.base import Model
from edgecloud.api.template import PodTemplate
from edgecloud.api.trainer import TrainerSpec
from edgecloud.api.types import (
    MAX_WORKERS,
    NUL_REMEDY,
    WITHOUT_NUL,
    AbsolutePath,
    EnvName,
    FileName,
    Image,
    Label,
    PassedThrough,
    Quantity,
    Seconds,
    Subdomain,
    amount,
)

MAX_FILES_SIZE: Final = 256 * 1024
"""Characters in all of program.files: they travel in one ConfigMap."""
MAX_ENV_SIZE: Final = 128 * 1024
"""Characters in all values of program.env: every worker Pod carries them."""
MAX_PROCESSES: Final = 64
"""Training processes in one worker."""
WHOLE_GPU: Final = "nvidia.com/gpu"
"""The GPUs that a worker has a process for each of, unless the user says otherwise; a share or slice is for one."""
GPU: Final = re.compile(r"nvidia\.com/(gpu|gpu\..+|mig-.+)")
"""What NVIDIA's device plugin offers GPUs as: whole, shared (gpu.shared), in slices (mig-1g.10gb)."""

Argument = Annotated[str, Field(max_length=4096, pattern=WITHOUT_NUL, json_schema_extra=NUL_REMEDY)]
Workers = Annotated[int, Field(ge=1, le=MAX_WORKERS)]


def _counted(resources: Any) -> Any:
    """Of what a device plugin offers there are no parts; in quotes, as other quantities, 0.5 would not do either."""
    for name, value in resources.items() if isinstance(resources, dict) else ():
        if "/" in str(name) and isinstance(value, float):
            said = {"message": f"{name} is counted in whole ones", "remedy": "write a whole number, such as 1"}
            raise PydanticCustomError("rule", "{message}", {**said, "path": [name]})
    return resources


Resources = Annotated[
    dict[Annotated[str, Field(max_length=317)], Quantity], Field(max_length=32), BeforeValidator(_counted)
]
NodeSelector = Annotated[
    dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]], Field(max_length=32)
]
Tolerations = Annotated[tuple[PassedThrough, ...], Field(max_length=32)]


class ResourceRequirements(Model):
    """Compute resources of one worker Pod, in Kubernetes' own form."""

    requests: Resources | None = Field(None, description="What the scheduler sets aside for each worker Pod.")
    limits: Resources | None = Field(
        None, description="What each worker Pod may use at most; GPUs stand here, as nvidia.com/gpu."
    )


class Pool(Model):
    """A group of like nodes in a job that spans unlike ones, such as cloud machines and PCs."""

    name: Label = Field(description="Name of the pool, unique in the job.")
    workers: Workers = Field(description="Worker Pods in this pool.")
    resources: ResourceRequirements | None = Field(None, description="Compute resources of each worker Pod here.")
    node_selector: NodeSelector | None = Field(None, description="Labels that a node must bear.")
    tolerations: Tolerations | None = Field(None, description="Taints that these workers put up with.")


class EnvVar(Model):
    """An environment variable of the user's program."""

    name: EnvName = Field(description="Name of the variable; the names of the torch.distributed environment are ours.")
    value: Annotated[str, Field(max_length=8192, pattern=WITHOUT_NUL, json_schema_extra=NUL_REMEDY)] | None = Field(
        None, description="Its value, taken as it is."
    )
    value_from: PassedThrough | None = Field(
        None, description="Kubernetes' valueFrom (secretKeyRef, configMapKeyRef, fieldRef); in a cluster only."
    )


class ProgramSpec(Model):
    """The user's own script: anything that runs under torchrun runs here as it is."""

    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=64)] = Field(
        description="Program and first arguments, started once for each rank, such as [python, train.py]."
    )
    args: Annotated[tuple[Argument, ...], Field(max_length=128)] | None = Field(
        None, description="Further arguments, behind those of command."
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=128)] | None = Field(
        None, description="Environment variables for each process; their values have 128 KiB in all."
    )
    working_dir: AbsolutePath | None = Field(
        None, description="Working directory; default: the folder of files, or else the image's own."
    )
    files: Annotated[dict[FileName, Annotated[str, Field(max_length=MAX_FILES_SIZE)]], Field(max_length=16)] | None = (
        Field(
            None,
            description="Small text files, name and content, laid into the working directory; 256 KiB in all."
            " Larger code comes with the image or a volume.",
        )
    )


class StorageSpec(Model):
    """Where checkpoints and results live, and how often a checkpoint is written."""

    claim_name: Subdomain | None = Field(
        None,
        description="A PersistentVolumeClaim in the job's namespace; without one an emptyDir holds the checkpoints,"
        " and they last as long as the worker Pods.",
    )
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = Field(
        "ReadWriteMany",
        description="How the claim can be mounted. ReadWriteOnce: worker 0 alone mounts it and is always rank 0.",
    )
    sub_path: (
        Annotated[
            str,
            Field(
                max_length=1024,
                pattern=r"^[^/\x00][^\x00]*$",
                json_schema_extra={"remedy": "write a relative path, without a leading '/'"},
            ),
        ]
        | None
    ) = Field(None, description="Folder within the claim; default: the job's name.")
    size_limit: Quantity | None = Field(None, description="Bound of the emptyDir where there is no claim.")
    checkpoint_interval_seconds: Seconds = Field(60, description="Most seconds between two periodic checkpoints.")
    checkpoint_interval_steps: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="Most steps between two periodic checkpoints, beside the time."
    )
    keep_checkpoints: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="How many of the newest checkpoints stay."
    )


class MeasureOn(Model):
    """The node that a converted model is measured on."""

    node_selector: NodeSelector | None = Field(None, description="Labels that the node must bear.")
    tolerations: Tolerations | None = Field(None, description="Taints that the measuring Pod puts up with.")
    resources: ResourceRequirements | None = Field(None, description="Compute resources of the measuring Pod.")


class ExportSpec(Model):
    """Conversion of the trained model for the edge, after evaluation."""

    formats: Annotated[tuple[Literal["onnx", "onnx-int8", "pt2"], ...], Field(min_length=1, max_length=3)] = Field(
        ("onnx",), description="Formats to write: onnx (fp32), onnx-int8 (static quantisation), pt2 (torch.export)."
    )
    max_accuracy_loss: Annotated[float, Field(ge=0, le=100)] = Field(
        1.0, description="Gate: percentage points of test accuracy that a converted model may lose."
    )
    calibration_images: Annotated[int, Field(ge=1, le=100000)] = Field(
        256, description="Training images that the int8 scales are fitted on."
    )
    measure_on: MeasureOn | None = Field(
        None, description="Where to measure size, latency and accuracy; default: in worker 0."
    )
    destination: Annotated[str, Field(max_length=1024)] | None = Field(
        None,
        description="Absolute path or URL of a folder that the exported files are copied to as well, from where rank 0"
        " runs, once every format has been made and has passed the gate there; else what the folder holds stays. The"
        " files are in results/export of the job's storage in any case.",
    )


class ExitCodeRule(Model):
    """What an exit code of the user's program means."""

    exit_codes: Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], Field(min_length=1, max_length=64)] = Field(
        description="Exit codes that the rule is for."
    )
    action: Literal["Restart", "RestartUnpaid", "Fail"] = Field(
        description="Restart: one of maxRestarts is spent. RestartUnpaid: none is, five times in a row at most."
        " Fail: the job ends."
    )


class RestartPolicy(Model):
    """How failures are answered."""

    max_restarts: Annotated[int, Field(ge=0, le=10000)] = Field(
        3, description="Failures that are paid for; the budget comes back whenever the checkpointed step has advanced."
    )
    exit_code_rules: Annotated[tuple[ExitCodeRule, ...], Field(max_length=32)] | None = Field(
        None, description="The first rule that names an exit code decides; default: 2 fails, 75 and 143 are unpaid."
    )


class TrainingJobSpec(Model):
    """One training, from data to converted model."""

    workers: Workers | None = Field(None, description="Worker Pods; this or pools.")
    min_workers: Workers | None = Field(
        None, description="Makes the job elastic: it goes on with this many workers while others are away."
    )
    trainer: TrainerSpec | None = Field(None, description="The built-in trainer; this or program.")
    program: ProgramSpec | None = Field(None, description="The user's own script; this or trainer.")
    image: Image | None = Field(
        None,
        description="Image of the worker Pods; default: the release's trainer image. A job keeps the one that it was"
        " accepted with (status.image); another one that is written here later is taken up when the job is resumed"
        " after it was suspended, once its Pods are gone.",
    )
    resources: ResourceRequirements | None = Field(
        None,
        description="Compute resources of each worker Pod. Another value is for Pods made from then on; the number of"
        " nvidia.com/gpu, of which each has a training process, stays.",
    )
    storage: StorageSpec | None = Field(None, description="Where checkpoints and results live.")
    export: ExportSpec | None = Field(None, description="Conversion for the edge; needs trainer.")
    pools: Annotated[tuple[Pool, ...], Field(min_length=1, max_length=16)] | None = Field(
        None,
        description="Groups of unequal nodes, instead of workers. A PodDisruptionBudget over their Pods has to have"
        " minAvailable, as a number: with maxUnavailable, or a percentage, it asks for spec.workers, and without one it"
        " lets no Pod be evicted.",
    )
    pod_template: PodTemplate | None = Field(
        None,
        description="A Pod template (metadata, spec) merged over the one that EdgeCloud builds; the worker's container"
        " is named worker.",
    )
    node_selector: NodeSelector | None = Field(None, description="Labels that a node must bear.")
    tolerations: Tolerations | None = Field(None, description="Taints that the workers put up with.")
    processes_per_worker: Annotated[int, Field(ge=1, le=MAX_PROCESSES)] | None = Field(
        None, description="Training processes in each worker Pod; default: its GPUs, else 1."
    )
    priority_class_name: Subdomain | None = Field(None, description="PriorityClass of the worker Pods.")
    service_account_name: Subdomain | None = Field(
        None, description="ServiceAccount of the worker Pods; its API token is not mounted."
    )
    restart_policy: RestartPolicy | None = Field(None, description="How failures are answered.")
    start_deadline_seconds: Seconds | None = Field(
        None,
        description="The job fails when its first step was not reported within this time of its acceptance;"
        " a program reports steps with edgecloud.worker.report.",
    )
    active_deadline_seconds: Seconds | None = Field(
        None, description="The job fails when it is not done within this time of first running."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=10 * 365 * 24 * 3600)] | None = Field(
        None, description="The finished job is deleted after this time; default: it stays."
    )
    stop_grace_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        30, description="How long the processes may take to save a checkpoint and leave when they are asked to stop."
    )
    suspend: bool = Field(
        False,
        description="true: save a checkpoint and give the nodes back, until it is false again. Without"
        " storage.claimName the checkpoints go with the Pods, and the job then starts from the beginning.",
    )
    managed_by: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=256,
                json_schema_extra={"remedy": "name the controller, such as kueue.x-k8s.io/multikueue, or leave it out"},
            ),
        ]
        | None
    ) = Field(None, description="Controller in charge, if it is not EdgeCloud's; such a job is left alone.")

    def worker_count(self) -> int:
        """Workers asked for, in all pools."""
        if self.pools:
            return sum(pool.workers for pool in self.pools)
        return self.workers or 1

    def pool_of(self, index: int) -> Pool | None:
        """The pool that worker `index` belongs to: the pools' workers are numbered through in their order."""
        for pool in self.pools or ():
            if index < pool.workers:
                return pool
            index -= pool.workers
        return None

    def resources_of(self, index: int) -> ResourceRequirements:
        """Compute resources of worker `index`: its pool's, else the job's."""
        pool = self.pool_of(index)
        return (pool.resources if pool else None) or self.resources or ResourceRequirements()

    def gpus_of(self, index: int) -> int:
        """NVIDIA GPUs of worker `index`: whole ones, and shares and MIG slices by whatever name they are offered."""
        limits = self.resources_of(index).limits or {}
        named = (amount(value) for name, value in limits.items() if GPU.fullmatch(name))
        return sum(int(value) for value in named)

    def whole_gpus_of(self, index: int) -> int:
        """Those of them that are whole, of which a process sees as many as there are; of slices it sees one."""
        return _whole_gpus(self.resources_of(index))

    def processes_of(self, index: int) -> int:
        """Training processes in worker `index`: as the user says, else one for each GPU, else one."""
        return self._processes(self.resources_of(index))

    def rank_count(self) -> int:
        """Training processes in all workers together."""
        if self.pools:
            return sum(pool.workers * self._processes(pool.resources or self.resources) for pool in self.pools)
        return self.worker_count() * self._processes(self.resources)

    def _processes(self, resources: ResourceRequirements | None) -> int:
        if self.processes_per_worker:
            return self.processes_per_worker
        return min(max(1, _whole_gpus(resources)), MAX_PROCESSES)

    def template(self) -> dict[str, Any]:
        """podTemplate as plain data: metadata and spec, as far as they are written."""
        return self.pod_template.dump() if self.pod_template else {}

    def has_too_large_template(self) -> bool:
        """Whether no Pod is made, for podTemplate is too large."""
        return self.pod_template is not None and self.pod_template.too_large

    def storage_or_default(self) -> StorageSpec:
        return self.storage or StorageSpec()

    def restart_policy_or_default(self) -> RestartPolicy:
        return self.restart_policy or RestartPolicy()


def _whole_gpus(resources: ResourceRequirements | None) -> int:
    return int(amount(((resources.limits if resources else None) or {}).get(WHOLE_GPU, 0)))
