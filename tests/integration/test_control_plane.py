"""The API server takes what the project publishes: the CRD and the examples; and it keeps the CRD's own rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane, KubectlError

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "examples").glob("*.yaml"))
DIGITS = next(path for path in EXAMPLES if path.name == "digits.yaml")


@pytest.fixture(scope="module")
def namespace(cp: ControlPlane) -> str:
    return cp.create_namespace("taking")


@pytest.fixture
def digits(cp: ControlPlane, namespace: str) -> Iterator[dict[str, object]]:
    """The example as the API server has it."""
    yield json.loads(cp.kubectl("create", "-n", namespace, "-f", DIGITS, "-o", "json"))
    cp.kubectl("delete", "-n", namespace, "-f", DIGITS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_taken(cp: ControlPlane, namespace: str, path: Path) -> None:
    cp.kubectl("create", "-n", namespace, "-f", path, "--dry-run=server", "--validate=strict")


def test_a_changed_trainer_is_refused(cp: ControlPlane, namespace: str, digits: dict[str, object]) -> None:
    changed = json.dumps({"spec": {"trainer": {"epochs": 31}}})
    with pytest.raises(KubectlError, match="trainer cannot be changed: give the changed job another name"):
        cp.kubectl("patch", "trainingjob", "digits", "-n", namespace, "--type=merge", "-p", changed)


def test_the_number_of_workers_can_be_changed(cp: ControlPlane, namespace: str, digits: dict[str, object]) -> None:
    cp.kubectl("scale", "trainingjob/digits", "-n", namespace, "--replicas=3")
    assert cp.kubectl("get", "tj", "digits", "-n", namespace, "-o", "jsonpath={.spec.workers}") == "3"


def test_tokens_are_signed_with_a_key_that_can_be_had(cp: ControlPlane, namespace: str) -> None:
    token = cp.kubectl("create", "token", "default", "-n", namespace, "--audience", "the-job").strip()
    assert token.count(".") == 2
    keys = json.loads(cp.kubectl("get", "--raw", "/openid/v1/jwks"))["keys"]
    assert [key["alg"] for key in keys] == ["RS256"]


def test_data_outlives_an_outage(cp: ControlPlane, namespace: str) -> None:
    cp.kubectl("create", "configmap", "kept", "-n", namespace)
    with cp.outage(), pytest.raises(KubectlError):
        cp.kubectl("get", "configmap", "kept", "-n", namespace)
    cp.kubectl("get", "configmap", "kept", "-n", namespace)
