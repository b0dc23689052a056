"""What Helm makes of the chart: with its defaults, with a table of values, and with values that are wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from edgecloud.api.job import TrainingJob
from edgecloud_operator.__main__ import _User
from edgecloud_operator.core import names
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.kube.signpost import LEADER_LABEL
from edgecloud_operator.kube.sockets import EVERY
from tests.unit.chart.helm import (
    CHART,
    HELM,
    KUBERNETES,
    ROOT,
    Object,
    container,
    needs_helm,
    of_kind,
    only,
    option,
    refused,
    rendered,
    rendered_test,
    run,
)
from tests.unit.chart.restricted import violations

pytestmark = needs_helm

DIGEST: Final = "sha256:" + "0123456789abcdef" * 4
RULES: Final[list[Object]] = [
    {"apiGroups": ["edgecloud.io"], "resources": ["trainingjobs"], "verbs": ["list", "watch", "delete"]},
    {"apiGroups": ["edgecloud.io"], "resources": ["trainingjobs/status"], "verbs": ["update"]},
    {"apiGroups": ["edgecloud.io"], "resources": ["trainingjobs/finalizers"], "verbs": ["update"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "delete", "patch"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch", "create"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "create", "patch"]},
]
OWN_RULES: Final[list[Object]] = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["edgecloud"],
        "verbs": ["get", "update"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]},
]
SECRET_RULES: Final[list[Object]] = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["edgecloud-coordinator-ca"],
        "verbs": ["get", "update"],
    },
]


@pytest.fixture(scope="module")
def defaults() -> list[Object]:
    return rendered()


def pod(objects: list[Object]) -> Object:
    return dict(only(objects, "Deployment")["spec"]["template"]["spec"])


def roles(objects: list[Object]) -> list[Object]:
    """The operator's own, without those that are for people."""
    return [role for role in of_kind(objects, "Role", "ClusterRole") if "trainingjobs" not in role["metadata"]["name"]]


def test_lint() -> None:
    done = run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_the_objects(defaults: list[Object]) -> None:
    assert [(each["kind"], each["metadata"]["name"]) for each in defaults] == [
        ("NetworkPolicy", "edgecloud"),
        ("PodDisruptionBudget", "edgecloud"),
        ("ServiceAccount", "edgecloud"),
        ("CustomResourceDefinition", "trainingjobs.edgecloud.io"),
        ("ClusterRole", "edgecloud-trainingjobs-view"),
        ("ClusterRole", "edgecloud-trainingjobs-edit"),
        ("ClusterRole", "edgecloud"),
        ("ClusterRoleBinding", "edgecloud"),
        ("Role", "edgecloud-own"),
        ("RoleBinding", "edgecloud-own"),
        ("Service", "edgecloud-coordinator"),
        ("Deployment", "edgecloud"),
    ]
    for each in of_kind(defaults, "ServiceAccount", "Service", "Deployment"):
        assert each["metadata"]["namespace"] == "ours"


def test_the_resource_is_the_manifest_and_stays(defaults: list[Object]) -> None:
    found = only(defaults, "CustomResourceDefinition")
    assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert found == yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text())


