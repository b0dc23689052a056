"""What can be said of the chart and of the images without Helm or a builder."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.unit.chart.helm import CHART, ROOT

SCHEMA: Final[dict[str, Any]] = json.loads((CHART / "values.schema.json").read_text())
VALUES: Final[dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text())
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_schema_is_one_and_takes_the_defaults() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)


def test_every_value_has_a_default_and_a_schema() -> None:
    for_a_subchart = {"global", "enabled"}
    assert set(SCHEMA["properties"]) - for_a_subchart == set(VALUES)
    for name, schema in SCHEMA["properties"].items():
        if schema.get("additionalProperties") is False and VALUES.get(name):
            assert set(VALUES[name]) <= set(schema["properties"])


@pytest.mark.parametrize("name", [key for key, value in VALUES.items() if value is not None])
def test_a_value_of_the_wrong_kind_is_refused(name: str) -> None:
    for wrong in (7, "word", ["word"], {"word": 7}):
        if type(wrong) is not type(VALUES[name]) or isinstance(wrong, (list, dict)):
            if name in {"podSecurityContext", "securityContext"} and isinstance(wrong, dict):
                continue  # the API server's to check
            if name == "namespaces" and isinstance(wrong, list):
                continue
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.Draft7Validator(SCHEMA).validate(VALUES | {name: wrong})


def test_what_templates_look_into_is_required() -> None:
    """A section set to null is refused by name, where a template would meet with a nil pointer."""
    templates = "".join(file.read_text() for file in (CHART / "templates").iterdir())
    assert set(re.findall(r"\.Values\.(\w+)\.", templates)) <= set(SCHEMA["required"])
    assert {"mode", "issuerRef"} <= set(SCHEMA["properties"]["tls"]["required"])


def test_a_port_is_one() -> None:
    pattern = re.compile(SCHEMA["properties"]["coordinator"]["properties"]["address"]["pattern"])
    taken = [port for port in range(100_000) if pattern.fullmatch(f"https://a:{port}")]
    assert taken == list(range(1, 65536))
    assert not pattern.fullmatch("https://a:080")


def test_the_chart_has_the_projects_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["version"] == PROJECT["version"]


def test_the_charts_resource_is_the_manifest() -> None:
    assert (CHART / "files" / "crd.yaml").read_text() == (ROOT / "manifests" / "crd.yaml").read_text(), "make manifests"


def test_the_plain_manifests_images_get_a_registry_as_its_readme_says() -> None:
    (command,) = re.findall(r"^    (sed .*) \| kubectl", (ROOT / "manifests" / "README.md").read_text(), re.M)
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    images = re.findall(r"^ *(- --[a-z]+-image=|image: )\"?(\S+?)/edgecloud/\w+:dev", done.stdout, re.M)
    assert {registry for _, registry in images} == {"registry.example.com"}
    assert len(images) == len(re.findall(r"edgecloud/\w+:dev", done.stdout)) == 4


def test_make_help_names_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make (\S+) +\S", done.stdout, re.M) == targets


def test_the_dockerfile_speaks_of_the_same_versions() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"^ARG VERSION=(.*)$", dockerfile, re.M) == [PROJECT["version"]]
    assert re.findall(r"uv==([\d.]+)", dockerfile) == re.findall(r"^UV_VERSION := (.*)$", makefile, re.M)


def test_the_dockerfile_installs_nothing_unhashed() -> None:
    """And nothing but lock files and the two source roots gets into an image."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    installs = re.findall(r"pip (?:install|sync)[^;]*", dockerfile)
    assert len(installs) == 6
    for install in installs:
        assert "--require-hashes" in install
        assert "--only-binary :all:" in install
    sources = re.findall(r"^COPY (?!--from)(\S+) ", dockerfile, re.M)
    assert set(sources) == {
        "LICENSE",
        "operator/edgecloud",
        "operator/edgecloud_operator",
        "operator/requirements.lock",
        "trainer/edge.lock",
        "trainer/edgecloud_trainer",
        "trainer/requirements.lock",
    }
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert set(allowed) == set(sources)


@pytest.mark.parametrize(
    ("lock", "lacks", "has"),
    [
        ("operator/requirements.lock", {"torch", "onnxruntime"}, {"kopf", "kubernetes"}),
        ("trainer/requirements.lock", {"kopf", "kubernetes"}, {"torch", "torchvision"}),
        ("trainer/edge.lock", {"torch", "kopf", "kubernetes"}, {"onnxruntime", "pillow"}),
    ],
)
def test_each_image_has_what_it_needs_and_no_more(lock: str, lacks: set[str], has: set[str]) -> None:
    names = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), re.M))
    assert has <= names
    assert not lacks & names
