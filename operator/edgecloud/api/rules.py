"""The rules that span fields. Each stands here once, as a CEL expression for the API server and as the same check in
Python for a laptop; a test evaluates both on the same specs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from edgecloud.api.ranks import A_GPU_EACH, RANKS, WORKERS, gpus_for_too_many, ranks
from edgecloud.api.spec import (
    MAX_ENV_SIZE,
    MAX_FILES_SIZE,
    WHOLE_GPU,
    EnvVar,
    ExportSpec,
    ProgramSpec,
    TrainingJobSpec,
)
from edgecloud.api.trainer import DataSpec, TrainerSpec
from edgecloud.api.types import FILE_PATTERN, MAX_FILE_NAME, MAX_WORKERS

RESERVED_ENV: Final = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""The environment that a round sets; a user's value would tear the ranks apart."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A cross-field rule.

    cel: the expression, with `self` the object that the rule stands at (CRD: x-kubernetes-validations).
    holds: the same in Python.
    path: the field that is to blame, relative to that object; "" for the object.
    """

    cel: str
    holds: Callable[[Any], bool]
    path: str
    message: str
    remedy: str
    blame: Callable[[Any], str] | None = None
    """A better path than `path`, where it depends on the object."""
    numbers: Callable[[Any], str] | None = None
    """The values at odds, for the message on a laptop; CEL's messages are fixed texts."""
    by_trainer: bool = False
    """Whether the trainer, or whoever starts the program, refuses what breaks it as well, with exit code 2, and the
    operator need not rely on it.

    Then the operator reads a stored job that breaks it: one from before there was this rule. Left unread, it would stay
    as it is for ever, with its Pods, and be told nothing. (An API server takes the writes of its status as well, from
    Kubernetes 1.30 on: it judges what has changed.) By all other rules the operator goes itself (a trainer or a
    program, sizes, names), and does not touch what breaks them; so a new one should be one of these.
    """


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that does not hold, and where: keys and indices from the spec down."""

    path: tuple[str | int, ...]
    message: str
    remedy: str
    by_trainer: bool = False
    """See Rule."""


SPEC_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        cel="has(self.trainer) != has(self.program)",
        holds=lambda s: (s.trainer is None) != (s.program is None),
        path="",
        message="exactly one of trainer and program is needed",
        remedy="write trainer: for the built-in trainer, or program: for a script of your own",
        blame=lambda s: "program" if s.program else "",
    ),
    Rule(
        cel="has(self.workers) != has(self.pools)",
        holds=lambda s: (s.workers is None) != (s.pools is None),
        path="workers",
        message="exactly one of workers and pools is needed",
        remedy="write workers: 2, or pools: for groups of unequal nodes",
    ),
    Rule(
        cel=f"!has(self.minWorkers) || self.minWorkers <= {WORKERS}",
        holds=lambda s: s.min_workers is None or s.min_workers <= s.worker_count(),
        path="minWorkers",
        message="minWorkers is above the number of workers",
        remedy="write a value of at most workers",
        numbers=lambda s: f"{s.min_workers} above {s.worker_count()}",
    ),
    Rule(
        cel=f"!has(self.pools) || self.pools.map(p, p.workers).sum() <= {MAX_WORKERS}",
        holds=lambda s: s.pools is None or s.worker_count() <= MAX_WORKERS,
        path="pools",
        message=f"the pools have more than {MAX_WORKERS} workers in all",
        remedy="write fewer workers",
    ),
    Rule(
        cel="!has(self.pools) || self.pools.all(p, self.pools.exists_one(q, q.name == p.name))",
        holds=lambda s: s.pools is None or len({p.name for p in s.pools}) == len(s.pools),
        path="pools",
        message="two pools have the same name",
        remedy="give each pool a name of its own",
    ),
    Rule(
        cel="!has(self.export) || has(self.trainer)",
        holds=lambda s: s.export is None or s.trainer is not None,
        path="export",
        message="export converts the model of the built-in trainer, and this job has none",
        remedy="leave export out, or write trainer: instead of program:",
    ),
    Rule(
        cel=f"!has(self.trainer) || {RANKS} <= self.trainer.shards",
        holds=lambda s: s.trainer is None or ranks(s) <= s.trainer.shards,
        path="trainer.shards",
        message="there are more training processes than shards",
        remedy="write shards of at least workers times processesPerWorker, whose default is a worker's GPUs",
        numbers=lambda s: f"{ranks(s)} processes, {s.trainer.shards} shards",
        by_trainer=True,
    ),
    Rule(
        cel=f"!has(self.trainer) || self.trainer.device == 'cpu' || {A_GPU_EACH}",
        holds=lambda s: s.trainer is None or s.trainer.device == "cpu" or gpus_for_too_many(s) is None,
        path="processesPerWorker",
        message="there are more training processes in a worker than GPUs, and each takes one for itself",
        remedy=f"write at most the worker's {WHOLE_GPU}, or 1 where it has slices or shares of GPUs, or leave it out",
        numbers=lambda s: f"processes: {s.processes_per_worker}, GPUs: {gpus_for_too_many(s)}",
        by_trainer=True,
    ),
    Rule(
        cel="!has(self.storage) || !has(self.storage.sizeLimit) || !has(self.storage.claimName)",
        holds=lambda s: s.storage is None or s.storage.size_limit is None or s.storage.claim_name is None,
        path="storage.sizeLimit",
        message="sizeLimit bounds an emptyDir, and this job has a claim",
        remedy="leave sizeLimit out, or leave claimName out",
    ),
)

PROGRAM_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        cel="!self.command[0].matches('^[^/ ]+ ')",
        holds=lambda p: not re.match("[^/ ]+ ", p.command[0]),
        path="command",
        message="a space in the first word, which is the name of a program",
        remedy="write each word by itself: [python, train.py]; a line for a shell is [sh, -c, 'a line']",
        by_trainer=True,
    ),
    Rule(
        cel=f"!has(self.files) || self.files.all(f, f.matches('{FILE_PATTERN}') && size(f) <= {MAX_FILE_NAME})",
        holds=lambda p: all(re.fullmatch(FILE_PATTERN, f) and len(f) <= MAX_FILE_NAME for f in p.files or ()),
        path="files",
        message="a file has a name that is no plain file name",
        remedy="write letters, digits, '.', '_' and '-', without a folder",
    ),
    Rule(
        cel=f"!has(self.files) || self.files.map(f, size(self.files[f])).sum() <= {MAX_FILES_SIZE}",
        holds=lambda p: p.files is None or sum(map(len, p.files.values())) <= MAX_FILES_SIZE,
        path="files",
        message="the files are larger than 256 KiB in all",
        remedy="bring larger code with the image or a volume",
    ),
    Rule(
        cel=f"!has(self.env) || self.env.map(e, has(e.value) ? size(e.value) : 0).sum() <= {MAX_ENV_SIZE}",
        holds=lambda p: sum(len(e.value or "") for e in p.env or ()) <= MAX_ENV_SIZE,
        path="env",
        message="the variables are larger than 128 KiB in all",
        remedy="bring larger values in files, with the image or on a volume",
    ),
    Rule(
        cel="!has(self.env) || self.env.all(e, self.env.exists_one(f, f.name == e.name))",
        holds=lambda p: p.env is None or len({e.name for e in p.env}) == len(p.env),
        path="env",
        message="a variable is set twice",
        remedy="set each variable once",
    ),
)

ENV_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        cel="!(has(self.value) && has(self.valueFrom))",
        holds=lambda e: e.value is None or e.value_from is None,
        path="valueFrom",
        message="a variable has both value and valueFrom",
        remedy="write one of them",
    ),
    Rule(
        cel="!self.name.startsWith('EDGECLOUD_') && !(self.name in ["
        + ", ".join(f"'{name}'" for name in RESERVED_ENV)
        + "])",
        holds=lambda e: not e.name.startswith("EDGECLOUD_") and e.name not in RESERVED_ENV,
        path="name",
        message="this variable is set by EdgeCloud",
        remedy="choose another name; ranks and addresses come from the rendezvous",
    ),
)

TRAINER_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        cel="self.shards <= self.batchSize",
        holds=lambda t: t.shards <= t.batch_size,
        path="shards",
        message="there are more shards than images in a batch",
        remedy="write a larger batchSize or fewer shards",
        numbers=lambda t: f"{t.shards} shards, batchSize {t.batch_size}",
        by_trainer=True,
    ),
    Rule(
        cel="self.precision != 'fp16' || !self.deterministic",
        holds=lambda t: t.precision != "fp16" or not t.deterministic,
        path="precision",
        message="fp16 doesn't go with deterministic: true, for how far its loss is scaled depends on what went before",
        remedy="write bf16 or fp32",
        by_trainer=True,
    ),
    Rule(
        cel="self.precision != 'fp16' || self.device != 'cpu'",
        holds=lambda t: t.precision != "fp16" or t.device != "cpu",
        path="precision",
        message="fp16 needs CUDA, and device is cpu",
        remedy="write bf16, fp32 or auto",
        by_trainer=True,
    ),
)

DATA_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        cel="has(self.name) != has(self.source)",
        holds=lambda d: (d.name is None) != (d.source is None),
        path="",
        message="exactly one of name and source is needed",
        remedy="write name: digits, or source: with a path or URL",
    ),
)

_DESTINATION: Final = "^(/|([^/?#]*::)?(file|local)://|[^/?#]+://[^?#]+$)"
"""What is behind ? and # would be part of the name for who uploads, and not for who reads it from there."""
_RELATIVE_URL: Final = "^([^/?#]*::)?(file|local)://([^/]|$)"