def test_two_replicas_that_share_a_lease(defaults: list[Object]) -> None:
    spec = only(defaults, "Deployment")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert option(defaults, "lease") == "ours/edgecloud"
    assert option(defaults, "pod") == "$(POD_NAMESPACE)/$(POD_NAME)"
    labels = spec["template"]["metadata"]["labels"]
    assert dict(part.split("=") for part in option(defaults, "pod-selector").split(",")).items() <= labels.items()
    budget = only(defaults, "PodDisruptionBudget")["spec"]
    expected = {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": spec["selector"]}
    assert budget == expected
    alone = rendered({"replicas": 1})
    assert only(alone, "Deployment")["spec"]["replicas"] == 1
    assert not of_kind(alone, "PodDisruptionBudget")


def test_certificates(defaults: list[Object]) -> None:
    assert option(defaults, "tls-secret") == "ours/edgecloud-coordinator-ca"
    managed = rendered({"tls": {"mode": "certManager", "issuerRef": {"name": "ca", "kind": "ClusterIssuer"}}})
    certificate = only(managed, "Certificate")["spec"]
    assert certificate["dnsNames"] == ["edgecloud-coordinator.ours.svc"]
    assert certificate["issuerRef"] == {"name": "ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert not {"duration", "renewBefore"} & certificate.keys()
    existing = rendered({"tls": {"mode": "existing", "secretName": "mine"}})
    for objects, secret in ((managed, certificate["secretName"]), (existing, "mine")):
        assert option(objects, "tls-folder") == "/tls"
        assert {"name": "tls", "secret": {"secretName": secret}} in pod(objects)["volumes"]
        assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in container(objects)["volumeMounts"]
        assert [role["rules"] for role in roles(objects) if role["metadata"]["name"] == "edgecloud-own"] == [OWN_RULES]
    off = rendered({"tls": {"mode": "off"}})
    assert option(off, "coordinator-address") == "http://edgecloud-coordinator.ours.svc:8443"
    assert not any("tls" in argument for argument in container(off)["args"])


def test_a_certificate_of_an_issuer_that_is_not_cert_managers_own() -> None:
    issuer = {"name": "ca", "kind": "AWSPCAClusterIssuer", "group": "awspca.cert-manager.io"}
    tls = {"mode": "certManager", "issuerRef": issuer, "duration": "2160h", "renewBefore": "360h30m"}
    certificate = only(rendered({"tls": tls}), "Certificate")["spec"]
    assert certificate["issuerRef"] == issuer
    assert (certificate["duration"], certificate["renewBefore"]) == ("2160h", "360h30m")


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("https://10.0.0.5:8443", {"ipAddresses": ["10.0.0.5"]}),
        ("https://[fd00::5]:8443", {"ipAddresses": ["fd00::5"]}),
        ("https://10.0.0.5.example.com", {"dnsNames": ["10.0.0.5.example.com"]}),
    ],
)
def test_a_certificate_is_for_the_name_or_the_ip_address(address: str, names: Object) -> None:
    tls = {"mode": "certManager", "issuerRef": {"name": "ca"}}
    certificate = only(rendered({"coordinator": {"address": address}, "tls": tls}), "Certificate")["spec"]
    assert {key: certificate[key] for key in ("dnsNames", "ipAddresses") if key in certificate} == names


def test_the_service_leads_to_the_operator(defaults: list[Object]) -> None:
    service, deployment = only(defaults, "Service"), only(defaults, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] | {LEADER_LABEL: "true"}
    assert LEADER_LABEL not in labels
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (8443, "coordinator")
    assert option(defaults, "listen") == ":8443", "a kubelet asks at the Pod's address, which may be of IPv6"
    assert option(defaults, "coordinator-address") == "https://edgecloud-coordinator.ours.svc:8443"
    assert container(defaults)["ports"] == [
        {"name": "coordinator", "containerPort": 8443},
        {"name": "health", "containerPort": 8081},
    ]
    assert option(defaults, "liveness-port") == "8081"
    for probe, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        assert container(defaults)[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "health"}


def test_workers_alone_reach_the_coordinator(defaults: list[Object]) -> None:
    policy = only(defaults, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == only(defaults, "Deployment")["spec"]["selector"]["matchLabels"]
    workers, probes = policy["ingress"]
    (peer,) = workers["from"]
    assert workers["ports"] == [{"port": "coordinator"}]
    assert probes == {"ports": [{"port": "health"}]}
    assert peer["namespaceSelector"] == {}
    assert peer["podSelector"]["matchLabels"].items() <= names.worker_labels("some", 0).items()
    (peer,) = only(rendered({"namespaces": ["a", "b"]}), "NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert peer["namespaceSelector"]["matchExpressions"] == [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}
    ]


def test_the_operator_takes_its_command_line(defaults: list[Object]) -> None:
    """Were an option renamed, the Pod would end with a usage message."""
    from edgecloud_operator.__main__ import main as command

    always = {"image": {"pullPolicy": "Always"}}
    everything = rendered(
        {"namespaces": ["a", "b"], "log": {"format": "json", "level": "debug"}, "trainer": always, "edge": always}
    )
    for objects in (defaults, everything):
        assert container(objects)["command"] == ["python", "-m", "edgecloud_operator"]
        context = command.make_context("edgecloud_operator", list(container(objects)["args"]))
        assert context.params["listen"] == (EVERY, 8443)
        assert context.params["coordinator_address"] == "https://edgecloud-coordinator.ours.svc:8443"


def test_the_images_are_those_that_make_images_builds(defaults: list[Object]) -> None:
    assert container(defaults)["image"] == "edgecloud/operator:dev"
    assert option(defaults, "trainer-image") == "edgecloud/trainer:dev" == Settings().trainer_image
    assert option(defaults, "edge-image") == "edgecloud/edge:dev" == Settings().edge_image


def test_the_operators_rights(defaults: list[Object]) -> None:
    role, own = roles(defaults)
    assert role["rules"] == RULES
    assert (own["kind"], own["rules"]) == ("Role", OWN_RULES + SECRET_RULES)
    binding = only(defaults, "ClusterRoleBinding")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": role["metadata"]["name"],
    }
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "edgecloud", "namespace": "ours"}]
    assert pod(defaults)["serviceAccountName"] == "edgecloud"


