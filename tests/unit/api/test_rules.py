"""Each rule's CEL and its Python say the same of the same specs: the server's word and the laptop's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecloud.api.base import Model
from edgecloud.api.immutable import LASTING, changes
from edgecloud.api.job import TrainingJob
from edgecloud.api.rules import RESERVED_ENV, RULES, Rule, violations
from edgecloud.api.spec import EnvVar, ExportSpec, ProgramSpec, TrainingJobSpec
from edgecloud.api.trainer import DataSpec, TrainerSpec
from tests.unit.api import strategies
from tests.unit.api.server import SCHEMA, SPEC, Schema, at, broken_rules, holds, stored, takes

quick = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
heavy = settings(quick, max_examples=25)
"""For whole specs of any shape: they are large."""

SCHEMAS: dict[type, Schema] = {
    TrainingJobSpec: SPEC,
    ProgramSpec: at("spec", "program"),
    EnvVar: at("spec", "program", "env")["items"],
    TrainerSpec: at("spec", "trainer"),
    DataSpec: at("spec", "trainer", "data"),
    ExportSpec: at("spec", "export"),
}
ALL = [(model, rule) for model, rules in RULES.items() for rule in rules]

PROGRAM = {"command": ["python", "train.py"]}
TRAINER = {"data": {"name": "digits"}}


def agree(model: type[Model], value: dict[str, Any]) -> None:
    """Every rule of the model holds in CEL of what the server stores if and only if it holds in Python."""
    spec, kept = model.parse(value), stored(SCHEMAS[model], value)
    for rule in RULES[model]:
        assert holds(rule.cel, kept) == bool(rule.holds(spec)), (rule.path, rule.message, kept)


@quick
@given(strategies.rule_specs)
def test_specs(spec: dict[str, Any]) -> None:
    agree(TrainingJobSpec, spec)


@heavy
@given(strategies.specs)
def test_specs_of_any_shape(spec: dict[str, Any]) -> None:
    agree(TrainingJobSpec, spec)


@quick
@given(strategies.programs)
def test_programs(program: dict[str, Any]) -> None:
    agree(ProgramSpec, program)


@quick
@given(strategies.env_vars)
def test_variables(variable: dict[str, Any]) -> None:
    agree(EnvVar, variable)


@quick
@given(strategies.trainers)
def test_trainers(trainer: dict[str, Any]) -> None:
    agree(TrainerSpec, trainer)
    agree(DataSpec, trainer["data"])


@quick
@given(strategies.exports)
def test_exports(export: dict[str, Any]) -> None:
    agree(ExportSpec, export)


@quick
@given(
    st.text(max_size=6)
    | st.from_regex(r"[A-Za-z0-9._-]{1,6}\n?", fullmatch=True)
    | st.integers(126, 130).map("a".__mul__)
)
def test_file_names(name: str) -> None:
    """A CRD can't bound a map's keys, so that a rule does it; pydantic has refused them before its rule is asked."""
    program = ProgramSpec.model_construct(command=("a",), files={name: ""})
    (rule,) = (rule for rule in RULES[ProgramSpec] if "plain file name" in rule.message)
    good = bool(rule.holds(program))
    assert holds(rule.cel, {"command": ["a"], "files": {name: ""}}) == good
    try:
        ProgramSpec.parse({"command": ["a"], "files": {name: ""}})
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted == good


@quick
@given(strategies.rule_specs)
def test_server_and_laptop_take_the_same_jobs(spec: dict[str, Any]) -> None:
    resource = strategies.resource(spec)
    try:
        TrainingJob.parse(resource)
        accepted = True
    except ValidationError as error:
        accepted = False
        assert {entry["type"] for entry in error.errors()} == {"rule"}
    assert takes(resource) == accepted
    assert accepted == (not list(violations(TrainingJobSpec.parse(spec))))


# One good and one bad example for each rule. The bad one breaks no other.

Edit = Callable[[dict[str, Any]], None]


def job(**spec: Any) -> dict[str, Any]:
    return {"workers": 2, **spec} if "pools" not in spec else spec


def program(**fields: Any) -> dict[str, Any]:
    return job(program=PROGRAM | fields)


def trainer(workers: int = 2, **fields: Any) -> dict[str, Any]:
    return job(workers=workers, trainer=TRAINER | fields)


def pools(*workers: int, names: str = "abcdef", **spec: Any) -> dict[str, Any]:
    made = [{"name": name, "workers": count} for name, count in zip(names, workers, strict=False)]
    return job(pools=made, program=PROGRAM, **spec)


def gpu_pools(own: int | str, others: int | str) -> dict[str, Any]:
    """One worker with GPUs of its pool's, one with the job's, for 12 shards."""
    gpus = [{"limits": {"nvidia.com/gpu": number}} for number in (own, others)]
    made = [{"name": "a", "workers": 1, "resources": gpus[0]}, {"name": "b", "workers": 1}]
    return {"pools": made, "resources": gpus[1], "trainer": TRAINER}


def two_each(limits: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Two processes in a worker with such GPUs."""
    return trainer(**fields) | {"processesPerWorker": 2, "resources": {"limits": limits}}


