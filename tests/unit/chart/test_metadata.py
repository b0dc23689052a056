"""Names, labels and annotations of what the chart makes, where a release, a version or a user's values are odd."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.unit.chart.helm import CHART, KUBERNETES, container, needs_helm, only, run

pytestmark = needs_helm


@pytest.mark.parametrize(
    ("release", "name"), [("7", "edgecloud-7"), ("a.edgecloud", "a-edgecloud"), ("1e3", "edgecloud-1e3")]
)
def test_names_that_no_service_could_have(release: str, name: str) -> None:
    """And those that YAML takes for numbers."""
    done = run("template", release, str(CHART), "--namespace", "42", "--skip-tests", KUBERNETES, values={})
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert only(objects, "Service")["metadata"]["name"] == f"{name}-coordinator"
    for each in objects:
        metadata = each["metadata"]
        assert metadata.get("namespace", "42") == "42"
        assert each["kind"] == "CustomResourceDefinition" or metadata["labels"]["app.kubernetes.io/instance"] == release
    assert only(objects, "ClusterRoleBinding")["subjects"][0]["namespace"] == "42"


@pytest.mark.parametrize(
    ("values", "release", "name", "label"),
    [
        ({"nameOverride": "trainer"}, "blue", "blue-trainer", "trainer"),
        ({"nameOverride": "trainer"}, "trainer", "trainer", "trainer"),
        ({"nameOverride": "t" * 30}, "x" * 53, "x" * 19 + "-" + "t" * 30, "t" * 30),
        ({"fullnameOverride": "edge"}, "blue", "edge", "edgecloud"),
        ({}, "x" * 53, "x" * 40 + "-edgecloud", "edgecloud"),
    ],
)
def test_names_that_a_user_wants(values: dict[str, str], release: str, name: str, label: str) -> None:
    done = run("template", release, str(CHART), "--namespace", "a", "--skip-tests", KUBERNETES, values=values)
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert only(objects, "Service")["metadata"]["name"] == f"{name}-coordinator"
    deployment = only(objects, "Deployment")
    assert deployment["metadata"]["name"] == name
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector["app.kubernetes.io/name"] == label
    (said,) = (each for each in container(objects)["args"] if each.startswith("--pod-selector="))
    assert dict(part.split("=") for part in said.removeprefix("--pod-selector=").split(",")) == selector


def test_a_version_that_is_no_label(tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "charts")
    file = tmp_path / "charts" / "Chart.yaml"
    file.write_text(re.sub(r"^version: .*$", "version: 1.2.3+4.5", file.read_text(), flags=re.M))
    done = run("template", "x", str(file.parent), KUBERNETES, "--show-only", "templates/service.yaml", values={})
    labels = yaml.safe_load(done.stdout)["metadata"]["labels"]
    assert labels["app.kubernetes.io/version"] == "1.2.3_4.5"


def test_every_object_bears_the_common_labels() -> None:
    """And of those that tell the chart's objects apart its own: the Service would select nothing."""
    common = {"cost-center": "7", "app.kubernetes.io/name": "x", "helm.sh/chart": "other"}
    tls = {"mode": "certManager", "issuerRef": {"name": "ca"}}
    done = run("template", "edgecloud", str(CHART), KUBERNETES, values={"commonLabels": common, "tls": tls})
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert {"CustomResourceDefinition", "Certificate", "Pod"} < {each["kind"] for each in objects}
    template = only(objects, "Deployment")["spec"]["template"]
    for each in (*objects, template):
        labels = each["metadata"]["labels"]
        assert labels["cost-center"] == "7", each["kind"]
        assert labels.get("app.kubernetes.io/name", "edgecloud") == "edgecloud"
        assert labels.get("helm.sh/chart", "edgecloud").startswith("edgecloud")
    for _, lines in re.findall(r"^( *)labels:\n((?:\1  .*\n)+)", done.stdout, re.M):
        assert lines.count("app.kubernetes.io/name:") < 2
    assert "cost-center" not in only(objects, "Deployment")["spec"]["selector"]["matchLabels"]


def test_what_a_user_says_of_the_pod_stands_there_once() -> None:
    """YAML's readers differ in which of two they take."""
    values = {
        "podAnnotations": {"prometheus.io/scrape": "false"},
        "podLabels": {"app.kubernetes.io/name": "x", "app.kubernetes.io/version": "9"},
    }
    shown = ("--show-only", "templates/deployment.yaml")
    done = run("template", "edgecloud", str(CHART), KUBERNETES, *shown, values=values)
    found = yaml.safe_load(done.stdout)["spec"]
    metadata = found["template"]["metadata"]
    assert found["selector"]["matchLabels"].items() <= metadata["labels"].items()
    assert metadata["annotations"]["prometheus.io/scrape"] == "false"
    assert metadata["labels"]["app.kubernetes.io/version"] == "9"
    assert done.stdout.count("prometheus.io/scrape") == 1
    pod = done.stdout.split("\n  template:\n")[1].split("\n    spec:\n")[0]
    assert pod.count("app.kubernetes.io/version") == 1