def test_namespaces_take_the_place_of_the_cluster() -> None:
    objects = rendered({"namespaces": ["one", "two"]})
    assert [role["kind"] for role in roles(objects)] == ["Role", "Role", "Role"]
    assert not of_kind(objects, "ClusterRoleBinding")
    places = ("one", "two", "ours")
    for role, binding, namespace in zip(roles(objects), of_kind(objects, "RoleBinding"), places, strict=True):
        assert role["rules"] == (OWN_RULES + SECRET_RULES if namespace == "ours" else RULES)
        assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == namespace
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "edgecloud", "namespace": "ours"}]
    assert option(objects, "namespaces") == "one,two"
    assert option(rendered(), "namespaces") is None


def test_a_prometheus_operator_finds_the_metrics(defaults: list[Object]) -> None:
    assert not of_kind(defaults, "PodMonitor")
    labels = {"release": "prometheus", "app.kubernetes.io/name": "x"}
    objects = rendered({"podMonitor": {"enabled": True, "labels": labels, "interval": "30s"}})
    monitor = only(objects, "PodMonitor")
    assert monitor["metadata"]["namespace"] == "ours"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["metadata"]["labels"]["app.kubernetes.io/name"] == "edgecloud"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "health", "path": "/metrics", "interval": "30s"}
    assert "health" in {port["name"] for port in container(objects)["ports"]}
    assert monitor["spec"]["selector"] == only(objects, "Deployment")["spec"]["selector"]


def test_whoever_may_edit_a_namespace_may_edit_its_jobs(defaults: list[Object]) -> None:
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    rights: dict[str, set[str]] = {}
    for role in of_kind(defaults, "ClusterRole"):
        for label in role["metadata"]["labels"]:
            if label.startswith(prefix):
                verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
                rights.setdefault(label.removeprefix(prefix), set()).update(verbs)
                assert all(rule["apiGroups"] == ["edgecloud.io"] for rule in role["rules"])
                writes = [rule for rule in role["rules"] if "update" in rule["verbs"]]
                assert not any("trainingjobs/status" in rule["resources"] for rule in writes)
    look = {"get", "list", "watch"}
    change = {"create", "update", "patch", "delete", "deletecollection"}
    assert rights == {"view": look, "edit": look | change, "admin": look | change}


