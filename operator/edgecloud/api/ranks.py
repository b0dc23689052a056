"""How many training processes a spec comes to, and whether each has a GPU: in CEL and, side by side, in Python.

Both read a number of GPUs as people write it, 8 or "8", and what one of the two took and the other did not, the server
would keep and the operator not read.
"""

from __future__ import annotations

import re
from typing import Final

from edgecloud.api.spec import MAX_PROCESSES, WHOLE_GPU, ResourceRequirements, TrainingJobSpec

_SHARES: Final = ("nvidia.com/gpu.", "nvidia.com/mig-")
"""How names begin of what stands for a part of a GPU: shares and slices. A process sees one of them."""

WORKERS: Final = "(has(self.pools) ? self.pools.map(p, p.workers).sum() : (has(self.workers) ? self.workers : 1))"


def _plain(value: str) -> str:
    """The CEL of a number that is written as people do: 8 or "8".

    A longer pattern, or CEL's quantities, would cost more than a rule may where a server reckons with texts of 3 MB
    here, as it did before it looked at maxLength.
    """
    return f"(type({value}) == int || (size({value}) < 10 && !{value}.matches('\\\\D')))"


def _processes(owner: str, otherwise: str) -> str:
    """The CEL of TrainingJobSpec._processes for the resources of self or of a pool; otherwise: where it has none.

    Another form of number ("8e0", "8000m") counts as one. The ranks themselves are as many as it comes to, and refuse
    what is too much.
    """
    gpus = f"{owner}.resources.limits['{WHOLE_GPU}']"
    there = f"has({owner}.resources.limits) && '{WHOLE_GPU}' in {owner}.resources.limits && {_plain(gpus)}"
    counted = f"{there} ? [1, [{MAX_PROCESSES}, int({gpus})].min()].max() : 1"
    return f"(has({owner}.resources) ? ({counted}) : {otherwise})"


RANKS: Final = (
    f"(has(self.processesPerWorker) ? {WORKERS} * self.processesPerWorker : has(self.pools)"
    f" ? self.pools.map(p, p.workers * {_processes('p', _processes('self', '1'))}).sum()"
    f" : (has(self.workers) ? self.workers : 1) * {_processes('self', '1')})"
)
_PLAIN_NUMBER: Final = re.compile(r"[0-9]{1,9}")


def _is_plain(number: int | str) -> bool:
    """_plain in Python."""
    return isinstance(number, int) or _PLAIN_NUMBER.fullmatch(number) is not None


def ranks(spec: TrainingJobSpec) -> int:
    """RANKS in Python: TrainingJobSpec.rank_count, but for GPUs that are written strangely. What one of the two took
    and the other did not, the server would keep and the operator not read."""

    def processes(resources: ResourceRequirements | None) -> int:
        gpus = ((resources.limits if resources else None) or {}).get(WHOLE_GPU, 1)
        return max(1, min(MAX_PROCESSES, int(gpus))) if _is_plain(gpus) else 1

    if spec.pools and not spec.processes_per_worker:
        return sum(pool.workers * processes(pool.resources or spec.resources) for pool in spec.pools)
    return spec.worker_count() * (spec.processes_per_worker or processes(spec.resources))


def _gpus(owner: str) -> str:
    """The CEL of gpus for self or oldSelf."""
    limits, number = f"{owner}.resources.limits", f"{owner}.resources.limits['{WHOLE_GPU}']"
    there = f"has({owner}.resources) && has({limits}) && '{WHOLE_GPU}' in {limits}"
    return f"({there} ? ({_plain(number)} ? int({number}) : {number}) : 0)"


SAME_GPUS: Final = f"{_gpus('self')} == {_gpus('oldSelf')}"


def gpus(spec: TrainingJobSpec) -> int | str:
    """The GPUs in the job's own resources, 0 where it names none; SAME_GPUS compares them.

    Another form of number stands for itself: "8e0" is not "8".
    """
    number = ((spec.resources.limits if spec.resources else None) or {}).get(WHOLE_GPU, 0)
    return int(number) if _is_plain(number) else number


def _enough(resources: str) -> str:
    """The CEL of _too_few for resources that are there."""
    limits, gpus = f"{resources}.limits", f"{resources}.limits['{WHOLE_GPU}']"
    shares = " || ".join(f"n.startsWith('{start}')" for start in _SHARES)
    return (
        f"(!has({limits}) || ('{WHOLE_GPU}' in {limits}"
        f" ? !{_plain(gpus)} || int({gpus}) == 0 || int({gpus}) >= self.processesPerWorker"
        f" : {limits}.all(n, !({shares}) || {limits}[n] == 0 || {limits}[n] == '0')))"
    )


A_GPU_EACH: Final = (
    "!has(self.processesPerWorker) || self.processesPerWorker == 1 || ("
    # The job's, unless every pool has its own: asked once, not for each pool.
    f"(has(self.pools) && self.pools.all(p, has(p.resources)) || !has(self.resources) || {_enough('self.resources')})"
    f" && (!has(self.pools) || self.pools.all(p, !has(p.resources) || {_enough('p.resources')})))"
)


def gpus_for_too_many(spec: TrainingJobSpec) -> int | None:
    """A_GPU_EACH in Python: the GPUs that a worker asks for if it has more processes; None if none does.

    Where none are asked for, they may be there all the same, or none be needed. A number that is written strangely is
    left to the ranks.
    """
    owners = [pool.resources or spec.resources for pool in spec.pools] if spec.pools else [spec.resources]
    found = (_too_few(resources, spec.processes_per_worker or 1) for resources in owners)
    return next((gpus for gpus in found if gpus is not None), None)


def _too_few(resources: ResourceRequirements | None, processes: int) -> int | None:
    limits = (resources.limits if resources else None) or {}
    gpus = limits.get(WHOLE_GPU)
    if gpus is None:
        gpus = int(any(name.startswith(_SHARES) and value not in (0, "0") for name, value in limits.items()))
    return int(gpus) if _is_plain(gpus) and 0 < int(gpus) < processes else None
