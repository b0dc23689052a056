"""The CustomResourceDefinition is one that an API server takes, and all of it is described and bounded."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import re2
import yaml

from edgecloud.api.columns import COLUMNS
from edgecloud.api.crd import MAX_BYTES, crd, crd_yaml
from edgecloud.api.immutable import IMMUTABLE, LASTING
from edgecloud.api.spec import TrainingJobSpec
from edgecloud.api.status import TrainingJobStatus
from tests.unit.api.server import SCHEMA, SPEC, STATUS, VERSION, Schema, at, fits, nodes, stored

ROOT: Final = Path(__file__).parents[3]
NODES: Final = [(".".join(map(str, path)), schema) for path, schema in nodes(SCHEMA)]

ALLOWED: Final = frozenset({
    "type", "format", "description", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "minProperties", "multipleOf", "default",
    "required", "properties", "additionalProperties", "items", "anyOf", "nullable", "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type", "x-kubernetes-embedded-resource", "x-kubernetes-validations",
})  # fmt: skip
"""Keywords of a structural schema that we have a use for."""
INT_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]
UNBOUNDED: Final = {
    "apiVersion": "the server has checked it",
    "kind": "the server has checked it",
    "metadata": "the server's own; the rule at the top bounds the name",
}


def structural_problems(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[str]:
    """What keeps a schema from being structural, as an API server says it (kubectl explain and pruning need it)."""
    for place, node in nodes(schema, path):
        where = ".".join(map(str, place)) or "(top)"
        yield from (f"{where}: {keyword} is forbidden" for keyword in node if keyword not in ALLOWED)
        int_or_string = node.get("x-kubernetes-int-or-string", False)
        if int_or_string and ("type" in node or node.get("anyOf", INT_OR_STRING) != INT_OR_STRING):
            yield f"{where}: an int-or-string has no type and no other anyOf"
        if not int_or_string and node.get("type") not in ("object", "array", "string", "integer", "number", "boolean"):
            yield f"{where}: no type"
        if "anyOf" in node and not int_or_string:
            yield f"{where}: anyOf is for int-or-string alone"
        if "properties" in node and "additionalProperties" in node:
            yield f"{where}: additionalProperties beside properties"
        if not isinstance(node.get("additionalProperties", {}), dict):
            yield f"{where}: additionalProperties is true or false"
        if ("properties" in node or "additionalProperties" in node) and node.get("type") != "object":
            yield f"{where}: fields of what is no object"
        if ("items" in node) != (node.get("type") == "array") or not isinstance(node.get("items", {}), dict):
            yield f"{where}: an array has items, and one schema for them"
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            if bound in node and (node[bound] is not True or bound[9:].lower() not in node):
                yield f"{where}: {bound} is true, beside a bound"
        for name in node.get("required", ()):
            if name not in node.get("properties", {}):
                yield f"{where}: required {name} is no property"
        for key in node.get("x-kubernetes-list-map-keys", ()):
            items = node["items"]
            if key not in items.get("required", ()) and "default" not in items["properties"][key]:
                yield f"{where}: a map's key {key} is neither required nor has a default"
        for value in node.get("enum", ()):
            if not fits({"type": node["type"]}, value):
                yield f"{where}: {value!r} is no {node['type']}"


def test_the_checker_finds_what_is_not_structural() -> None:
    def problems(schema: dict[str, Any]) -> int:
        return len(list(structural_problems({"type": "object", "properties": {"a": schema}})))

    text = {"type": "string"}
    assert problems(text) == 0
    for wrong in (
        {},
        {"type": "null"},
        {"$ref": "#/$defs/A"},
        {"type": "string", "const": "a"},
        {"type": "string", "title": "A"},
        {"type": "object", "patternProperties": {"a": text}},
        {"type": "object", "properties": {"b": text}, "additionalProperties": text},
        {"type": "object", "additionalProperties": False},
        {"type": "object", "properties": {"b": text}, "required": ["c"]},
        {"type": "string", "anyOf": [text]},
        {"anyOf": [text, {"type": "integer"}], "x-kubernetes-int-or-string": True},
        {"type": "string", "anyOf": INT_OR_STRING, "x-kubernetes-int-or-string": True},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "number", "exclusiveMinimum": True},
        {"type": "array"},
        {"type": "array", "items": [text]},
        {"type": "integer", "enum": ["a"]},
        {"type": "object", "properties": {"b": {}}},
    ):
        assert problems(wrong), wrong


def test_it_is_structural() -> None:
    assert list(structural_problems(SCHEMA)) == []


def test_of_metadata_nothing_is_said() -> None:
    """An API server refuses even a description there."""
    assert SCHEMA["properties"]["metadata"] == {"type": "object"}


def test_the_manifest_is_what_the_command_prints() -> None:
    printed = subprocess.run(
        [Path(sys.executable).with_name("edgecloud"), "crd"], capture_output=True, check=True, timeout=60
    ).stdout
    assert printed.decode() == crd_yaml()
    assert printed == (ROOT / "manifests/crd.yaml").read_bytes(), "run `make manifests`"


def test_the_yaml_says_what_the_data_says() -> None:
    assert yaml.safe_load(crd_yaml()) == crd()
    assert not re.findall(r"^ *(?:[^ ]+ )?[&*]\w.*", crd_yaml(), re.MULTILINE)  # an anchor or an alias


def test_it_fits_into_the_annotation_of_kubectl_apply() -> None:
    assert len(crd_yaml().encode()) < MAX_BYTES == 256 * 1024


def test_names() -> None:
    resource = crd()
    assert (resource["apiVersion"], resource["kind"]) == ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    names = resource["spec"]["names"]
    assert (
        resource["metadata"]["name"] == f"{names['plural']}.{resource['spec']['group']}" == "trainingjobs.edgecloud.io"
    )
    assert (names["kind"], names["listKind"], names["singular"]) == ("TrainingJob", "TrainingJobList", "trainingjob")
    assert names["shortNames"] == ["tj"]
    assert names["categories"] == ["all", "edgecloud"]
    assert resource["spec"]["scope"] == "Namespaced"
    assert [(version["name"], version["served"], version["storage"]) for version in resource["spec"]["versions"]] == [
        ("v1alpha1", True, True)
    ]


def schema_at_path(path: str) -> Schema:
    """The schema at a JSONPath of plain keys."""
    assert path.startswith(".")
    return at(*path[1:].split("."))


def test_columns() -> None:
    columns = VERSION["additionalPrinterColumns"]
    narrow = [column["name"] for column in columns if "priority" not in column]
    assert narrow == ["Phase", "Workers", "Progress", "ETA", "Loss", "Restarts", "Age"]
    wide = [column["name"] for column in columns if column.get("priority") == 1]
    assert wide == ["Accuracy", "Samples/s", "Round", "Reason"]
    assert all(column["description"] for column in columns)
    assert len(columns) == len(COLUMNS)


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_a_columns_path_is_in_the_schema(column: dict[str, Any]) -> None:
    if column["jsonPath"] == ".metadata.creationTimestamp":
        assert column["type"] == "date"
    else:
        assert schema_at_path(column["jsonPath"])["type"] == column["type"]


def test_subresources() -> None:
    subresources = VERSION["subresources"]
    assert subresources["status"] == {}
    scale = subresources["scale"]
    assert schema_at_path(scale["specReplicasPath"])["type"] == "integer"
    assert schema_at_path(scale["statusReplicasPath"])["type"] == "integer"
    assert schema_at_path(scale["labelSelectorPath"])["type"] == "string"
    assert scale["specReplicasPath"].startswith(".spec.")
    assert scale["statusReplicasPath"].startswith(".status.") and scale["labelSelectorPath"].startswith(".status.")


@pytest.mark.parametrize(("model", "schema"), [(TrainingJobSpec, SPEC), (TrainingJobStatus, STATUS)])
def test_every_field_of_the_models_is_there(model: type[TrainingJobSpec], schema: Schema) -> None:
    assert list(schema["properties"]) == [field.alias for field in model.model_fields.values()]


def test_every_property_is_described() -> None:
    for path, schema in NODES:
        for name, child in schema.get("properties", {}).items():
            if (path, name) != ("", "metadata"):
                text = child.get("description", "")
                assert 4 < len(text) < 300 and text == text.strip(), (path, name, text)


def test_defaults_fit_their_own_schema() -> None:
    found = 0
    for path, schema in NODES:
        if "default" in schema:
            found += 1
            assert schema["default"] is not None, path
            assert fits(schema, schema["default"]), path
            assert stored(schema, schema["default"]) == schema["default"], path
    assert found > 30


def test_strings_lists_and_maps_are_bounded() -> None:
    """Without bounds the server can't bound the cost of a rule, nor anybody the size of a status."""
    for path, schema in NODES:
        bounded = {
            "string": {"maxLength", "enum", "format"},
            "array": {"maxItems"},
            "object": {"maxProperties", "properties"},
            None: {"maxLength"},
        }.get(schema.get("type"), {"type"})
        assert bounded & set(schema) or path in UNBOUNDED, path
        assert schema.get("format") in (None, "date-time", "int64"), path