def test_the_pod_fits_the_restricted_level(defaults: list[Object]) -> None:
    assert violations(pod(defaults)) == []
    assert container(defaults)["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "tmp", "mountPath": "/tmp"} in container(defaults)["volumeMounts"]


def test_user_ids_may_be_left_to_the_platform() -> None:
    objects = rendered({"podSecurityContext": {"runAsUser": None, "runAsGroup": None}})
    assert pod(objects)["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert violations(pod(objects)) == []


def test_so_may_those_of_jobs(tmp_path: Path) -> None:
    for said, taken in ((1000, 1000), (1000660000, 1000660000), ("none", None), ("", None), (None, None)):
        made = option(rendered({"workers": {"user": said}}), "worker-user")
        assert _User().convert(made, None, None) == taken
    # `helm upgrade --reuse-values` from a chart that did not have it yet changes nothing.
    old = _of_an_older_chart(tmp_path, "workers", "commonLabels", "podMonitor")
    assert option(old, "worker-user") is None


def _of_an_older_chart(folder: Path, *lacks: str) -> list[Object]:
    """This chart with the values of one that lacked some, as `helm upgrade --reuse-values` has it."""
    shutil.copytree(CHART, folder / "charts")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    (folder / "charts/values.yaml").write_text(yaml.safe_dump({k: v for k, v in values.items() if k not in lacks}))
    done = run("template", "edgecloud", str(folder / "charts"), "--namespace", "ours", KUBERNETES, values={})
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


_TOLERATION: Final = {"key": "edge", "operator": "Exists", "effect": "NoSchedule"}
_AFFINITY: Final[Object] = {
    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
}
_VARIABLE: Final[Object] = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
Place = Callable[[list[Object]], Any]
TABLE: Final[list[tuple[Object, Place, Any]]] = [
    ({"image": {"tag": "0.2.0"}}, lambda all_: container(all_)["image"], "edgecloud/operator:0.2.0"),
    (
        {"image": {"repository": "example.com:5000/a/b", "digest": DIGEST, "tag": "no"}},
        lambda all_: container(all_)["image"],
        f"example.com:5000/a/b@{DIGEST}",
    ),
    (
        {"registry": "example.com:5000/team", "image": {"digest": DIGEST}},
        lambda all_: [
            container(all_)["image"],
            *(option(all_, f"{name}-image") for name in ("trainer", "edge", "launcher")),
        ],
        [
            f"example.com:5000/team/edgecloud/operator@{DIGEST}",
            "example.com:5000/team/edgecloud/trainer:dev",
            "example.com:5000/team/edgecloud/edge:dev",
            f"example.com:5000/team/edgecloud/operator@{DIGEST}",
        ],
    ),
    ({"image": {"pullPolicy": "Never"}}, lambda all_: container(all_)["imagePullPolicy"], "Never"),
    (
        {"image": {"pullPolicy": "Always"}, "edge": {"image": {"pullPolicy": "Never"}}},
        lambda all_: [option(all_, f"{name}-pull-policy") for name in ("trainer", "edge", "launcher")],
        [None, "Never", "Always"],
    ),
    (
        {"image": {"pullPolicy": None}, "trainer": {"image": {"pullPolicy": "Always"}}},
        lambda all_: [
            container(all_).get("imagePullPolicy"),
            *(option(all_, f"{name}-pull-policy") for name in ("trainer", "edge", "launcher")),
        ],
        [None, "Always", None, None],
    ),
    ({"imagePullSecrets": [{"name": "x"}]}, lambda all_: pod(all_)["imagePullSecrets"], [{"name": "x"}]),
    ({"trainer": {"image": {"tag": "9"}}}, lambda all_: option(all_, "trainer-image"), "edgecloud/trainer:9"),
    (
        {"trainer": {"image": {"digest": DIGEST}}},
        lambda all_: option(all_, "trainer-image"),
        f"edgecloud/trainer@{DIGEST}",
    ),
    ({"edge": {"image": {"tag": "9"}}}, lambda all_: option(all_, "edge-image"), "edgecloud/edge:9"),
    ({"edge": {"image": {"digest": DIGEST}}}, lambda all_: option(all_, "edge-image"), f"edgecloud/edge@{DIGEST}"),
    ({"crds": {"install": False}}, lambda all_: of_kind(all_, "CustomResourceDefinition"), []),
    (
        {"rbac": {"create": False, "aggregate": False}},
        lambda all_: of_kind(all_, "ClusterRole", "ClusterRoleBinding"),
        [],
    ),
    ({"serviceAccount": {"name": "other"}}, lambda all_: only(all_, "ServiceAccount")["metadata"]["name"], "other"),
    (
        {"serviceAccount": {"create": False, "name": "other"}},
        lambda all_: (of_kind(all_, "ServiceAccount"), pod(all_)["serviceAccountName"]),
        ([], "other"),
    ),
    (
        {"serviceAccount": {"annotations": {"a": "b"}}},
        lambda all_: only(all_, "ServiceAccount")["metadata"]["annotations"],
        {"a": "b"},
    ),
    (
        {"coordinator": {"port": 9000}},
        lambda all_: (only(all_, "Service")["spec"]["ports"][0]["port"], option(all_, "coordinator-address")),
        (9000, "https://edgecloud-coordinator.ours.svc:9000"),
    ),
    (
        {"coordinator": {"address": "https://edge.example.com"}},
        lambda all_: option(all_, "coordinator-address"),
        "https://edge.example.com",
    ),
    ({"log": {"format": "json"}}, lambda all_: option(all_, "log-format"), "json"),
    ({"log": {"level": "debug"}}, lambda all_: option(all_, "log-level"), "debug"),
    ({"progressSeconds": 2.5}, lambda all_: option(all_, "progress-seconds"), "2.5"),
    ({"giveBackSeconds": 0}, lambda all_: option(all_, "give-back-seconds"), "0"),
    ({"networkPolicy": {"enabled": False}}, lambda all_: of_kind(all_, "NetworkPolicy"), []),
    (
        {"resources": {"limits": {"cpu": 2}}},
        lambda all_: container(all_)["resources"],
        {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": 2, "memory": "512Mi"}},
    ),
    ({"priorityClassName": "high"}, lambda all_: pod(all_)["priorityClassName"], "high"),
    ({"nodeSelector": {"a": "true"}}, lambda all_: pod(all_)["nodeSelector"], {"a": "true"}),
    ({"tolerations": [_TOLERATION]}, lambda all_: pod(all_)["tolerations"], [_TOLERATION]),
    ({"affinity": _AFFINITY}, lambda all_: pod(all_)["affinity"], _AFFINITY),
    (
        {"podAnnotations": {"a": "1"}},
        lambda all_: only(all_, "Deployment")["spec"]["template"]["metadata"]["annotations"],
        {"prometheus.io/scrape": "true", "prometheus.io/port": "8081", "prometheus.io/path": "/metrics", "a": "1"},
    ),
    (
        {"podLabels": {"a": "1"}},
        lambda all_: only(all_, "Deployment")["spec"]["template"]["metadata"]["labels"].get("a"),
        "1",
    ),
    ({"extraEnv": [_VARIABLE]}, lambda all_: container(all_)["env"][2:], [_VARIABLE]),
]


@pytest.mark.parametrize(("values", "place", "expected"), TABLE, ids=[str(values)[:60] for values, _, _ in TABLE])
def test_values(values: Object, place: Place, expected: Any) -> None:
    assert place(rendered(values)) == expected


def test_what_helm_test_makes() -> None:
    """Rights to create, see and delete a job where the operator looks after it; a Pod that is fit for that place."""
    objects = rendered_test(
        {"namespaces": ["lab", "other"], "test": {"spec": {"workers": 3, "trainer": {"epochs": 1}}}}
    )
    assert [each["kind"] for each in objects] == ["ServiceAccount", "Role", "RoleBinding", "Pod"]
    assert all(each["metadata"]["annotations"]["helm.sh/hook"] == "test" for each in objects)
    account, role, binding, pod = objects
    assert (role["metadata"]["namespace"], binding["metadata"]["namespace"]) == ("lab", "lab")
    assert role["rules"] == [
        {"apiGroups": ["edgecloud.io"], "resources": ["trainingjobs"], "verbs": ["create", "get", "delete"]}
    ]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"] == pod["spec"]["serviceAccountName"]
    assert violations(pod["spec"]) == []
    (container,) = pod["spec"]["containers"]
    arguments = dict(each.removeprefix("--").split("=", 1) for each in container["args"])
    assert arguments["namespace"] == "lab"
    spec = json.loads(arguments["spec"])
    assert (spec["workers"], spec["trainer"]["epochs"], spec["trainer"]["model"]) == (3, 1, "edgenet")
    TrainingJob.parse(
        {"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "x"}, "spec": spec}
    )
    selector = only(rendered(), "Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items(), "the coordinator's Service must not select it"


def test_the_tests_pod_goes_where_the_operators_goes() -> None:
    values = {
        "podAnnotations": {"a": "1", "helm.sh/hook": "x"},
        "podLabels": {"b": "2", "app.kubernetes.io/component": "operator"},
        "extraEnv": [_VARIABLE],
        "affinity": _AFFINITY,
        "priorityClassName": "high",
        "tolerations": [_TOLERATION],
        "nodeSelector": {"c": "3"},
        "imagePullSecrets": [{"name": "x"}],
        "test": {
            "spec": {
                "program": {"command": ["true"]},
                "pools": [{"name": "edge", "workers": 2}],
                "podTemplate": {"spec": {"securityContext": {"runAsUser": None}}},
            }
        },
    }
    made = only(rendered_test(values), "Pod")
    theirs = pod(rendered(values))
    for field in ("affinity", "priorityClassName", "tolerations", "nodeSelector", "imagePullSecrets"):
        assert made["spec"][field] == theirs[field], field
    (container,) = made["spec"]["containers"]
    assert container["env"] == [_VARIABLE]
    annotations, labels = made["metadata"]["annotations"], made["metadata"]["labels"]
    assert (annotations["a"], annotations["helm.sh/hook"]) == ("1", "test")
    assert (labels["b"], labels["app.kubernetes.io/component"]) == ("2", "test")
    (said,) = (each for each in container["args"] if each.startswith("--spec="))
    spec = json.loads(said.removeprefix("--spec="))
    assert {"trainer", "workers"}.isdisjoint(spec), "the job has a program and pools in their place"
    assert spec["podTemplate"] == {"spec": {"securityContext": {"runAsUser": None}}}, "a null takes one of ours away"
    TrainingJob.parse(
        {"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "x"}, "spec": spec}
    )


def test_no_test_where_roles_are_made_by_others() -> None:
    assert "could not find template" in run(
        "template", "edgecloud", str(CHART), KUBERNETES, "--show-only", "templates/test.yaml",
        values={"rbac": {"create": False}},
    ).stderr  # fmt: skip


def test_names_of_another_release() -> None:
    done = run("template", "blue", str(CHART), "--namespace", "ours", KUBERNETES, values={})
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert only(objects, "Service")["metadata"]["name"] == "blue-edgecloud-coordinator"
    assert option(objects, "coordinator-address") == "https://blue-edgecloud-coordinator.ours.svc:8443"
    done = run("template", "x" * 53, str(CHART), KUBERNETES, values={})
    assert done.returncode == 0, done.stderr
    for each in yaml.safe_load_all(done.stdout):
        # Role names may be longer; what becomes a host name or a label may not.
        assert not each or len(each["metadata"]["name"]) <= (63 if each["kind"] in {"Service", "Deployment"} else 253)


REFUSED: Final[list[tuple[Object, str]]] = [
    ({"replica": 2}, "additional properties 'replica' not allowed"),
    ({"replicas": 0}, "at '/replicas'"),
    ({"tls": {"mode": "on"}}, "at '/tls/mode'"),
    ({"tls": {"mode": "existing"}}, "at '/tls/secretName'"),
    ({"tls": {"mode": "certManager"}}, "tls.issuerRef.name"),
    ({"tls": {"duration": "90d"}}, "at '/tls/duration'"),
    ({"image": {"tagg": "1"}}, "additional properties 'tagg' not allowed"),
    ({"image": {"tag": 1}}, "at '/image/tag': got number, want string"),
    ({"image": {"repository": "a/b:1.0@x"}}, "at '/image/repository'"),
    ({"registry": "https://example.com/"}, "at '/registry'"),
    ({"image": {"digest": "sha256:1234"}}, "at '/image/digest'"),
    ({"image": {"pullPolicy": "Sometimes"}}, "'Always', 'IfNotPresent', 'Never'"),
    ({"trainer": {"image": {"pullPolicy": "Sometimes"}}}, "'Always', 'IfNotPresent', 'Never'"),
    ({"namespaces": "one"}, "at '/namespaces': got string, want array"),
    ({"namespaces": ["One"]}, "at '/namespaces/0'"),
    ({"namespaces": ["a", "a"]}, "at '/namespaces'"),
    ({"crds": {"install": "no"}}, "at '/crds/install': got string, want boolean"),
    ({"coordinator": {"port": 70000}}, "at '/coordinator/port'"),
    ({"coordinator": {"address": "edge.example.com"}}, "at '/coordinator/address'"),
    ({"coordinator": {"address": "https://[fd00::5"}}, "at '/coordinator/address'"),
    (
        {"coordinator": {"address": "http://a:80"}},
        "coordinator.address: http://a:80 does not go with tls.mode: secret; begin it with https://, or set tls.mode",
    ),
    (
        {"coordinator": {"address": "https://a"}, "tls": {"mode": "off"}},
        "https://a does not go with tls.mode: off; begin it with http://, or set tls.mode to secret, certManager or",
    ),
    ({"log": {"format": "xml"}}, "'text', 'json'"),
    ({"log": {"level": "loud"}}, "'debug', 'info', 'warning', 'error'"),
    ({"workers": {"user": 0}}, "at '/workers/user'"),
    ({"workers": {"user": "root"}}, "at '/workers/user'"),
    ({"podMonitor": {"interval": "often"}}, "at '/podMonitor/interval'"),
    ({"progressSeconds": 0}, "at '/progressSeconds'"),
    ({"giveBackSeconds": -1}, "at '/giveBackSeconds'"),
    ({"nameOverride": "on"}, "at '/nameOverride'"),
    ({"fullnameOverride": "null"}, "at '/fullnameOverride'"),
    ({"resources": {"limits": {"memory": "lots"}}}, "at '/resources/limits/memory'"),
    ({"tolerations": [{"effect": "NoSchedul"}]}, "at '/tolerations/0/effect'"),
    ({"nameOverride": "Edge"}, "at '/nameOverride'"),
    ({"fullnameOverride": "x" * 51}, "at '/fullnameOverride'"),
    ({"commonLabels": {"edgecloud.io/leader": "true"}}, "invalid propertyName 'edgecloud.io/leader'"),
    ({"extraEnv": [{"value": "x"}]}, "missing property 'name'"),
    ({"extraEnv": {"A": "b"}}, "at '/extraEnv': got object, want array"),
    ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
    ({"test": {"timeoutSeconds": "5m"}}, "at '/test/timeoutSeconds'"),
    ({"test": {"epochs": 5}}, "additional properties 'epochs' not allowed"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED, ids=[str(values)[:60] for values, _ in REFUSED])
def test_wrong_values_are_refused_by_name(values: Object, said: str) -> None:
    assert said in refused(values)


def test_the_notes_are_about_this_installation(tmp_path: Path) -> None:
    """Helm prints them only with a cluster at hand, so they are rendered as a file's content here."""
    shutil.copytree(CHART, tmp_path / "charts")
    (tmp_path / "charts/templates/NOTES.txt").rename(tmp_path / "charts/notes")
    (tmp_path / "charts/templates/notes.yaml").write_text(
        'notes: {{ tpl (.Files.Get "notes") . | toJson }}\nkind: Notes\n'
    )
    done = run(
        "template", "edgecloud", str(tmp_path / "charts"), "--namespace", "ours", KUBERNETES,
        values={"namespaces": ["lab"], "crds": {"install": False}},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes = only([each for each in yaml.safe_load_all(done.stdout) if each], "Notes")["notes"]
    for text in (
        "runs the TrainingJobs of lab.",
        "kubectl -n ours rollout status deployment/edgecloud",
        "kubectl -n lab get tj -w",
        "kubectl -n lab describe tj own-script",
        "helm test edgecloud -n ours --logs",
        "edgecloud/trainer:dev",
        "kubectl apply -f manifests/crd.yaml",
    ):
        assert text in notes
    for file in re.findall(r"-f (manifests/\S+)", notes):
        assert (ROOT / file).exists()


def test_the_plain_manifest_is_the_chart() -> None:
    assert HELM
    done = subprocess.run(
        [str(ROOT / "tests" / "cluster" / "manifest.sh")],
        env={**os.environ, "HELM": HELM},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (ROOT / "manifests" / "operator.yaml").read_text() == done.stdout, "make manifests"
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert option(objects, "coordinator-address") == "https://edgecloud-coordinator.edgecloud-system.svc:8443"
    for each in objects:
        labels = each["metadata"].get("labels", {})
        assert not any("helm" in f"{key}{value}".lower() for key, value in labels.items())
