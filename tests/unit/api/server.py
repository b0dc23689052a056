"""What an API server does with a TrainingJob, by the CRD alone: defaults, the schema's checks, the CEL rules."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final

import celpy
import jsonschema
import re2
from celpy import celtypes

from edgecloud.api.crd import crd

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]

VERSION: Final[dict[str, Any]] = crd()["spec"]["versions"][0]
SCHEMA: Final[Schema] = VERSION["schema"]["openAPIV3Schema"]
SPEC: Final[Schema] = SCHEMA["properties"]["spec"]
STATUS: Final[Schema] = SCHEMA["properties"]["status"]


def nodes(schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Every schema below a schema, with its path; `[]` stands for a list's items, `{}` for a map's values."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, (*path, name))
    for keyword, step in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(keyword), dict):
            yield from nodes(schema[keyword], (*path, step))


def at(*path: str) -> Schema:
    """The schema at a path of field names."""
    schema = SCHEMA
    for name in path:
        schema = schema["properties"][name]
    return schema


def stored(schema: Schema, value: Any) -> Any:
    """A value as the server keeps it and shows it to CEL: defaults filled in, every `number` a double.

    Unknown fields are pruned and so is a null.
    """
    if isinstance(value, dict) and "properties" in schema:
        known = {name: given for name, given in value.items() if name in schema["properties"] and given is not None}
        for name, child in schema["properties"].items():
            if name not in known and "default" in child:
                known[name] = child["default"]
        return {name: stored(schema["properties"][name], given) for name, given in known.items()}
    if isinstance(value, dict) and "additionalProperties" in schema:
        return {name: stored(schema["additionalProperties"], given) for name, given in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [stored(schema["items"], item) for item in value]
    if schema.get("type") == "number" and type(value) is int:
        return float(value)
    return value


# The schema's checks


def _pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    """Go's regular expressions are RE2's; Python's `$` would let a line feed through."""
    if isinstance(value, str) and not re2.search(pattern, value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern}")


_formats = jsonschema.FormatChecker(formats=())
_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@_formats.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(_RFC_3339.fullmatch(value) and datetime.fromisoformat(value))


# OpenAPI v3 has the exclusive bounds of JSON schema's draft 4: true or false beside the bound.
_Validator: Final = jsonschema.validators.extend(jsonschema.Draft4Validator, {"pattern": _pattern})


@cache
def _whole() -> Any:
    return _Validator(SCHEMA, format_checker=_formats)


def schema_errors(resource: dict[str, Any]) -> list[str]:
    """What the schema has against a resource."""
    return [f"{error.json_path}: {error.message}"[:300] for error in _whole().iter_errors(stored(SCHEMA, resource))]


def fits(schema: Schema, value: Any) -> bool:
    """Whether a value fits a part of the schema."""
    return bool(_Validator(schema, format_checker=_formats).is_valid(value))


# The rules


def _sum(items: celtypes.ListType) -> celtypes.IntType:
    """Kubernetes' extension of CEL: the sum of a list of integers."""
    return celtypes.IntType(sum(items))


def _least(items: celtypes.ListType) -> Any:
    """Likewise: the smallest."""
    return min(items)


def _largest(items: celtypes.ListType) -> Any:
    """Likewise: the largest."""
    return max(items)


def _equal(left: Any, right: Any) -> celtypes.BoolType:
    """Equality as CEL has it: numbers by value, and values of other types differ. (celpy calls that an error.)"""
    return celtypes.BoolType(_same(left, right))


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    numbers = (celtypes.IntType, celtypes.DoubleType)
    if isinstance(left, numbers) and isinstance(right, numbers):
        return float(left) == float(right)
    return type(left) is type(right) and bool(left == right)


_FUNCTIONS: Final = {"sum": _sum, "min": _least, "max": _largest, "_==_": _equal}


@cache
def _program(expression: str) -> celpy.Runner:
    limit = sys.getrecursionlimit()
    try:
        environment = celpy.Environment()  # sets Python's recursion limit for everybody
        return environment.program(environment.compile(expression), functions=_FUNCTIONS)
    finally:
        sys.setrecursionlimit(limit)


def holds(expression: str, self: Any, old: Any = None) -> bool:
    """Whether a rule holds of what the server stores."""
    activation = {"self": celpy.json_to_cel(self)} | ({} if old is None else {"oldSelf": celpy.json_to_cel(old)})
    result = _program(expression).evaluate(activation)
    assert isinstance(result, celtypes.BoolType), (expression, result)
    return bool(result)


def broken_rules(schema: Schema, value: Any, old: Any = None, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every rule that a stored value breaks, with the path of the object that it stands at.

    old: what was stored before; the rules about changes hold of every object that had a value then.
    """
    for rule in schema.get("x-kubernetes-validations", ()):
        transition = "oldSelf" in rule["rule"]
        if (not transition or old is not None) and not holds(rule["rule"], value, old if transition else None):
            yield path, rule["rule"]
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, child in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(below, dict):
                yield from broken_rules(below, child, before.get(name), (*path, name))
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from broken_rules(schema["items"], item, None, (*path, index))


def takes(resource: dict[str, Any], old: dict[str, Any] | None = None) -> bool:
    """Whether the server would take a resource, as new or in the place of an old one."""
    before = None if old is None else stored(SCHEMA, old)
    return not schema_errors(resource) and not list(broken_rules(SCHEMA, stored(SCHEMA, resource), before))