EXPORT_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        cel="self.formats.all(f, self.formats.exists_one(g, g == f))",
        holds=lambda e: len(set(e.formats)) == len(e.formats),
        path="formats",
        message="a format is named twice",
        remedy="name each format once",
    ),
    Rule(
        cel="!has(self.measureOn) || self.formats.exists(f, f != 'pt2')",
        holds=lambda e: e.measure_on is None or any(format_ != "pt2" for format_ in e.formats),
        path="formats",
        message="measureOn measures onnx and onnx-int8, and formats has neither",
        remedy="add one of them, or leave measureOn out",
    ),
    Rule(
        cel=f"!has(self.destination) || (self.destination.matches('{_DESTINATION}')"
        f" && !self.destination.matches('{_RELATIVE_URL}'))",
        holds=lambda e: (
            e.destination is None
            or bool(re.search(_DESTINATION, e.destination) and not re.search(_RELATIVE_URL, e.destination))
        ),
        path="destination",
        message="this is neither an absolute path nor the URL of a folder",
        remedy="write /folder, file:///folder with three slashes, or a URL without ? and # such as s3://bucket/folder",
        by_trainer=True,
    ),
)

RULES: Final[dict[type, tuple[Rule, ...]]] = {
    TrainingJobSpec: SPEC_RULES,
    ProgramSpec: PROGRAM_RULES,
    EnvVar: ENV_RULES,
    TrainerSpec: TRAINER_RULES,
    DataSpec: DATA_RULES,
    ExportSpec: EXPORT_RULES,
}
"""Rules by the model they stand at."""


