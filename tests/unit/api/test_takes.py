"""What pydantic takes the API server takes, and one field that pydantic refuses the server refuses as well."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecloud.api.base import Model
from edgecloud.api.job import TrainingJob
from edgecloud.api.spec import TrainingJobSpec
from tests.unit.api import strategies
from tests.unit.api.server import SCHEMA, SPEC, Path, Schema, fits, nodes, schema_errors, stored, takes

heavy = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def parse_errors(resource: dict[str, Any]) -> set[str]:
    """The kinds of error that pydantic finds field by field."""
    try:
        Model.parse.__func__(TrainingJob, resource)  # type: ignore[attr-defined]
    except ValidationError as error:
        return {entry["type"] for entry in error.errors()}
    return set()


@heavy
@given(strategies.right_resources)
def test_a_right_job(resource: dict[str, Any]) -> None:
    job = TrainingJob.parse(resource)
    assert takes(resource)
    assert takes(job.dump())


@heavy
@given(strategies.statuses)
def test_a_status(status: dict[str, Any]) -> None:
    resource = strategies.resource({"workers": 1, "program": {"command": ["a"]}}, status=status)
    assert schema_errors(resource) == []
    assert schema_errors(TrainingJob.parse(resource).dump()) == []


@heavy
@given(strategies.specs)
@example({"trainer": {"data": {}, "optimizer": {}}})
def test_defaults_are_the_same_on_both_sides(spec: dict[str, Any]) -> None:
    ours = TrainingJobSpec.parse(spec).dump()
    optimizer = (spec.get("trainer") or {}).get("optimizer")
    if optimizer is not None and "learningRate" not in optimizer:
        del ours["trainer"]["optimizer"]["learningRate"]  # the one default that the server leaves to us
    assert stored(SPEC, spec) == ours


@heavy
@given(strategies.right_resources, st.data())
def test_one_value_of_another_kind(resource: dict[str, Any], data: st.DataObject) -> None:
    """Anything at any place: both take it or both refuse it."""
    resource = json.loads(json.dumps(resource))
    place = data.draw(st.sampled_from(list(places(resource["spec"]))))
    assume(place)
    put(resource["spec"], place, data.draw(strategies.json_values.filter(lambda value: value is not None)))
    errors = parse_errors(resource)
    assume(errors != {"extra_forbidden"})  # the server prunes a field that it doesn't know
    assert (schema_errors(resource) == []) == (not errors), (place, errors)


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in entries:
        yield from places(child, (*path, key))


def put(value: Any, place: Path, new: Any) -> None:
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = new


# Every field, one mutation at a time. The examples have between them every field that there is.

RESOURCES: Final = {"limits": {"cpu": "500m", "nvidia.com/gpu": 1}, "requests": {"memory": "1Gi"}}
PLACEMENT: Final = {
    "resources": RESOURCES, "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "edge", "operator": "Exists"}],
}  # fmt: skip
COMMON: Final = {
    "image": "registry.example.org/team/trainer:1.0@sha256:0a", "minWorkers": 1, "processesPerWorker": 2,
    **PLACEMENT, "priorityClassName": "low", "serviceAccountName": "trainer",
    "podTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"imagePullSecrets": [{"name": "a"}]}},
    "storage": {
        "claimName": "claim", "accessMode": "ReadWriteOnce", "subPath": "jobs/digits", "checkpointIntervalSeconds": 10,
        "checkpointIntervalSteps": 100, "keepCheckpoints": 2,
    },
    "restartPolicy": {"maxRestarts": 1, "exitCodeRules": [{"exitCodes": [3, 4], "action": "Fail"}]},
    "startDeadlineSeconds": 60, "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 0, "stopGraceSeconds": 10,
    "suspend": True, "managedBy": "example.org/other",
}  # fmt: skip
WITH_TRAINER: Final = {
    **COMMON, "workers": 3,
    "trainer": {
        "model": "resnet18", "data": {"name": "cifar10", "validationFraction": 0.1, "augment": "flip"}, "epochs": 2,
        "batchSize": 64, "shards": 8,
        "optimizer": {
            "name": "sgd", "learningRate": 0.1, "momentum": 0.9, "nesterov": True, "weightDecay": 0.1,
            "gradientClipNorm": 1.0,
        },
        "schedule": {"name": "step", "warmupFraction": 0.1}, "precision": "bf16", "channelsLast": True, "compile": True,
        "labelSmoothing": 0.1, "emaDecay": 0.9,
        "sync": {"mode": "local", "everySteps": 8, "outerLearningRate": 0.8, "outerMomentum": 0.5},
        "tensorboard": True, "seed": 7,
        "deterministic": True, "sampleLog": True, "device": "cpu",
    },
    "export": {
        "formats": ["onnx", "pt2"], "maxAccuracyLoss": 0.5, "calibrationImages": 10, "measureOn": PLACEMENT,
        "destination": "s3://bucket/digits",
    },
}  # fmt: skip
WITH_PROGRAM: Final = {
    **COMMON, "pools": [{"name": "cloud", "workers": 2, **PLACEMENT}], "storage": {"sizeLimit": "4Gi"},
    "program": {
        "command": ["python", "train.py"], "args": ["--fast"], "workingDir": "/work", "files": {"train.py": "pass\n"},
        "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    },
}  # fmt: skip
WITH_SOURCE: Final = {"workers": 1, "trainer": {"data": {"source": "/data"}}}
NOW: Final = "2026-01-31T12:00:00Z"
STATUS: Final = {
    "phase": "Running", "observedGeneration": 2,
    "conditions": [{
        "type": "Running", "status": "True", "reason": "WorkersRunning", "message": "round 1",
        "lastTransitionTime": NOW, "observedGeneration": 2,
    }],
    "summary": {
        "workers": "2/2", "progress": "41%", "eta": "3m", "loss": "0.1", "accuracy": "97%", "samplesPerSecond": "1,480",
        "reason": "WorkersRunning",
    },
    "progress": {
        "percent": 41.5, "step": 4, "totalSteps": 10, "epoch": 0.4, "loss": -0.1, "accuracy": 0.97, "etaSeconds": 180,
        "samplesPerSecond": 1480.5, "metrics": {"f1": 0.5}, "reportedAt": NOW,
    },
    "workers": {"desired": 2, "ready": 2}, "readyWorkers": 2, "selector": "a=b",
    "rendezvous": {"round": 1, "members": [{"index": 0, "podUid": "u"}], "openedAt": NOW, "stopping": True},
    "restarts": 1,
    "budget": {
        "spent": 1, "unpaid": 0, "checkpointStep": 3, "highestStep": 4, "falls": 1, "rejected": 1, "paidPods": ["u"],
    },
    "lastFailure": {
        "worker": 0, "rank": 1, "exitCode": 1, "signal": "SIGKILL", "reason": "Killed", "message": "m", "node": "n",
        "round": 1, "at": NOW,
    },
    "checkpoint": {"step": 3, "path": "checkpoints/step-3", "weightsSha256": "0a"}, "image": "a:1",
    "evaluation": {"accuracy": 0.9, "correct": 9, "total": 10, "details": {"a": 1}}, "performance": {"a": 1},
    "measuring": {
        "since": NOW, "podUid": "u", "endedPodUid": "u", "failures": 1, "failedAt": NOW, "message": "m",
    },
    "exports": [{"a": 1}], "gpuSeconds": 1.5, "startTime": NOW, "runningTime": NOW, "completionTime": NOW,
}  # fmt: skip
EXAMPLES: Final = [
    strategies.resource(WITH_TRAINER, status=STATUS),
    strategies.resource(WITH_PROGRAM),
    strategies.resource(WITH_SOURCE),
]

OTHER_TYPES: Final[dict[str | None, list[Any]]] = {
    "string": [1, True, [], {}, ["a"]],
    "integer": ["1", "", 1.5, True, [], {}, [1]],
    "number": ["1", "", True, [], {}, "nan", ".inf"],
    "boolean": ["true", "yes", "", 1, 0, [], {}],
    "array": ["a", 1, True, {}, {"0": "a"}],
    "object": ["a", 1, True, [], [{}]],
    None: [1.5, True, [], {}, ["1"]],
}
BAD_TEXTS: Final = ["", " ", "\n", "ü", "a b", "a\n", "-", "/", "\0", "a\0", "A", "../a", "a" * 1000]


def mutations(schema: Schema, value: Any) -> Iterator[Any]:
    """Values in the place of this one: at the bounds and beyond them, of another type, of another form."""
    kind = schema.get("type")
    yield from OTHER_TYPES[kind]
    for bound, inwards in (("minimum", 1), ("maximum", -1)):
        if bound in schema:
            limit = schema[bound]
            yield from (limit, limit - inwards, limit + inwards)
            if kind == "number":
                yield from (limit + inwards * 1e-3, limit - inwards * 1e-3)
    if kind == "string" or kind is None:
        for length in (schema.get("minLength", 0) - 1, schema.get("maxLength", 10), schema.get("maxLength", 10) + 1):
            yield ("x" if "format" in schema else "1") * max(0, length)
            yield "/" * max(0, length)
        yield from BAD_TEXTS
        yield from (text for choice in schema.get("enum", ()) for text in (choice, choice.lower(), choice.upper()))
    if kind == "array":
        yield from ([value[0]] * schema["maxItems"], [value[0]] * (schema["maxItems"] + 1), [])
    if kind == "object" and "maxProperties" in schema:
        entry = next(iter(value.values()), "x")
        yield from ({f"k{n}": entry for n in range(schema["maxProperties"] + more)} for more in (0, 1))
    for name in schema.get("required", ()) if isinstance(value, dict) else ():
        yield {key: child for key, child in value.items() if key != name}


def fields(schema: Schema, value: Any, path: Path = ()) -> Iterator[tuple[Path, Schema, Any]]:
    """Every place in a value that the schema speaks of."""
    yield path, schema, value
    if isinstance(value, dict):
        for name, child in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if below:
                yield from fields(below, child, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from fields(schema["items"], item, (*path, index))


def test_the_examples_are_right_and_have_every_field() -> None:
    seen: set[Path] = set()
    for one in EXAMPLES:
        TrainingJob.parse(one)
        assert takes(one)
        for path, _, _ in fields(SCHEMA, one):
            seen.add(tuple(step for step in path if isinstance(step, str)))
    maps = {path for path, schema in nodes(SCHEMA) if "additionalProperties" in schema}
    for path, _ in nodes(SCHEMA):
        plain = tuple(step for step in path if step not in ("[]", "{}"))
        assert plain in seen or plain in maps, f"{path} is new: write it into one of the examples above"


@pytest.mark.parametrize(
    ("example", "part"),
    [(EXAMPLES[0], "spec"), (EXAMPLES[1], "spec"), (EXAMPLES[2], "spec"), (EXAMPLES[0], "status")],
    ids=["trainer", "program", "source", "status"],
)
def test_one_field_at_a_time(example: dict[str, Any], part: str) -> None:
    tried, example = 0, copy.deepcopy(example)
    for path, schema, value in list(fields(SCHEMA, example)):
        if path[:1] != (part,):
            continue
        for mutation in mutations(schema, value):
            put(example, path, mutation)
            errors = parse_errors(example)
            if errors != {"extra_forbidden"}:
                assert part_fits(example, path[:2]) == (not errors), (path, str(mutation)[:80], errors)
                tried += 1
        put(example, path, value)
    assert tried > 50


def part_fits(resource: dict[str, Any], path: Path) -> bool:
    """Whether the server takes this part of a resource; the rest of it is right."""
    schema, value = SCHEMA, resource
    for name in path:
        schema, value = schema["properties"][name], value[str(name)]
    return fits(schema, stored(schema, value))


def test_what_only_one_side_refuses() -> None:
    """The differences that are known, and meant."""
    unknown = strategies.resource(WITH_SOURCE | {"wrokers": 2})
    assert parse_errors(unknown) == {"extra_forbidden"}
    assert schema_errors(unknown) == []  # pruned, and kubectl warns of it
    nothing = strategies.resource({"workers": 1, "trainer": {"data": {"name": "digits"}, "epochs": None}})
    assert parse_errors(nothing) == {"int_type"}
    assert schema_errors(nothing) == []  # the default stands in its place
    long_key = strategies.resource(WITH_SOURCE | {"nodeSelector": {"k" * 318: "v"}})
    assert parse_errors(long_key) == {"string_too_long"}
    assert schema_errors(long_key) == []  # a CRD can't bound a map's keys; the Pod is refused
    seconds = strategies.resource(WITH_SOURCE, status=STATUS | {"startTime": "1700000000"})
    assert parse_errors(seconds) == set()  # pydantic knows Unix time; status is written by us alone
    assert schema_errors(seconds) != []
