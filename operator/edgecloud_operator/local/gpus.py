"""This machine's GPUs, shared out among the workers of a local run as a cluster shares them out among Pods."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Final

from edgecloud.api.spec import WHOLE_GPU, TrainingJobSpec
from edgecloud.api.types import amount

VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
_DEVICE: Final = re.compile(r"nvidia\d+")
_MIG: Final = "nvidia.com/mig-"


def visible_gpus(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """The GPUs that a process here sees, by CUDA's names for them; none, too, where nobody can tell (WSL has no files).

    Counted are device files, not /proc/driver/nvidia/gpus: in a container that may show the whole host's. They are
    numbered afresh, as CUDA does: a container's only GPU is 0 to it, though the file be nvidia3.
    """
    if VARIABLE in environment:
        names = (name.strip() for name in environment[VARIABLE].split(","))
        return tuple(takewhile(lambda name: name and not name.startswith("-"), names))  # so does CUDA
    try:
        count = sum(_DEVICE.fullmatch(name) is not None for name in os.listdir(devices))  # noqa: PTH208 - names alone
    except OSError:
        count = 0
    return tuple(str(number) for number in range(count))


def share_of(
    spec: TrainingJobSpec, index: int, gpus: Sequence[str], environment: Mapping[str, str] = os.environ
) -> str | None:
    """CUDA_VISIBLE_DEVICES of worker `index`; None: it stays what it is.

    Without a GPU that is known of nothing is shared out: the trainer says what it misses, and a script may do without.
    Nor is anything to a trainer with device: auto that asks for no GPU: it takes the CPU.
    """
    if _hidden(spec, index, gpus, environment):
        return ""
    if not gpus or not _shared_out(spec) or not (asked := _asked(spec, index, gpus)):
        return None
    first = sum(_asked(spec, other, gpus) for other in range(index))
    return ",".join(gpus[first : first + asked])


def unseen(spec: TrainingJobSpec, gpus: Sequence[str], environment: Mapping[str, str] = os.environ) -> str | None:
    """What to write if workers are to see this machine's GPUs, which they don't; None if they do, or there are none."""
    if not any(_hidden(spec, index, gpus, environment) for index in range(spec.worker_count())):
        return None
    return (
        f"GPUs: workers that ask for none see none, as in a cluster: ask for them in"
        f" {'spec.pools' if spec.pools else 'spec.resources.limits'} ({WHOLE_GPU}), or set {VARIABLE}"
    )


def shortage(spec: TrainingJobSpec, gpus: Sequence[str]) -> str | None:
    """Why the workers' GPUs are not here, and what to write; None if they are, or are not needed."""
    asked = sum(_asked(spec, index, gpus) for index in range(spec.worker_count()))
    if not gpus or asked <= len(gpus) or not _shared_out(spec):
        return None
    if not any(_named(spec, index, gpus) for index in range(spec.worker_count())):
        return (
            f"spec.trainer: the workers' {asked} processes need a GPU each, and {len(gpus)} can be seen here: take"
            " fewer workers or processes, or write spec.trainer.device: cpu"
        )
    where = "spec.pools" if spec.pools else "spec.resources.limits"
    other = "write spec.trainer.device: cpu" if spec.trainer else f"have them share by {VARIABLE} in spec.program.env"
    return (
        f"{where}: the workers ask for {asked} GPUs together, and {len(gpus)} can be seen here:"
        f" take fewer workers, ask for less {WHOLE_GPU}, or {other}"
    )


def _hidden(spec: TrainingJobSpec, index: int, gpus: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether worker `index` is to see no GPU, as in a Pod that asks for none: with a script that takes what it sees,
    all workers would take the first one, on which NCCL refuses a second rank.

    Not a lone worker that has a GPU for each of its ranks.
    """
    alone = spec.worker_count() == 1 and spec.rank_count() <= len(gpus)
    theirs = spec.program is not None and _shared_out(spec) and VARIABLE not in environment
    return bool(gpus) and theirs and not alone and spec.gpus_of(index) == 0


def _asked(spec: TrainingJobSpec, index: int, gpus: Sequence[str]) -> int:
    """The GPUs that worker `index` has to itself: those it names, else one for each of its processes on CUDA.

    NCCL refuses two ranks of a machine on one GPU, and all of them would begin at the first.
    """
    cuda = spec.trainer is not None and (spec.trainer.device == "cuda" or spec.gpus_of(index) > 0)
    return _named(spec, index, gpus) or (spec.processes_of(index) if cuda else 0)


def _named(spec: TrainingJobSpec, index: int, gpus: Sequence[str]) -> int:
    """Whole GPUs in the limits, and MIG slices where we know their names; no shares."""
    slices = any(name.startswith("MIG-") for name in gpus)
    limits = spec.resources_of(index).limits or {}
    return sum(
        int(amount(value)) for name, value in limits.items() if name == WHOLE_GPU or (slices and name.startswith(_MIG))
    )


def _shared_out(spec: TrainingJobSpec) -> bool:
    """Whether GPUs are ours to share out: not those of a job that needs none, or names them itself."""
    if spec.trainer is not None:
        return spec.trainer.device != "cpu"
    return all(variable.name != VARIABLE for variable in (spec.program.env if spec.program else None) or ())