def test_integers_have_both_bounds() -> None:
    for path, schema in NODES:
        if schema.get("type") == "integer":
            assert {"minimum", "maximum"} <= set(schema), path
            assert (schema["maximum"] > 2**31 - 1) == (schema.get("format") == "int64"), path


def test_patterns_mean_the_same_everywhere() -> None:
    """Rust's (pydantic) and Go's regular expressions have neither lookaround nor backreferences; `$` ends the text."""
    patterns = {(path, schema["pattern"]) for path, schema in NODES if "pattern" in schema}
    assert len(patterns) > 10
    for path, pattern in patterns:
        re2.compile(pattern)
        assert pattern.startswith("^") and pattern.endswith("$") and "$" not in pattern[:-1], path


def test_rules_are_stated_with_message_and_place() -> None:
    rules = [(path, schema, rule) for path, schema in NODES for rule in schema.get("x-kubernetes-validations", ())]
    assert len(rules) > 20
    for path, schema, rule in rules:
        assert set(rule) <= {"rule", "message", "fieldPath"}, path
        assert rule["message"] and "\n" not in rule["message"] and len(rule["message"]) < 300, path
        if "fieldPath" in rule:  # the server refuses one that is not in the schema
            node = schema
            for name in rule["fieldPath"].removeprefix(".").split("."):
                assert name in node["properties"], (path, rule["fieldPath"])
                node = node["properties"][name]


def test_what_cannot_be_changed_is_a_field_of_spec() -> None:
    assert set(IMMUTABLE) <= set(SPEC["properties"])
    transitions = [rule["rule"] for rule in SPEC["x-kubernetes-validations"] if "oldSelf" in rule["rule"]]
    assert len(transitions) == len(LASTING)


def test_conditions_are_a_map_by_type() -> None:
    conditions = STATUS["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


def test_kubernetes_own_structures_are_passed_through() -> None:
    passed = {path for path, schema in NODES if schema.get("x-kubernetes-preserve-unknown-fields")}
    assert {
        "spec.podTemplate.metadata",
        "spec.podTemplate.spec",
        "spec.tolerations.[]",
        "spec.program.env.[].valueFrom",
    } <= passed
    assert "spec.podTemplate" not in passed, "imagePullSecrets right below it would be kept, and count for nothing"
    assert {path for path in passed if path.startswith("status.")} == {
        *("status.evaluation.details", "status.performance", "status.exports.[]")
    }
