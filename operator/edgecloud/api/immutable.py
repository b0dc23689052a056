"""What of a spec stays as it was created: in CEL for the API server and, side by side, in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from edgecloud.api.base import Model
from edgecloud.api.ranks import SAME_GPUS, gpus
from edgecloud.api.rules import Violation
from edgecloud.api.spec import WHOLE_GPU, TrainingJobSpec
from edgecloud.api.trainer import ADAMW_LEARNING_RATE, LEARNING_RATE, OptimizerSpec, TrainerSpec

IMMUTABLE: Final = ("pools", "processesPerWorker", "trainer", "program", "storage", "export", "managedBy")
"""Fields of spec that stay: another value would be another training."""


@dataclass(frozen=True, kw_only=True)
class Lasting:
    """Something of a spec that stays.

    cel: the expression, with `self` the new spec and `oldSelf` the old one.
    holds: the same in Python, of the old and the new one.
    name: what may not change, as a message calls it.
    """

    cel: str
    holds: Callable[[TrainingJobSpec, TrainingJobSpec], bool]
    path: tuple[str, ...]
    name: str


def immutable_cel(field: str) -> str:
    """The CEL of an immutable field: still there or still absent, and equal."""
    return _equal(field) if field != "trainer" else _equal(field, _TRAINER)


def _equal(path: str, same: str = "") -> str:
    """CEL: there in both or in neither, and there equal, or as `same` says."""
    equal = same or f"self.{path} == oldSelf.{path}"
    return f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || {equal})"


def _all_but(path: str, model: type[Model], left_out: str) -> Iterator[str]:
    """CEL: each field of a model is equal, but one."""
    for name, field in model.model_fields.items():
        if (alias := field.alias or name) != left_out:
            yield f"({_equal(f'{path}.{alias}')})"


def _rate(of: str) -> str:
    """CEL: the learning rate, which the server fills in for none, said or not."""
    optimizer = f"{of}.trainer.optimizer"
    usual = f"{optimizer}.name == 'adamw' ? {ADAMW_LEARNING_RATE} : {LEARNING_RATE}"
    return f"(has({optimizer}.learningRate) ? {optimizer}.learningRate : {usual})"


_OPTIMIZER: Final = " && ".join(
    (*_all_but("trainer.optimizer", OptimizerSpec, "learningRate"), f"{_rate('self')} == {_rate('oldSelf')}")
)
_TRAINER: Final = " && ".join(
    (*_all_but("trainer", TrainerSpec, "optimizer"), f"({_equal('trainer.optimizer', _OPTIMIZER)})")
)
"""CEL: the same training, whose default of the learning rate may be written out, as an earlier release's server did."""


def _same(field: str, old: TrainingJobSpec, new: TrainingJobSpec) -> bool:
    return bool(old.dump().get(field) == new.dump().get(field))


LASTING: Final[tuple[Lasting, ...]] = (
    *(Lasting(cel=immutable_cel(field), holds=partial(_same, field), path=(field,), name=field) for field in IMMUTABLE),
    # The default of processesPerWorker: Pods that are there have as many as they were made with. Those of pools stay
    # with the pools.
    Lasting(
        cel=SAME_GPUS,
        holds=lambda old, new: gpus(old) == gpus(new),
        path=("resources", "limits", WHOLE_GPU),
        name=f"the number of {WHOLE_GPU} in resources.limits",
    ),
)


def changes(old: TrainingJobSpec, new: TrainingJobSpec) -> Iterator[Violation]:
    """Everything that should have stayed and differs between two specs of one job."""
    for one in LASTING:
        if not one.holds(old, new):
            yield Violation(
                path=one.path,
                message=f"{one.name} cannot be changed once the job exists",
                remedy="give the changed job another name (and in a local run another --workdir)",
            )
