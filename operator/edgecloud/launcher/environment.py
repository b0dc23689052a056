"""What a training process finds in its environment: torchrun's variables and ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgecloud.launcher.messages import RunOrder

PRIVATE = frozenset(
    {
        "EDGECLOUD_COORDINATOR",
        "EDGECLOUD_CA_FILE",
        "EDGECLOUD_TOKEN_FILE",
        "EDGECLOUD_SCRATCH",
        "EDGECLOUD_LOG_FILE",
        "EDGECLOUD_LOG_MAX_BYTES",
        "EDGECLOUD_TERMINATION_FILE",
        "EDGECLOUD_MAX_RESTARTS",
        "EDGECLOUD_ORPHAN_SECONDS",
        "EDGECLOUD_STOP_GRACE_SECONDS",
        "EDGECLOUD_PARENT_DEATH",
        "EDGECLOUD_PARENT_PID",
        "EDGECLOUD_STANDBY",
    }
)
"""The launcher's own business. A training process needs no token, so it is not told where one is."""


@dataclass(frozen=True)
class Worker:
    """What is the same for all processes and rounds of a worker."""

    job_uid: str
    max_restarts: int = 0
    archive: str | None = None
    """The zipapp that this launcher runs from, if it does."""
    interface: str | None = None
    """The network interface that has the worker's address."""
    cpus: float = 1.0
    """CPUs that this container may use."""
    pid_namespace: str = ""
    """In which this launcher counts processes, as Linux names it; empty where that is not known."""


@dataclass(frozen=True)
class Files:
    """Where a process and its launcher meet."""

    channel: str
    error: str
    failure: str


def omp_threads(cpus: float, processes: int) -> int:
    """Threads for each of so many processes that share the CPUs. (os.cpu_count() would be the whole node's.)"""
    return max(1, int(cpus / max(1, processes)))


def training_environment(
    base: Mapping[str, str], *, worker: Worker, round: int, order: RunOrder, local_rank: int, files: Files
) -> dict[str, str]:
    """The whole environment of one process.

    `base` is the launcher's own: what the user set there stands, except for what says who the process is.
    """
    rank = order.first_rank + local_rank
    environment = standing_environment(base, worker=worker, processes=order.processes)
    environment.update(
        RANK=str(rank),
        LOCAL_RANK=str(local_rank),
        WORLD_SIZE=str(order.world_size),
        LOCAL_WORLD_SIZE=str(order.processes),
        GROUP_RANK=str(order.group_rank),
        GROUP_WORLD_SIZE=str(order.group_size),
        ROLE_RANK=str(rank),
        ROLE_WORLD_SIZE=str(order.world_size),
        ROLE_NAME="default",
        MASTER_ADDR=order.master_address,
        MASTER_PORT=str(order.master_port),
        TORCHELASTIC_RUN_ID=worker.job_uid,
        TORCHELASTIC_RESTART_COUNT=str(max(0, round - 1)),
        TORCHELASTIC_MAX_RESTARTS=str(worker.max_restarts),
        TORCHELASTIC_USE_AGENT_STORE="False",
        TORCHELASTIC_ERROR_FILE=files.error,
        PET_NNODES=str(order.group_size),
        PET_NPROC_PER_NODE=str(order.processes),
        PET_NODE_RANK=str(order.group_rank),
        PET_MASTER_ADDR=order.master_address,
        PET_MASTER_PORT=str(order.master_port),
        EDGECLOUD_ROUND=str(round),
        EDGECLOUD_CHANNEL=files.channel,
        EDGECLOUD_PID_NAMESPACE=worker.pid_namespace,
        EDGECLOUD_FAILURE_FILE=files.failure,
    )
    return environment


def standing_environment(base: Mapping[str, str], *, worker: Worker, processes: int) -> dict[str, str]:
    """The part of it that no round changes. `processes`: how many share the worker's CPUs."""
    environment = {name: value for name, value in base.items() if name not in PRIVATE}
    defaults = {"OMP_NUM_THREADS": str(omp_threads(worker.cpus, processes)), "PYTHONUNBUFFERED": "1"}
    if worker.interface:
        defaults["GLOO_SOCKET_IFNAME"] = worker.interface
    for name, value in defaults.items():
        environment.setdefault(name, value)
    if worker.archive:
        environment["PYTHONPATH"] = ":".join(filter(None, [worker.archive, environment.get("PYTHONPATH", "")]))
    return environment