def export(*formats: str, **fields: Any) -> dict[str, Any]:
    return trainer() | {"export": {"formats": list(formats)} | fields}


VARIABLE = {"name": "A"}
FROM = {"secretKeyRef": {"name": "s", "key": "k"}}
HALF = "a" * (128 * 1024)

EXAMPLES: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str | int, ...]]] = [
    ("exactly one of trainer and program", program(), job(), ()),
    ("exactly one of trainer and program", trainer(), job(trainer=TRAINER, program=PROGRAM), ("program",)),
    ("exactly one of workers and pools", pools(1), pools(1) | {"workers": 1}, ("workers",)),
    ("exactly one of workers and pools", program(), {"program": PROGRAM}, ("workers",)),
    ("minWorkers is above", program() | {"minWorkers": 2}, program() | {"minWorkers": 3}, ("minWorkers",)),
    ("minWorkers is above", pools(1, 2, minWorkers=3), pools(1, 2, minWorkers=4), ("minWorkers",)),
    ("more than 1000 workers", pools(1, 999), pools(2, 999), ("pools",)),
    ("two pools have the same name", pools(1, 1), pools(1, 1, names="aa"), ("pools",)),
    ("export converts", trainer() | {"export": {}}, program() | {"export": {}}, ("export",)),
    ("a format is named twice", export("onnx", "pt2"), export("onnx", "pt2", "onnx"), ("export", "formats")),
    (
        "formats has neither",
        export("pt2", "onnx-int8", measureOn={}),
        export("pt2", measureOn={}),
        ("export", "formats"),
    ),
    *(
        (
            "neither an absolute path nor",
            export("onnx", destination=good),
            export("onnx", destination=bad),
            ("export", "destination"),
        )
        for good, bad in (
            ("/", ""),
            ("/models/run#3?x", "models/"),
            ("s3://bucket/models", "s3:/bucket/models"),
            ("s3://bucket", "s3://"),
            ("file:///models/run#3", "file://models"),
            ("simplecache::file:///models", "simplecache::file://models"),
            ("simplecache::s3://models", "simplecache::s3://models/run?3"),
            ("gs://bucket/run-3", "gs://bucket/run#3"),
            ("memory://a", "~/models"),
        )
    ),
    ("more training processes than shards", trainer(12), trainer(13), ("trainer", "shards")),
    (
        "more training processes than shards",
        trainer(2, shards=4) | {"processesPerWorker": 2},
        trainer(2, shards=5) | {"processesPerWorker": 3},
        ("trainer", "shards"),
    ),
    (
        "more training processes than shards",
        trainer(2, shards=16) | {"resources": {"limits": {"nvidia.com/gpu": 8}}},
        trainer(2) | {"resources": {"limits": {"nvidia.com/gpu": "8"}}},
        ("trainer", "shards"),
    ),
    (
        "more training processes than shards",
        gpu_pools(8, 4),
        gpu_pools(8, "5"),
        ("trainer", "shards"),
    ),
    *(
        ("more training processes in a worker than GPUs", good, bad, ("processesPerWorker",))
        for good, bad in (
            (two_each({"nvidia.com/gpu": 2}), two_each({"nvidia.com/gpu": 1})),
            (two_each({"nvidia.com/gpu": "2"}), two_each({"nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": 7})),
            (two_each({"nvidia.com/gpu": 1}, device="cpu"), two_each({"nvidia.com/gpu": 1}, device="cuda")),
            (two_each({"nvidia.com/gpu": 0}, device="cuda"), two_each({"nvidia.com/mig-1g.10gb": 2})),
            (two_each({"nvidia.com/mig-1g.10gb": "0", "amd.com/gpu": 1}), two_each({"nvidia.com/gpu.shared": "2"})),
            (gpu_pools(2, 2) | {"processesPerWorker": 2}, gpu_pools(1, 2) | {"processesPerWorker": 2}),
            (gpu_pools(0, "3") | {"processesPerWorker": 3}, gpu_pools(3, "2") | {"processesPerWorker": 3}),
        )
    ),
    (
        "sizeLimit bounds an emptyDir",
        program() | {"storage": {"sizeLimit": 1}},
        program() | {"storage": {"sizeLimit": 1, "claimName": "c"}},
        ("storage", "sizeLimit"),
    ),
    (
        "larger than 256 KiB",
        program(files={"a": HALF, "b": HALF}),
        program(files={"a": HALF, "b": HALF + "a"}),
        ("program", "files"),
    ),
    (
        "larger than 128 KiB",
        program(env=[{"name": f"A{place}", "value": "a" * 8192} for place in range(16)]),
        program(env=[{"name": f"A{place}", "value": "a" * 8192} for place in range(17)]),
        ("program", "env"),
    ),
    ("a space in the first word", program(command=["./a b", "c d"]), program(command=["a b"]), ("program", "command")),
    ("a variable is set twice", program(env=[VARIABLE]), program(env=[VARIABLE, VARIABLE]), ("program", "env")),
    (
        "both value and valueFrom",
        program(env=[VARIABLE | {"valueFrom": FROM}]),
        program(env=[VARIABLE | {"value": "", "valueFrom": FROM}]),
        ("program", "env", 0, "valueFrom"),
    ),
    *(
        (
            "set by EdgeCloud",
            program(env=[{"name": name + "S"}]),
            program(env=[VARIABLE, {"name": name}]),
            ("program", "env", 1, "name"),
        )
        for name in RESERVED_ENV
    ),
    (
        "set by EdgeCloud",
        program(env=[{"name": "EDGECLOUD"}]),
        program(env=[VARIABLE, {"name": "EDGECLOUD_X"}]),
        ("program", "env", 1, "name"),
    ),
    ("more shards than images", trainer(batchSize=12), trainer(batchSize=11), ("trainer", "shards")),
    (
        "fp16 doesn't go with deterministic",
        trainer(precision="bf16", deterministic=True),
        trainer(precision="fp16", deterministic=True),
        ("trainer", "precision"),
    ),
    (
        "fp16 needs CUDA",
        trainer(precision="fp16", device="cuda"),
        trainer(precision="fp16", device="cpu"),
        ("trainer", "precision"),
    ),
    ("exactly one of name and source", trainer(), trainer(data={}), ("trainer", "data")),
    (
        "exactly one of name and source",
        trainer(data={"source": "/d"}),
        trainer(data={"name": "digits", "source": "/d"}),
        ("trainer", "data"),
    ),
]


