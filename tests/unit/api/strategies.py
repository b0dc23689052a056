"""Resources for property tests: of any shape that pydantic's schema allows, and small ones that the rules are about."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from edgecloud.api.job import TrainingJob
from edgecloud.api.rules import RESERVED_ENV
from edgecloud.api.sets import set_of
from edgecloud.api.trainer import SETS
from edgecloud.api.types import QUANTITY_PATTERN

QUANTITY = re.compile(QUANTITY_PATTERN.strip("^$"), re.ASCII)
Strategy = st.SearchStrategy[Any]

_characters = st.characters(exclude_categories=["Cs"])
_text = st.text(_characters, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=4,
)
_zones = st.just("Z") | st.builds(
    "{}{:02d}:{:02d}".format, st.sampled_from("+-"), st.integers(0, 14), st.integers(0, 59)
)
times = st.builds(
    lambda moment, whole, zone: moment.isoformat(timespec="seconds" if whole else "microseconds") + zone,
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),
    st.booleans(),
    _zones,
)
"""Times as RFC 3339 has them."""


def of(schema: dict[str, Any], defs: dict[str, Any]) -> Strategy:
    """Values that fit a schema as pydantic writes it: every field that it has, and none that it has not."""
    if "$ref" in schema:
        return st.deferred(lambda: of(defs[schema["$ref"].rsplit("/", 1)[-1]], defs))
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if "anyOf" in schema:
        return st.one_of(*(of(_without(schema, "anyOf") | choice, defs) for choice in schema["anyOf"]))
    makers = {
        "string": _strings, "integer": _integers, "number": _numbers, "array": _lists, "object": _mappings,
        "boolean": lambda _schema, _defs: st.booleans(), "null": lambda _schema, _defs: st.none(),
    }  # fmt: skip
    return makers[schema["type"]](schema, defs) if "type" in schema else json_values


def _without(schema: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


def _strings(schema: dict[str, Any], _defs: dict[str, Any]) -> Strategy:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 1000)
    if schema.get("format") == "date-time":
        return times
    if "pattern" not in schema:
        return st.text(_characters, min_size=least, max_size=min(most, least + 8))
    body = schema["pattern"].removeprefix("^").removesuffix("$")
    return st.from_regex(body, fullmatch=True, alphabet=_characters).filter(lambda text: least <= len(text) <= most)


def _integers(schema: dict[str, Any], _defs: dict[str, Any]) -> Strategy:
    least, most = schema.get("minimum", -(2**53)), schema.get("maximum", 2**53)
    most = min(most, schema.get("exclusiveMaximum", most + 1) - 1)
    return st.integers(least, min(most, least + 10)) | st.integers(least, most)


def _numbers(schema: dict[str, Any], _defs: dict[str, Any]) -> Strategy:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    floats = st.floats(
        least,
        most,
        exclude_min="exclusiveMinimum" in schema,
        exclude_max="exclusiveMaximum" in schema,
        allow_nan=False,
        allow_infinity=False,
    )
    return floats | floats.map(int).filter(
        lambda number: (least is None or number > least) and (most is None or number < most)
    )


def _lists(schema: dict[str, Any], defs: dict[str, Any]) -> Strategy:
    least, most = schema.get("minItems", 0), schema.get("maxItems", 100)
    return st.lists(of(schema["items"], defs), min_size=least, max_size=min(most, least + 2))


def _mappings(schema: dict[str, Any], defs: dict[str, Any]) -> Strategy:
    if "properties" in schema:
        required = set(schema.get("required", ()))
        fields = {name: of(child, defs) for name, child in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: field for name, field in fields.items() if name in required},
            optional={name: field for name, field in fields.items() if name not in required},
        )
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return st.dictionaries(_text, json_values, max_size=3)
    names = schema.get("propertyNames", {})
    patterned = schema.get("patternProperties", {})
    pattern = next(iter(patterned), None)
    keys = _strings({"maxLength": 63, **names, **({"pattern": pattern} if pattern else {})}, defs)
    values = of(patterned[pattern] if pattern else schema["additionalProperties"], defs)
    return st.dictionaries(keys, values, max_size=3)


_JOB = TrainingJob.model_json_schema(by_alias=True)
specs = of(_JOB["$defs"]["TrainingJobSpec"], _JOB["$defs"])
"""Any spec but for the rules that span fields: most break some."""
statuses = of(_JOB["$defs"]["TrainingJobStatus"], _JOB["$defs"])
metadata = of(_JOB["$defs"]["ObjectMeta"], _JOB["$defs"])


def resource(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A TrainingJob with this spec."""
    head = {"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "digits"}}
    return head | {"spec": spec} | more


def put_right(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with what breaks a rule taken out or made to fit."""
    spec = {name: value for name, value in spec.items() if value is not None}
    if ("trainer" in spec) == ("program" in spec):
        spec.pop("trainer", None)
        spec.setdefault("program", {"command": ["python"]})
    if "program" in spec:
        spec.pop("export", None)
        spec["program"] = _right_program(spec["program"])
    if "export" in spec:
        spec["export"] = _right_export(spec["export"])
    if "pools" in spec:
        spec.pop("workers", None)
        pools = {pool["name"]: pool for pool in spec["pools"]}
        spec["pools"] = [pool | {"workers": min(pool["workers"], 60)} for pool in pools.values()]
    spec.setdefault("workers", 1) if "pools" not in spec else None
    for owner in (spec, *spec.get("pools", ()), (spec.get("export") or {}).get("measureOn") or {}):
        if owner.get("resources"):
            owner["resources"] = _right_amounts(owner["resources"])
    workers = sum(pool["workers"] for pool in spec["pools"]) if "pools" in spec else spec["workers"]
    if "trainer" in spec:
        spec["trainer"] = _right_trainer(spec["trainer"])
        spec.pop("processesPerWorker", None)
        if "pools" in spec or workers > spec["trainer"].get("shards", 12):
            spec.pop("pools", None)
            workers = spec["workers"] = min(workers, spec["trainer"].get("shards", 12))
    if "minWorkers" in spec:
        spec["minWorkers"] = min(spec["minWorkers"], workers)
    if "storage" in spec and spec["storage"].get("claimName") is not None:
        spec["storage"] = _without(spec["storage"], "sizeLimit")
    if "storage" in spec and ".." in (spec["storage"].get("subPath") or ""):
        spec["storage"] = _without(spec["storage"], "subPath")
    return spec


def _right_amounts(resources: dict[str, Any]) -> dict[str, Any]:
    """Without a / in a name, which stands for what is counted."""
    return {
        part: amounts and {name.replace("/", "-"): amount for name, amount in amounts.items()}
        for part, amounts in resources.items()
    }


def _right_program(program: dict[str, Any]) -> dict[str, Any]:
    variables = {}
    for variable in program.get("env") or ():
        name = variable["name"]
        if name not in RESERVED_ENV and not name.startswith("EDGECLOUD_"):
            variables[name] = variable if variable.get("value") is None else _without(variable, "valueFrom")
    first, *others = program["command"]
    program |= {"command": [first.replace(" ", ""), *others]}
    return program | ({"env": list(variables.values())} if "env" in program else {})


def _right_export(export: dict[str, Any]) -> dict[str, Any]:
    formats = list(dict.fromkeys(export.get("formats", ["onnx"])))
    export = export | {"formats": formats}
    if export.get("destination") is not None:
        export["destination"] = f"/{export['destination']}"[:1024]
    return _without(export, "measureOn") if formats == ["pt2"] else export


def _right_trainer(trainer: dict[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in trainer["data"].items() if value is not None}
    if "name" in data or "source" not in data:
        data = _without(data, "source") | {"name": set_of(data.get("name", "")) or "digits"}
    shards, batch = trainer.get("shards", 12), trainer.get("batchSize", 128)
    if trainer.get("precision") == "fp16":
        trainer = _without(trainer, "deterministic", "device")
    return trainer | {"data": data, "batchSize": max(shards, batch)}


right_specs = specs.map(put_right)
"""Specs that are right in every way."""
right_resources = st.builds(resource, right_specs)

# Small values, close together, so that the rules hold about as often as they don't.

_few = st.integers(1, 4)
_resources = st.fixed_dictionaries(
    {},
    optional={
        "limits": st.dictionaries(
            st.sampled_from(["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "amd.com/gpu"]),
            st.integers(0, 7) | st.sampled_from(["0", "2", "6", "07", 64, "65", "1000"]),
            max_size=2,
        ),
        "requests": st.just({"cpu": "1"}),
    },
)
"""With GPUs as people write them: a number or its digits. Other forms: test_rules.test_strange_numbers_of_gpus."""
_names = st.sampled_from(["a", "b", "c"])
_pools = st.lists(
    st.fixed_dictionaries(
        {"name": _names, "workers": _few | st.sampled_from([333, 500, 999, 1000])}, optional={"resources": _resources}
    ),
    min_size=1,
    max_size=3,
)
_variables = st.fixed_dictionaries(
    {
        "name": st.sampled_from(
            ["A", "B", "RANK", "MASTER_PORT", "RANKS", "EDGECLOUD_", "EDGECLOUD_A", "EDGECLOUD", "edgecloud_a"]
        )
    },
    optional={"value": st.sampled_from(["", "x"]), "valueFrom": st.just({"secretKeyRef": {"name": "s", "key": "k"}})},
)
_files = st.dictionaries(
    st.sampled_from(["a.py", "b", "c", "d"]),
    st.sampled_from([0, 1, 10, 128 * 1024 - 1, 128 * 1024, 256 * 1024 - 1, 256 * 1024]).map(
        lambda size: "\N{GREEK SMALL LETTER PI}" * size
    ),
    max_size=3,
)
env_vars = _variables
programs = st.fixed_dictionaries(
    {"command": st.just(["python", "train.py"])},
    optional={"env": st.lists(_variables, max_size=3), "files": _files},
)
data_specs = st.fixed_dictionaries(
    {}, optional={"name": st.sampled_from(SETS), "source": st.sampled_from(["/data", "s3://b"])}
)
trainers = st.fixed_dictionaries(
    {"data": data_specs},
    optional={
        "shards": st.integers(1, 13),
        "batchSize": st.integers(1, 13) | st.just(128),
        "precision": st.sampled_from(["auto", "bf16", "fp16"]),
        "deterministic": st.booleans(),
        "device": st.sampled_from(["auto", "cpu", "cuda"]),
    },
)
exports = st.fixed_dictionaries(
    {},
    optional={
        "formats": st.lists(st.sampled_from(["onnx", "onnx-int8", "pt2"]), min_size=1, max_size=3),
        "measureOn": st.just({}),
        "destination": st.lists(
            st.sampled_from(["/", "/a", "a", "", ".", "file", "s3", "c", "://", "::", ":", "?b", "#b", "~", " ", "\n"]),
            max_size=5,
        ).map("".join),
    },
)
rule_specs = st.fixed_dictionaries(
    {},
    optional={
        "workers": _few | st.integers(11, 13) | st.just(1000),
        "minWorkers": _few,
        "processesPerWorker": _few,
        "resources": _resources,
        "pools": _pools,
        "trainer": trainers,
        "program": programs,
        "export": exports,
        "storage": st.fixed_dictionaries(
            {}, optional={"claimName": _names, "sizeLimit": st.sampled_from(["1Gi", 4, 0]), "keepCheckpoints": _few}
        ),
        "suspend": st.booleans(),
        "managedBy": _names,
    },
)
"""Specs whose fields fit by themselves, and whose rules are broken one by one."""
