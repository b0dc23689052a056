"""The CustomResourceDefinition, made from the models: structural schema, CEL rules, columns, subresources."""

from __future__ import annotations

from typing import Any, Final

import yaml
from pydantic import BaseModel

from edgecloud.api.columns import COLUMNS
from edgecloud.api.immutable import LASTING
from edgecloud.api.job import GROUP, KIND, PLURAL, VERSION, TrainingJob
from edgecloud.api.rules import RULES
from edgecloud.api.spec import TrainingJobSpec
from edgecloud.api.types import MAX_NAME, NAME_PATTERN

MAX_BYTES: Final = 256 * 1024
"""Plain `kubectl apply` keeps the whole object in an annotation, which holds this much."""

# What a structural schema keeps of pydantic's JSON schema. Titles say nothing the name doesn't, and
# additionalProperties: false is forbidden beside properties: the server prunes unknown fields by itself.
_KEPT: Final = (
    "type", "format", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "maxProperties", "default", "anyOf",
)  # fmt: skip


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition as plain data."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["tj"],
                "categories": ["all", "edgecloud"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _resource_schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.workers",
                            "statusReplicasPath": ".status.readyWorkers",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {
                            "name": column.name,
                            "type": column.type,
                            "description": column.description,
                            "jsonPath": column.path,
                        }
                        | ({"priority": 1} if column.wide else {})  # a server does not keep a 0
                        for column in COLUMNS
                    ],
                }
            ],
        },
    }


def crd_yaml() -> str:
    """The CustomResourceDefinition as a YAML document."""
    head = "# Made from operator/edgecloud/api by `edgecloud crd` (make manifests); a test compares the two.\n"
    return head + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=110)


class _Plain(yaml.SafeDumper):
    """Writes what stands in two places twice, as a reader and kubectl expect, instead of an anchor and an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _resource_schema() -> dict[str, Any]:
    schema = TrainingJob.model_json_schema(by_alias=True)
    models = _models_by_name(TrainingJob)
    properties = {
        field: _structural(schema["properties"][field], schema["$defs"], models) for field in ("spec", "status")
    }
    return {
        "type": "object",
        "description": "A distributed PyTorch training.",
        "required": ["spec"],
        # The server knows apiVersion, kind and metadata; of metadata only the name can be looked at.
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"type": "object"},
            **properties,
        },
        "x-kubernetes-validations": [
            {
                "rule": f"size(self.metadata.name) <= {MAX_NAME} && self.metadata.name.matches('{NAME_PATTERN}')",
                "message": f"metadata.name: at most {MAX_NAME} lower-case letters, digits and '-', first a letter and"
                " last no '-'; worker Pods and the Service are named after it",
            }
        ],
    }


def _models_by_name(model: type[BaseModel]) -> dict[str, type]:
    return {rule_model.__name__: rule_model for rule_model in (*RULES, model)}


def _structural(node: dict[str, Any], defs: dict[str, Any], models: dict[str, type]) -> dict[str, Any]:
    """A node of pydantic's schema as a structural one: references laid in, `or null` left out."""
    node = _without_null(node)
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        target = _structural(defs[name], defs, models)
        rules = [_validation(rule) for rule in RULES.get(models.get(name, object), ())]
        if models.get(name) is TrainingJobSpec:
            rules += [
                {"rule": one.cel, "message": f"{one.name} cannot be changed: give the changed job another name"}
                for one in LASTING
            ]
        # The description at the field says more than the one at the class.
        target |= {key: node[key] for key in ("description", "default") if node.get(key) is not None}
        return target | ({"x-kubernetes-validations": rules} if rules else {})
    kept = {key: value for key, value in node.items() if key in _KEPT or key.startswith("x-kubernetes-")}
    if kept.get("default", 0) in (None, [], {}):
        del kept["default"]
    if "const" in node:
        kept["enum"] = [node["const"]]
    if "exclusiveMinimum" in node:
        kept |= {"minimum": node["exclusiveMinimum"], "exclusiveMinimum": True}
    if "exclusiveMaximum" in node:
        kept |= {"maximum": node["exclusiveMaximum"], "exclusiveMaximum": True}
    if "properties" in node:
        kept["properties"] = {name: _structural(child, defs, models) for name, child in node["properties"].items()}
        if node.get("required"):
            kept["required"] = node["required"]
    elif value := _map_value(node):
        kept["additionalProperties"] = _structural(value, defs, models)
    if "items" in node:
        kept["items"] = _structural(node["items"], defs, models)
    if kept.get("type") == "integer" and kept.get("maximum", 2**31) > 2**31 - 1:
        kept["format"] = "int64"
    return kept


def _map_value(node: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a map's values. A pattern for its keys, which a CRD can't hold, stands in the CEL rules."""
    pattern_properties = list(node.get("patternProperties", {}).values())
    value = pattern_properties[0] if pattern_properties else node.get("additionalProperties")
    return value if isinstance(value, dict) else None


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    """`X or null` is how pydantic says optional; in a CRD a field is optional by not being required."""
    choices = [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) != 1:
        return node
    outer = {key: value for key, value in node.items() if key != "anyOf" and value is not None}
    return {**choices[0], **outer}


def _validation(rule: Any) -> dict[str, Any]:
    validation = {"rule": rule.cel, "message": f"{rule.message}: {rule.remedy}"}
    return validation | ({"fieldPath": f".{rule.path}"} if rule.path else {})