@pytest.mark.parametrize(
    ("message", "good", "bad", "path"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_examples(message: str, good: dict[str, Any], bad: dict[str, Any], path: tuple[str | int, ...]) -> None:
    assert takes(strategies.resource(good))
    assert list(violations(TrainingJobSpec.parse(good))) == []
    (violation,) = violations(TrainingJobSpec.parse(bad))
    assert message in violation.message
    assert violation.remedy
    assert violation.path == path
    (broken,) = broken_rules(SCHEMA, stored(SCHEMA, strategies.resource(bad)))
    (rule,) = (rule for _, rule in ALL if rule.cel == broken[1])
    assert message in rule.message
    with pytest.raises(ValidationError) as raised:
        TrainingJob.parse(strategies.resource(bad))
    (entry,) = raised.value.errors()
    assert entry["loc"] == ("spec", *path)
    assert entry["ctx"] == {"message": violation.message, "remedy": violation.remedy}


@pytest.mark.parametrize("gpus", ["8e0", "8000m", "+8", "8.0", "9999999999", "0.5", "1Ki"])
def test_strange_numbers_of_gpus(gpus: str) -> None:
    """They count as one: see rules._processes. What the server takes, the operator has to read."""
    limits = {"limits": {"nvidia.com/gpu": gpus}}
    pools = [{"name": "a", "workers": 2, "resources": limits}, {"name": "b", "workers": 1}]
    for spec in (trainer(2) | {"resources": limits}, job(pools=pools, trainer=TRAINER, resources=limits)):
        assert takes(strategies.resource(spec))
        assert TrainingJob.parse(strategies.resource(spec), stored=True).spec.trainer is not None
        few = copy.deepcopy(spec) | {"trainer": TRAINER | {"shards": 1}}
        agree(TrainingJobSpec, few)
        (broken,) = violations(TrainingJobSpec.parse(few))
        assert broken.path == ("trainer", "shards")
        agree(TrainingJobSpec, spec | {"processesPerWorker": 3})
        assert not list(violations(TrainingJobSpec.parse(spec | {"processesPerWorker": 3}))), "the ranks find out"


@pytest.mark.parametrize("gpus", [3, "16", 100])
def test_ranks_are_the_workers_processes(gpus: int | str) -> None:
    """What the rule counts is what the rounds have."""
    limits = {"limits": {"nvidia.com/gpu": gpus}}
    made = [{"name": "a", "workers": 2}, {"name": "b", "workers": 3, "resources": {}}, {"name": "c", "workers": 1}]
    made[2]["resources"] = {"limits": {"nvidia.com/gpu": "2", "nvidia.com/mig-1g.10gb": 7}}
    for spec in ({"pools": made, "resources": limits}, {"workers": 3, "resources": limits}, {"pools": made}):
        parsed = TrainingJobSpec.parse(spec | {"program": PROGRAM})
        ranks = sum(parsed.processes_of(index) for index in range(parsed.worker_count()))
        assert parsed.rank_count() == ranks
        for shards in {min(ranks, 1024), min(ranks, 1024) - 1}:
            cut = TrainingJobSpec.parse(spec | {"trainer": TRAINER | {"shards": shards, "batchSize": 1024}})
            assert (not list(violations(cut))) == (ranks <= shards)


def test_every_rule_has_an_example() -> None:
    told = {message for message, *_ in EXAMPLES}
    untold = [rule.message for _, rule in ALL if not any(message in rule.message for message in told)]
    assert untold == ["a file has a name that is no plain file name"]  # see test_file_names


@pytest.mark.parametrize("rule", [rule for _, rule in ALL], ids=lambda rule: rule.message)
def test_a_rule_is_stated_well(rule: Rule) -> None:
    assert rule.message == rule.message.strip().rstrip(".")
    assert rule.remedy == rule.remedy.strip().rstrip(".")


# What can't be changed


def gpus(number: int | str, **limits: int | str) -> dict[str, Any]:
    return {"resources": {"limits": {"nvidia.com/gpu": number, **limits}}}


def compare_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The fields that the server won't have changed are those of which the laptop says so."""
    old, new = stored(SPEC, before), stored(SPEC, after)
    refused = [one for one in LASTING if not holds(one.cel, new, old)]
    found = changes(TrainingJobSpec.parse(before), TrainingJobSpec.parse(after))
    assert [violation.path for violation in found] == [one.path for one in refused]
    every = [rule for _, rule in broken_rules(SPEC, new, old) if "oldSelf" in rule]
    assert every == [one.cel for one in refused]


@quick
@given(strategies.rule_specs, strategies.rule_specs)
def test_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    compare_changes(before, after)


@heavy
@given(strategies.specs, st.data())
def test_changes_of_one_field(before: dict[str, Any], data: st.DataObject) -> None:
    after = copy.deepcopy(before)
    field = data.draw(st.sampled_from(sorted(SPEC["properties"])))
    after.pop(field, None)
    other = data.draw(strategies.specs)
    if field in other:
        after[field] = other[field]
    compare_changes(before, after)


def optimizer(**said: Any) -> dict[str, Any]:
    return {"trainer": {"data": {}, "optimizer": said}}


@heavy
@given(strategies.specs)
@example({"trainer": {"data": {}, "optimizer": {}}})
def test_nothing_changes_by_itself(spec: dict[str, Any]) -> None:
    compare_changes(spec, copy.deepcopy(spec))
    written = TrainingJobSpec.parse(spec).dump()
    compare_changes(spec, written)
    assert list(changes(TrainingJobSpec.parse(spec), TrainingJobSpec.parse(written))) == []


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({}, {"export": {}}, {"export"}),
        ({"export": {}}, {"export": {"formats": ["onnx"]}}, set()),  # the default, written out
        ({"export": {}}, {"export": {"formats": ["pt2"]}}, {"export"}),
        ({"workers": 2}, {"workers": 3}, set()),
        ({"pools": [{"name": "a", "workers": 1}]}, {"pools": [{"name": "a", "workers": 2}]}, {"pools"}),
        ({"storage": {"sizeLimit": 1}}, {"storage": {"sizeLimit": "1"}}, {"storage"}),
        ({"trainer": {"data": {}, "epochs": 10}}, {"trainer": {"data": {}}}, set()),
        ({"trainer": {"data": {}, "labelSmoothing": 0}}, {"trainer": {"data": {}, "labelSmoothing": 0.0}}, set()),
        # A default that the server does not fill in, and once did.
        (optimizer(), optimizer(learningRate=0.1), set()),
        (optimizer(learningRate=0.1), optimizer(), set()),
        (optimizer(name="adamw"), optimizer(name="adamw", learningRate=0.001), set()),
        (optimizer(name="adamw", learningRate=0.1), optimizer(name="adamw"), {"trainer"}),
        (optimizer(), optimizer(name="muon"), {"trainer"}),
        (optimizer(momentum=0.5), optimizer(), {"trainer"}),
        ({"trainer": {"data": {}}}, optimizer(), {"trainer"}),
        ({"processesPerWorker": 1}, {}, {"processesPerWorker"}),
        ({"suspend": True, "restartPolicy": {}, "image": "a"}, {"ttlSecondsAfterFinished": 1}, set()),
        ({"managedBy": "a.io/b"}, {}, {"managedBy"}),
        (gpus(1), gpus(2), {"resources"}),
        ({}, gpus(1), {"resources"}),
        (gpus("1"), {"resources": {"requests": {"nvidia.com/gpu": 1}}}, {"resources"}),
        (gpus("8"), gpus("8e0"), {"resources"}),  # one worker's default of processes, as the rules count them
        (gpus("8e0"), gpus("4e0"), {"resources"}),
        (gpus(8) | {"processesPerWorker": 2}, gpus(4) | {"processesPerWorker": 2}, {"resources"}),
        (gpus("8e0", cpu=1), gpus("8e0", cpu=2), set()),
        (gpus(1), gpus("1", memory="1Gi"), set()),
        ({"resources": {"limits": {"cpu": 1}}}, gpus("0", cpu=2), set()),
    ],
)
def test_changes_by_example(before: dict[str, Any], after: dict[str, Any], changed: set[str]) -> None:
    compare_changes(before, after)
    found = list(changes(TrainingJobSpec.parse(before), TrainingJobSpec.parse(after)))
    assert {violation.path[0] for violation in found} == changed
    assert all("cannot be changed" in violation.message and violation.remedy for violation in found)
