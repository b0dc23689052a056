"""The CRD's own rules and texts, on the server that keeps them; the examples of each rule are the unit tests'."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from edgecloud.api.immutable import LASTING, Lasting
from tests.cluster.control_plane import ControlPlane, KubectlError
from tests.integration.api import Api, ApiStatusError, until
from tests.integration.conftest import CRD
from tests.unit.api.test_rules import EXAMPLES, PROGRAM, TRAINER, program, trainer

NAMESPACE = "rules"


@pytest.fixture(scope="module")
def jobs(cp: ControlPlane) -> Iterator[tuple[Api, str]]:
    cp.create_namespace(NAMESPACE)
    api = Api(cp)
    yield api, f"/apis/edgecloud.io/v1alpha1/namespaces/{NAMESPACE}/trainingjobs"
    api.close()


def resource(spec: dict[str, Any], name: str = "job") -> dict[str, Any]:
    return {
        "apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    }  # fmt: skip


def test_the_server_has_it_as_the_file_says(cp: ControlPlane) -> None:
    """Else `kubectl apply` changes it each time, and who holds the two against each other finds a difference."""
    served = json.loads(cp.kubectl("get", "crd", "trainingjobs.edgecloud.io", "--output=json"))
    assert list(differences(yaml.safe_load(CRD.read_text())["spec"], served["spec"])) == []
    assert cp.kubectl("apply", "-f", CRD).strip().endswith(" unchanged")


def differences(said: Any, served: Any, at: str = "") -> Iterator[str]:
    """Where the server has not what was said; what it adds is its own affair."""
    if isinstance(said, dict) and isinstance(served, dict):
        for key, value in said.items():
            if key in served:
                yield from differences(value, served[key], f"{at}.{key}")
            else:
                yield f"{at}.{key} is gone"
    elif isinstance(said, list) and isinstance(served, list) and len(said) == len(served):
        for place, both in enumerate(zip(said, served, strict=True)):
            yield from differences(*both, f"{at}[{place}]")
    elif said != served:
        yield f"{at}: {said} is {served}"


@pytest.mark.parametrize(
    ("message", "good", "bad"), [(one[0], one[1], one[2]) for one in EXAMPLES],
    ids=[f"{place}-{one[0]}" for place, one in enumerate(EXAMPLES)],
)  # fmt: skip
def test_every_rule(jobs: tuple[Api, str], message: str, good: dict[str, Any], bad: dict[str, Any]) -> None:
    """As `kubectl apply --dry-run=server`: one spec that it takes, and one that breaks this rule and no other."""
    api, path = jobs
    api.call("POST", f"{path}?dryRun=All", resource(good))
    with pytest.raises(ApiStatusError) as refused:
        api.call("POST", f"{path}?dryRun=All", resource(bad))
    assert refused.value.code == 422
    assert message in str(refused.value)


def test_what_stands_beside_the_two_parts_of_a_pod_template_is_named_and_not_kept(jobs: tuple[Api, str]) -> None:
    api, path = jobs
    secrets = {"imagePullSecrets": [{"name": "registry"}]}
    wrong = resource(program() | {"podTemplate": secrets})
    with pytest.raises(ApiStatusError, match=r'unknown field .*"spec.podTemplate.imagePullSecrets'):
        api.call("POST", f"{path}?dryRun=All&fieldValidation=Strict", wrong)  # as kubectl asks
    assert api.call("POST", f"{path}?dryRun=All", wrong)["spec"]["podTemplate"] == {}
    right = resource(program() | {"podTemplate": {"spec": secrets}})
    assert (
        api.call("POST", f"{path}?dryRun=All&fieldValidation=Strict", right)["spec"]["podTemplate"]["spec"] == secrets
    )


CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "trainer": (trainer(), TRAINER | {"epochs": 3}),
    "program": (program(), PROGRAM | {"args": ["--other"]}),
    "storage": (program() | {"storage": {"claimName": "a"}}, {"claimName": "b"}),
    "export": (trainer() | {"export": {"formats": ["onnx"]}}, {"formats": ["pt2"]}),
    "processesPerWorker": (program() | {"processesPerWorker": 1}, 2),
    "managedBy": (program() | {"managedBy": "a.io/b"}, "a.io/c"),
    "pools": (
        {"pools": [{"name": "a", "workers": 1}], "program": PROGRAM},
        [{"name": "a", "workers": 2}],
    ),
    "resources": (
        program() | {"resources": {"limits": {"nvidia.com/gpu": "1", "cpu": 1}}},
        {"limits": {"nvidia.com/gpu": 2, "cpu": 1}},
    ),
}


@pytest.mark.parametrize("lasting", LASTING, ids=lambda lasting: lasting.path[0])
def test_what_cannot_be_changed(jobs: tuple[Api, str], lasting: Lasting) -> None:
    api, path = jobs
    field = lasting.path[0]
    before, after = CHANGES[field]
    name = f"fixed-{field.lower()}"
    made = api.call("POST", path, resource(before, name))
    changed = copy.deepcopy(made)
    changed["spec"][field] = after
    with pytest.raises(ApiStatusError, match=f"{lasting.name} cannot be changed"):
        api.call("PUT", f"{path}/{name}", changed)
    made["spec"]["suspend"] = True
    if field == "resources":
        made["spec"][field] = {"limits": {"nvidia.com/gpu": 1, "cpu": 2}}
    api.call("PUT", f"{path}/{name}", made)
    api.call("DELETE", f"{path}/{name}")


def explained(cp: ControlPlane, part: str) -> str:
    """Empty until the server, which has just taken the CRD, publishes its schema."""
    try:
        return cp.kubectl("explain", f"trainingjob.{part}", "--api-version=edgecloud.io/v1alpha1")
    except KubectlError as error:
        if "couldn't find resource" not in str(error):
            raise
        return ""


def test_every_field_explains_itself(cp: ControlPlane) -> None:
    """`kubectl explain --recursive` has a text for each field of ours; Kubernetes' own are passed through."""
    for part in ("spec", "status"):
        text = until(lambda part=part: explained(cp, part), f"the server to publish {part}")
        assert "<no description>" not in text
        fields = re.findall(r"^  (\w+)\t<[^\n]*\n(?:  enum: [^\n]*\n)?((?:    [^\n]+\n)*)", text, re.MULTILINE)
        assert len(fields) > 10
        assert [name for name, words in fields if not words.strip()] == []