def violations(spec: TrainingJobSpec) -> Iterator[Violation]:
    """Every rule that a spec breaks."""
    yield from _at(spec, ())
    if spec.program:
        yield from _at(spec.program, ("program",))
        for index, variable in enumerate(spec.program.env or ()):
            yield from _at(variable, ("program", "env", index))
    if spec.trainer:
        yield from trainer_violations(spec.trainer)
    if spec.export:
        yield from export_violations(spec.export)


def trainer_violations(trainer: TrainerSpec) -> Iterator[Violation]:
    """Every rule that the trainer's part of a spec breaks by itself."""
    yield from _at(trainer, ("trainer",))
    yield from _at(trainer.data, ("trainer", "data"))


def export_violations(export: ExportSpec) -> Iterator[Violation]:
    """Every rule that the export's part of a spec breaks by itself."""
    yield from _at(export, ("export",))


def _at(value: Any, path: tuple[str | int, ...]) -> Iterator[Violation]:
    for rule in RULES[type(value)]:
        if not rule.holds(value):
            blamed = rule.blame(value) if rule.blame else rule.path
            blame = tuple(blamed.split(".")) if blamed else ()
            numbers = f" ({rule.numbers(value)})" if rule.numbers else ""
            yield Violation(
                path=(*path, *blame), message=rule.message + numbers, remedy=rule.remedy, by_trainer=rule.by_trainer
            )
