"""The measuring Pod as a Kubernetes object, and whether the models would reach it."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud_operator.core import names
from edgecloud_operator.core.builders import Settings, build_pod, build_service
from edgecloud_operator.core.measurer import build_measurer, unreachable
from tests.unit.chart.restricted import violations
from tests.unit.core.build import MEASURED, make_job
from tests.unit.core.expansion import expanded
from tests.unit.core.test_builders import OWNER, container, variables, volume

SHARED = MEASURED["storage"]


def pod_of(**spec: Any) -> dict[str, Any]:
    return build_measurer(make_job(**MEASURED | spec), Settings(edge_image="edge:1"))


def export(**fields: Any) -> dict[str, Any]:
    return {"export": {"measureOn": {}} | fields}


def test_the_pod() -> None:
    pod = pod_of(serviceAccountName="trainers", priorityClassName="high")
    assert pod["metadata"]["name"] == "digits-measure"
    assert pod["metadata"]["ownerReferences"] == [OWNER]
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["automountServiceAccountToken"] is False and pod["spec"]["enableServiceLinks"] is False
    assert (pod["spec"]["serviceAccountName"], pod["spec"]["priorityClassName"]) == ("trainers", "high")
    assert container(pod)["image"] == "edge:1"
    assert container(pod)["command"] == ["python", "-P", "-m", "edgecloud.edge.measure"]
    assert "resources" not in container(pod) and "tolerations" not in pod["spec"]
    assert violations(pod["spec"]) == []
    assert container(pod)["securityContext"]["readOnlyRootFilesystem"] is True


def test_its_place_is_its_own_and_not_the_workers() -> None:
    tolerations = [{"key": "edge", "operator": "Exists"}]
    resources = {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}}
    where = {"nodeSelector": {"edge": "true"}, "tolerations": tolerations, "resources": resources}
    gpus = {"limits": {"nvidia.com/gpu": 1}}
    spec = pod_of(nodeSelector={"cloud": "true"}, resources=gpus, **export(measureOn=where))["spec"]
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"edge": "true"}, tolerations)
    assert spec["containers"][0]["resources"] == resources


def test_no_selector_of_workers_fits_it() -> None:
    job = make_job(**MEASURED)
    labels = pod_of()["metadata"]["labels"]
    assert labels[names.JOB_LABEL] == "digits" and names.INDEX_LABEL not in labels
    assert not build_service(job)["spec"]["selector"].items() <= labels.items()
    selector = dict(part.split("=") for part in names.worker_selector("digits").split(","))
    assert not selector.items() <= labels.items()


@pytest.mark.parametrize("job", ["a", "a-measure", "a-worker-1", "worker-0", "measure", 50 * "a"])
def test_no_other_pod_and_no_other_job_has_its_name(job: str) -> None:
    name = names.measurer_name(job)
    assert len(name) <= 63
    others = ("a", "a-measure", "a-worker-1", "worker-0", "measure", 50 * "a")
    assert [other for other in others if names.measurer_name(other) == name] == [job]
    assert not any(names.worker_name(other, index) == name for other in others for index in (0, 1, 999))


def test_the_models_lie_on_the_claim() -> None:
    pod = pod_of(storage={"claimName": "models", "subPath": "team/a"})
    assert volume(pod, "storage") == {"persistentVolumeClaim": {"claimName": "models"}}
    assert {"name": "storage", "mountPath": "/edgecloud/storage", "subPath": "team/a"} in container(pod)["volumeMounts"]
    assert {one["name"] for one in pod["spec"]["volumes"]} == {"storage", "tmp"}
    assert variables(pod) == {
        "EDGECLOUD_EXPORT": "/edgecloud/storage/results/export",
        "EDGECLOUD_MAX_ACCURACY_LOSS": "1.0",
        "EDGECLOUD_NODE": {"fieldRef": {"fieldPath": "spec.nodeName"}},
    }
    assert container(pod_of())["volumeMounts"][-1]["subPath"] == "digits"


def test_or_are_fetched() -> None:
    """As they are named: a kubelet must not take a part of the URL for a variable."""
    for storage in ({}, {"claimName": "models", "accessMode": "ReadWriteOnce"}):
        pod = pod_of(storage=storage, **export(destination="https://models/$(EDGECLOUD_NODE)/a", maxAccuracyLoss=0.25))
        said = variables(pod)
        assert expanded(said["EDGECLOUD_EXPORT"], {"EDGECLOUD_NODE": "x"}) == "https://models/$(EDGECLOUD_NODE)/a"
        assert said["EDGECLOUD_MAX_ACCURACY_LOSS"] == "0.25"
        assert [one["name"] for one in pod["spec"]["volumes"]] == ["tmp"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"storage": SHARED}, None, id="a claim for all"),
        pytest.param({"storage": {}}, "an emptyDir", id="nothing"),
        pytest.param({"storage": {"claimName": "c", "accessMode": "ReadWriteOnce"}}, "ReadWriteOnce", id="one node's"),
        pytest.param({"storage": {}} | export(destination="https://models/a"), None, id="http"),
        pytest.param({"storage": {}} | export(destination="s3://models/a"), None, id="an object store"),
        pytest.param({"storage": {}} | export(destination="/mnt/models"), "emptyDir", id="a path is another's"),
        pytest.param({"storage": {}} | export(destination="file:///mnt"), "emptyDir", id="so is its URL"),
        pytest.param(
            {"storage": {}} | export(destination="simplecache::file:///mnt"), "emptyDir", id="however it is reached"
        ),
        pytest.param({"storage": {}} | export(destination="FILE:///mnt"), "emptyDir", id="or spelt"),
        pytest.param({"storage": {}} | export(destination="simplecache::s3://models/a"), None, id="kept on the way"),
        pytest.param({"storage": {}} | export(destination="http://[a"), "emptyDir", id="no URL"),
        pytest.param({"storage": {}, "export": {}}, None, id="measured in worker 0"),
        pytest.param({"storage": {}, "export": None}, None, id="not exported"),
    ],
)
def test_whether_the_models_reach_another_node(spec: dict[str, Any], words: str | None) -> None:
    job = make_job(**MEASURED | spec)
    found = unreachable(job, Settings())
    assert found is None if words is None else found is not None and words in found
    assert unreachable(job, Settings(one_machine=True)) is None


def test_the_workers_template_counts_where_it_is_for_this_pod_too() -> None:
    template = {
        "metadata": {"labels": {"team": "a", "edgecloud.io/job": "other"}, "annotations": {"b": "c"}, "name": "x"},
        "spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "securityContext": {"runAsUser": 2000, "fsGroup": 2000},
            "nodeSelector": {"cloud": "true"},
            "containers": [{"name": "worker", "workingDir": "/mine"}, {"name": "beside", "image": "x"}],
            "hostNetwork": True,
            "restartPolicy": "Always",
        },
    }
    plain, made = pod_of(), pod_of(podTemplate=template)
    assert made["metadata"]["labels"] == {"team": "a"} | plain["metadata"]["labels"]
    assert made["metadata"]["annotations"] == {"b": "c"}
    assert made["metadata"]["name"] == "digits-measure"
    security = made["spec"].pop("securityContext")
    assert (security["runAsUser"], security["runAsGroup"], security["runAsNonRoot"]) == (2000, 1000, True)
    assert made["spec"].pop("imagePullSecrets") == [{"name": "registry"}]
    assert made["spec"] == {key: value for key, value in plain["spec"].items() if key != "securityContext"}


def test_user_ids_may_be_left_to_the_platform() -> None:
    """As charts/README.md says, of one job and of all of them; here and in the workers."""
    context = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    spec = {"podTemplate": {"spec": {"securityContext": context}}}
    all_ = Settings(worker_user=None)
    jobs = (make_job(**MEASURED), all_), (make_job(**MEASURED | spec), Settings())
    builders = build_measurer, lambda job, settings: build_pod(job, 0, "trainer:1", settings)
    for pod in [build(*one) for build in builders for one in jobs]:
        assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert violations(pod["spec"]) == []


def test_what_fetches_has_the_credentials_of_what_copied() -> None:
    key = {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "secret"}}}
    worker = {
        "name": "worker",
        "env": [key, {"name": "EDGECLOUD_EXPORT", "value": "/x"}],
        "envFrom": [{"secretRef": {}}],
    }
    template = {"spec": {"containers": [{"name": "beside", "image": "x", "env": [{"name": "A"}]}, worker]}}
    fetched = {"storage": {}} | export(destination="s3://models/a")
    made = container(pod_of(podTemplate=template, **fetched))
    assert made["env"] == [*container(pod_of(**fetched))["env"], key]
    assert made["envFrom"] == [{"secretRef": {}}] and made["image"] == "edge:1"
    assert pod_of(podTemplate=template) == pod_of(), "from a claim it needs none"


@pytest.mark.parametrize(
    "containers",
    [
        None,
        7,
        [None],
        ["worker"],
        [{"name": "worker"}],
        [{"name": "worker", "env": 7}],
        [{"name": "worker", "env": [1]}],
    ],
)
def test_containers_of_a_template_that_are_none(containers: Any) -> None:
    fetched = {"storage": {}} | export(destination="s3://models/a")
    assert pod_of(podTemplate={"spec": {"containers": containers}}, **fetched) == pod_of(**fetched)


@pytest.mark.parametrize("template", [{"spec": None}, {"metadata": {}}, {"spec": {}}, {}])
def test_a_template_that_is_none(template: dict[str, Any]) -> None:
    assert pod_of(podTemplate=template) == pod_of()
