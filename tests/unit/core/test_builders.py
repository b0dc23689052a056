"""The children as Kubernetes objects, and the environment of a launcher."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.api.job import TrainingJob
from edgecloud.api.template import PodTemplate
from edgecloud_operator.core.builders import (
    EXTRA_GRACE_SECONDS,
    POD_LAYOUT,
    Settings,
    audience,
    build_files,
    build_pod,
    build_service,
)
from edgecloud_operator.core.environment import Layout, launcher_environment, program_command
from edgecloud_operator.core.measurer import build_measurer
from edgecloud_operator.core.merge import merged
from tests.unit.core.build import MEASURED, make_job, respec
from tests.unit.core.expansion import expanded
from tests.unit.core.profile import tries

OWNER = {
    "apiVersion": "edgecloud.io/v1alpha1",
    "kind": "TrainingJob",
    "name": "digits",
    "uid": "job-uid",
    "controller": True,
    "blockOwnerDeletion": True,
}


def pod_of(index: int = 0, **spec: Any) -> dict[str, Any]:
    return build_pod(make_job(**spec), index, "image:1", Settings(coordinator="https://coordinator:8443"))


@tries(100)
@given(st.text("$()AB x{}`;&|\n", max_size=30), st.sampled_from(("EDGECLOUD_JOB", "A", "HOME")))
def test_a_process_gets_every_text_as_it_is(text: str, name: str) -> None:
    """A kubelet takes $(NAME) for the variable's value; neither arguments nor values are to be changed by that."""
    text = f"{text}$({name}){text}"
    env = [{"name": "A", "value": "a"}, {"name": "B", "value": text}, {"name": "C", "valueFrom": {"fieldRef": {}}}]
    made = container(pod_of(program={"command": ["python", text], "args": [text], "env": env}))
    known: dict[str, str] = {}
    for one in made["env"]:
        known[one["name"]] = expanded(one["value"], known) if "value" in one else "from elsewhere"
    assert [expanded(one, known) for one in made["command"]][-4:] == ["--", "python", text, text]
    assert (known["A"], known["B"]) == ("a", text)
    trained = container(pod_of(trainer={"data": {"source": f"/data/{text}"}}))
    [said] = [one["value"] for one in trained["env"] if one["name"] == "EDGECLOUD_TRAINER"]
    assert json.loads(expanded(said, {}))["trainer"]["data"]["source"] == f"/data/{text}"


def test_a_template_says_of_metadata_what_a_template_may() -> None:
    """A resourceVersion, for one, is met by the server with an error that looks like one of its own."""
    metadata = {
        "labels": {"team": "a", "edgecloud.io/job": "other"},
        "annotations": {"b": "c"},
        "finalizers": ["d/e"],
        "resourceVersion": "7",
        "uid": "x",
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "generateName": "f",
        "managedFields": [],
        "name": "g",
        "ownerReferences": [],
        "anotations": {"misspelt": "for the server to refuse"},
    }
    plain, made = pod_of()["metadata"], pod_of(podTemplate={"metadata": metadata})["metadata"]
    assert made.pop("finalizers") == ["d/e"]
    assert made.pop("anotations") == metadata["anotations"]
    assert made.pop("annotations") == {"b": "c"} | plain.pop("annotations", {})
    assert made.pop("labels") == {"team": "a"} | plain.pop("labels")
    assert made == plain


def volume(pod: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == name]
    return {key: value for key, value in found.items() if key != "name"}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    [found] = pod["spec"]["containers"]
    return dict(found)


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(pod)["env"]}


def test_every_child_has_the_job_as_its_owner_and_bears_its_labels() -> None:
    job = make_job(program={"command": ["python", "a.py"], "files": {"a.py": "print()"}})
    for child in (build_service(job), build_files(job), build_pod(job, 1, "image:1", Settings())):
        assert child is not None
        metadata = child["metadata"]
        assert metadata["ownerReferences"] == [OWNER]
        assert metadata["namespace"] == "team"
        assert metadata["labels"]["edgecloud.io/job"] == "digits"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "edgecloud"


def test_every_child_bears_what_a_policy_demands_of_all_objects() -> None:
    files = {"program": {"command": ["python", "a.py"], "files": {"a.py": "print()"}}}
    labels = {"cost-center": "7", "edgecloud.io/job": "other", "count": 3}
    annotations = {"owner": "a@example.com", "prometheus.io/scrape": "true", "none": None}
    template = {"metadata": {"labels": labels, "annotations": annotations, "finalizers": ["example.com/a"]}}
    plain, said = make_job(**files), make_job(podTemplate=template, **files)
    for build in (build_service, build_files):
        before, after = build(plain), build(said)
        assert before is not None and after is not None
        metadata = after.pop("metadata")
        assert metadata.pop("annotations") == {"owner": "a@example.com"}
        assert metadata["labels"].pop("cost-center") == "7"
        assert metadata == before.pop("metadata")
        assert after == before
    for odd in ({"metadata": None}, {"metadata": {"labels": None, "annotations": [7]}}, {"spec": {}}):
        assert build_service(make_job(podTemplate=odd)) == build_service(make_job())


def test_the_service_is_headless_and_names_workers_that_are_not_ready() -> None:
    service = build_service(make_job())
    assert service["metadata"]["name"] == "digits"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = pod_of(3)["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert labels["edgecloud.io/worker-index"] == "3"


def test_files() -> None:
    assert build_files(make_job()) is None
    spec = {"program": {"command": ["python", "a.py"], "files": {"a.py": "print()", "b.txt": ""}}}
    files = build_files(make_job(**spec))
    assert files is not None
    assert (files["metadata"]["name"], files["data"]) == ("digits-files", {"a.py": "print()", "b.txt": ""})
    pod = pod_of(**spec)
    assert volume(pod, "files") == {"configMap": {"name": "digits-files"}}
    assert {"name": "files", "mountPath": "/edgecloud/files", "readOnly": True} in container(pod)["volumeMounts"]
    assert container(pod)["workingDir"] == "/edgecloud/files"
    assert "workingDir" not in container(pod_of())
    spec["program"]["workingDir"] = "/src"
    assert container(pod_of(**spec))["workingDir"] == "/src"


KNOWN = """
    apiVersion kind metadata name namespace labels annotations ownerReferences uid controller
    blockOwnerDeletion spec data clusterIP publishNotReadyAddresses selector restartPolicy hostname subdomain
    enableServiceLinks automountServiceAccountToken terminationGracePeriodSeconds securityContext
    runAsNonRoot runAsUser runAsGroup fsGroup seccompProfile type allowPrivilegeEscalation
    readOnlyRootFilesystem capabilities drop containers initContainers image command env value valueFrom
    fieldRef fieldPath resources requests limits volumeMounts mountPath subPath readOnly
    terminationMessagePolicy workingDir volumes emptyDir sizeLimit medium persistentVolumeClaim claimName
    configMap projected sources serviceAccountToken audience expirationSeconds path downwardAPI items
    nodeSelector tolerations key operator effect priorityClassName serviceAccountName
"""
"""Fields that Kubernetes 1.30 has where we write them: an API server refuses what it does not know."""


def fields(value: Any, at: str = "") -> set[str]:
    """Names of fields in an object, without the keys of its maps."""
    if isinstance(value, list):
        return {name for one in value for name in fields(one)}
    if not isinstance(value, dict):
        return set()
    if at in ("labels", "annotations", "selector", "data", "requests", "limits", "nodeSelector"):
        return set()
    return {name for key, one in value.items() for name in (key, *fields(one, key))}


def test_what_is_written_is_known_to_every_cluster_that_the_chart_takes() -> None:
    rest = {
        "nodeSelector": {"gpu": "h100"},
        "resources": {"requests": {"cpu": 1}, "limits": {"nvidia.com/gpu": 1}},
        "priorityClassName": "high",
        "serviceAccountName": "training",
    }
    files = {"program": {"command": ["a"], "files": {"a": ""}, "workingDir": "/a"}, "image": "own:1"}
    measured = rest | MEASURED
    settings = Settings(ca="PEM")
    children = [
        build_service(make_job()),
        build_files(make_job(**files)),
        build_measurer(make_job(**measured), settings),
    ]
    specs = (rest | files, rest | {"storage": {"sizeLimit": "1Gi"}}, measured)
    children += [build_pod(make_job(**spec), 0, "image:1", settings) for spec in specs]
    assert fields(children) == set(KNOWN.split())


def test_a_pod_fits_the_restricted_level_of_pod_security() -> None:
    for spec in ({}, {"trainer": {"data": {"name": "digits"}}}, {"storage": {"claimName": "c"}}):
        pod = pod_of(**spec)["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            context = one["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert "privileged" not in context
        sources = {key for one in pod["volumes"] for key in one if key != "name"}
        assert sources <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_the_user_id_is_the_installations_unless_the_job_has_one() -> None:
    ids = {"runAsUser": 70, "runAsGroup": 70, "fsGroup": 70}
    own = make_job(podTemplate={"spec": {"securityContext": {"runAsUser": 80}}})
    for job, expected in ((make_job(), ids), (own, ids | {"runAsUser": 80})):
        said = build_pod(job, 0, "image:1", Settings(worker_user=70))["spec"]["securityContext"]
        assert {key: said.get(key) for key in ids} == expected


def test_a_pod_mounts_no_api_token_but_one_for_the_coordinator() -> None:
    pod = pod_of()
    assert pod["spec"]["automountServiceAccountToken"] is False
    [source] = volume(pod, "identity")["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == audience(make_job()) == "edgecloud.io/job-uid"
    assert f"/edgecloud/identity/{source['serviceAccountToken']['path']}" == POD_LAYOUT.token_file


def test_the_frame_of_a_pod() -> None:
    pod = pod_of(2, stopGraceSeconds=40)
    assert pod["metadata"]["name"] == pod["spec"]["hostname"] == "digits-worker-2"
    assert pod["spec"]["subdomain"] == "digits"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["enableServiceLinks"] is False
    assert pod["spec"]["terminationGracePeriodSeconds"] == 40 + EXTRA_GRACE_SECONDS
    assert container(pod)["image"] == "image:1"
    assert container(pod)["terminationMessagePolicy"] == "File"


def test_every_mount_has_its_volume() -> None:
    pod = pod_of(program={"command": ["a"], "files": {"a": ""}})
    volumes = [one["name"] for one in pod["spec"]["volumes"]]
    assert len(set(volumes)) == len(volumes)
    assert {mount["name"] for mount in container(pod)["volumeMounts"]} == set(volumes)
    paths = [mount["mountPath"] for mount in container(pod)["volumeMounts"]]
    for path in (POD_LAYOUT.checkpoints, POD_LAYOUT.results, POD_LAYOUT.scratch, POD_LAYOUT.token_file, "/tmp"):
        assert any(path == mount or path.startswith(f"{mount}/") for mount in paths)


@pytest.mark.parametrize(
    ("storage", "index", "expected", "sub_path"),
    [
        (None, 0, {"emptyDir": {}}, None),
        ({"sizeLimit": "5Gi"}, 0, {"emptyDir": {"sizeLimit": "5Gi"}}, None),
        ({"claimName": "c"}, 0, {"persistentVolumeClaim": {"claimName": "c"}}, "digits"),
        ({"claimName": "c"}, 1, {"persistentVolumeClaim": {"claimName": "c"}}, "digits"),
        ({"claimName": "c", "subPath": "a/b"}, 1, {"persistentVolumeClaim": {"claimName": "c"}}, "a/b"),
        (
            {"claimName": "c", "accessMode": "ReadWriteOnce"},
            0,
            {"persistentVolumeClaim": {"claimName": "c"}},
            "digits",
        ),
        ({"claimName": "c", "accessMode": "ReadWriteOnce"}, 1, {"emptyDir": {}}, None),
    ],
)
def test_storage(storage: Any, index: int, expected: dict[str, Any], sub_path: str | None) -> None:
    pod = pod_of(index, storage=storage)
    assert volume(pod, "storage") == expected
    [mount] = [mount for mount in container(pod)["volumeMounts"] if mount["name"] == "storage"]
    assert mount.get("subPath") == sub_path


GPU = {"limits": {"nvidia.com/gpu": 1}}
OURS = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
THEIRS = {"key": "edge", "operator": "Exists"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, None),
        ({"tolerations": [THEIRS]}, [THEIRS]),
        ({"resources": GPU}, [OURS]),
        ({"resources": GPU, "tolerations": [THEIRS]}, [THEIRS, OURS]),
        ({"resources": {"limits": {"cpu": "2"}}}, None),
        ({"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}, [OURS]),
    ],
)
def test_tolerations(spec: dict[str, Any], expected: Any) -> None:
    assert pod_of(**spec)["spec"].get("tolerations") == expected


NO_EXECUTE = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}
DEDICATED = [{"key": "dedicated", "value": "ml", "effect": effect} for effect in ("NoSchedule", "NoExecute")]


@pytest.mark.parametrize(
    ("spec", "template", "expected"),
    [
        ({}, DEDICATED, DEDICATED),
        ({"resources": GPU}, DEDICATED, [OURS, *DEDICATED]),
        ({"resources": GPU}, [NO_EXECUTE], [OURS, NO_EXECUTE]),
        ({"resources": GPU}, [OURS, THEIRS], [OURS, THEIRS]),
        ({"tolerations": DEDICATED}, [{"operator": "Exists"}], [*DEDICATED, {"operator": "Exists"}]),
        ({"resources": GPU}, None, None),
        ({"resources": GPU}, [], []),
    ],
)
def test_a_templates_tolerations_come_on_top(spec: dict[str, Any], template: Any, expected: Any) -> None:
    """One taint's key may be tolerated with an effect each: none takes another's place."""
    assert pod_of(**spec, podTemplate={"spec": {"tolerations": template}})["spec"].get("tolerations") == expected


def test_a_pool_overrides_the_jobs_placement_and_resources() -> None:
    spec: dict[str, Any] = {
        "resources": {"requests": {"cpu": "1"}},
        "nodeSelector": {"zone": "a"},
        "tolerations": [THEIRS],
        "priorityClassName": "high",
        "serviceAccountName": "trainer",
        "pools": [
            {"name": "cloud", "workers": 1, "resources": GPU, "nodeSelector": {"zone": "b"}},
            {"name": "edge", "workers": 2, "tolerations": [{"key": "arm"}]},
        ],
    }
    cloud, edge = pod_of(0, **spec), pod_of(2, **spec)
    assert container(cloud)["resources"] == GPU
    assert (cloud["spec"]["nodeSelector"], cloud["spec"]["tolerations"]) == ({"zone": "b"}, [THEIRS, OURS])
    assert container(edge)["resources"] == {"requests": {"cpu": "1"}}
    assert (edge["spec"]["nodeSelector"], edge["spec"]["tolerations"]) == ({"zone": "a"}, [{"key": "arm"}])
    for pod in (cloud, edge):
        assert (pod["spec"]["priorityClassName"], pod["spec"]["serviceAccountName"]) == ("high", "trainer")
    bare = pod_of()["spec"]
    assert not {"nodeSelector", "tolerations", "priorityClassName", "serviceAccountName"} & bare.keys()
    assert "resources" not in container(pod_of())


def test_a_pool_opts_out_of_the_jobs_placement() -> None:
    """What it leaves out is the job's; what it has empty is empty."""
    out: dict[str, Any] = {"name": "edge", "workers": 1, "nodeSelector": {}, "tolerations": []}
    spec: dict[str, Any] = {"nodeSelector": {"gpu": "a100"}, "tolerations": [THEIRS]}
    pod = pod_of(1, **spec, pools=[{"name": "cloud", "workers": 1}, out])["spec"]
    assert not {"nodeSelector", "tolerations"} & pod.keys()


WRAPPED = ["bash", "-c", "source env.sh; exec python -m edgecloud.launcher -- python a.py"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [({"command": ["bash"], "args": ["-c", "x"]}, None), ({"command": None}, None), ({"command": WRAPPED}, WRAPPED)],
)
def test_a_stored_template_does_not_take_the_launchers_place(said: dict[str, Any], kept: Any) -> None:
    """Each Pod would do all of the work, alone."""
    containers = [{"name": "beside", "image": "b", "command": ["c"]}, {"name": "worker", "env": []} | said]
    job = respec(make_job(), pod_template=PodTemplate.parse({"spec": {"containers": containers}}))
    made = build_pod(job, 0, "image:1", Settings())["spec"]["containers"]
    assert (made[0]["command"], made[0].get("args")) == (kept or container(pod_of())["command"], None)
    assert made[1:] == containers[:1]


def test_a_pod_on_its_nodes_network_asks_the_clusters_dns() -> None:
    """Else it asks its node's, which knows neither the other workers nor the operator's Service."""
    assert pod_of(podTemplate={"spec": {"hostNetwork": True}})["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    said = {"hostNetwork": True, "dnsPolicy": "None"}
    assert pod_of(podTemplate={"spec": said})["spec"]["dnsPolicy"] == "None"
    assert "dnsPolicy" not in pod_of(podTemplate={"spec": {"hostNetwork": False}})["spec"]


def test_what_each_rank_runs() -> None:
    launcher = ["python", "-I", "-m", "edgecloud.launcher", "--"]
    program = {"command": ["python", "a.py"], "args": ["--fast"]}
    assert container(pod_of(program=program))["command"] == [*launcher, "python", "a.py", "--fast"]
    trainer = make_job(trainer={"data": {"name": "digits"}})
    assert program_command(trainer) == ["python", "-m", "edgecloud_trainer.train"]


def test_an_image_of_the_users_own_gets_the_launcher_from_ours() -> None:
    pod = pod_of(program={"command": ["python3", "a.py"]}, image="debian:12")
    (init,) = pod["spec"]["initContainers"]
    assert (init["image"], container(pod)["image"]) == (Settings().launcher_image, "image:1")
    file = init["command"][-1]
    assert container(pod)["command"] == ["python3", "-I", file, "--", "python3", "a.py"]
    (brought,) = init["volumeMounts"]
    assert brought["name"] in {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {**brought, "readOnly": True} in container(pod)["volumeMounts"]
    assert init["securityContext"] == container(pod)["securityContext"]
    assert init["resources"]["limits"] == init["resources"]["requests"], "a namespace with a quota asks for both"
    ours = pod_of(trainer={"data": {"name": "digits"}}, image="my/trainer:1")
    assert "initContainers" not in ours["spec"], "an image for the built-in trainer is made from ours"


def test_when_images_are_pulled() -> None:
    settings = Settings(trainer_pull_policy="Always", launcher_pull_policy="Never", edge_pull_policy="IfNotPresent")
    script = {"command": ["python3", "a.py"]}

    def policies(settings: Settings, **spec: Any) -> list[str | None]:
        made = build_pod(make_job(**spec), 0, "image:1", settings)["spec"]
        return [one.get("imagePullPolicy") for one in (*made.get("initContainers", ()), *made["containers"])]

    assert policies(settings, program=script) == ["Always"]
    assert policies(settings, program=script, image="debian:12") == ["Never", None], "which is the job's to say"
    worker = {"name": "worker", "imagePullPolicy": "IfNotPresent"}
    assert policies(settings, program=script, podTemplate={"spec": {"containers": [worker]}}) == ["IfNotPresent"]
    assert policies(Settings(), program=script, image="debian:12") == [None, None]
    measuring = (container(build_measurer(make_job(**MEASURED), one)) for one in (settings, Settings()))
    assert [one.get("imagePullPolicy") for one in measuring] == ["IfNotPresent", None]


def _guaranteed(cpu: str, memory: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        pytest.param({}, {"requests": {}, "limits": {}}, id="nothing said"),
        pytest.param(_guaranteed("2", "4Gi"), _guaranteed("2", "4Gi"), id="guaranteed stays so"),
        pytest.param(_guaranteed("50m", "32M"), _guaranteed("100m", "64Mi"), id="less than it needs"),
        pytest.param({"limits": {"memory": "1Gi"}}, {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}},
            id="a limit is the request as well"),
        pytest.param({"requests": {"cpu": 2}}, {"requests": {"cpu": 2}, "limits": {"cpu": 2}},
            id="a limit below the request would be refused"),
        pytest.param({"requests": {"memory": "128Mi"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": 1}},
            {"requests": {"memory": "128Mi"}, "limits": {"memory": "1Gi"}}, id="no GPU"),
    ],
)  # fmt: skip
def test_a_limit_range_has_nothing_against_the_launcher_that_it_has_not_against_the_worker(
    worker: dict[str, Any], expected: dict[str, Any]
) -> None:
    for spec in ({"resources": worker}, {"pools": [{"name": "a", "workers": 1, "resources": worker}]}):
        (init,) = pod_of(image="debian:12", **spec)["spec"]["initContainers"]
        assert init["resources"] == expected
    template = {"spec": {"containers": [{"name": "worker", "resources": worker}]}}
    (init,) = pod_of(image="debian:12", podTemplate=template)["spec"]["initContainers"]
    assert init["resources"] == expected


def test_what_a_template_says_of_the_launcher_stays() -> None:
    own = {"name": "launcher", "resources": {"limits": {"memory": "256Mi"}}}
    template = {"spec": {"initContainers": [own, {"name": "data", "image": "busybox"}]}}
    launcher, other = pod_of(image="x", resources={"limits": {"memory": "1Gi"}}, podTemplate=template)["spec"][
        "initContainers"
    ]
    assert launcher["resources"] == {
        "requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"cpu": "100m", "memory": "256Mi"},
    }
    assert other == {"name": "data", "image": "busybox"}


@pytest.mark.parametrize(
    "said",
    [
        "lots",
        [],
        {},
        {"requests": "x"},
        {"limits": {"memory": ["1Gi"], "cpu": "x"}},
        7,
        {"limits": {"cpu": "1e9999999", "memory": "9e999999k"}},
    ],
)
def test_resources_that_are_none_are_left_to_the_server(said: Any) -> None:
    template = {"spec": {"containers": [{"name": "worker", "resources": said}]}}
    assert pod_of(image="x", podTemplate=template)["spec"]["initContainers"][0]["name"] == "launcher"


def test_in_an_image_of_the_users_own_there_is_a_home_that_can_be_written() -> None:
    def said(**spec: Any) -> list[tuple[str, str | None]]:
        names = ("HOME", "XDG_CACHE_HOME", "USER")
        return [(one["name"], one.get("value")) for one in container(pod_of(**spec))["env"] if one["name"] in names]

    program: dict[str, Any] = {"command": ["python3", "a.py"]}
    ours = [("HOME", "/tmp"), ("XDG_CACHE_HOME", "/tmp/.cache"), ("USER", "edgecloud")]
    assert said(program=program, image="debian:12") == ours
    home = {"name": "HOME", "value": "/data"}
    # Caches lie in the home that there is.
    assert said(program=program | {"env": [home]}, image="debian:12") == [("HOME", "/data"), ours[2]]

    def with_template(**worker: Any) -> list[tuple[str, str | None]]:
        template = {"spec": {"containers": [{"name": "worker"} | worker]}}
        return said(program=program, image="debian:12", podTemplate=template)

    assert with_template(env=[home]) == [("HOME", "/data"), ours[2]]
    assert with_template(volumeMounts=[{"name": "images", "mountPath": "/images"}]) == ours
    # The image's own home, or one that a ConfigMap names, may hold something that ours would hide.
    assert with_template(volumeMounts=[{"name": "home", "mountPath": "/home/jovyan"}]) == [ours[2]]
    assert with_template(envFrom=[{"configMapRef": {"name": "home"}}]) == [ours[2]]
    assert with_template(securityContext={"readOnlyRootFilesystem": False}) == [ours[2]]
    # What is no object, or no list, the server refuses.
    odd: list[Any] = [None, "x", ["x"], [{"name": "worker", "env": "HOME", "volumeMounts": "/home"}]]
    odd += [[{"name": "worker", "env": value}] for value in (None, ["HOME"], {"a": 1})]
    for containers in odd:
        assert pod_of(program=program, image="debian:12", podTemplate={"spec": {"containers": containers}})
    assert said(program=program) == said(trainer={"data": {"name": "digits"}}, image="my/trainer:1") == []


def test_the_environment_of_a_launcher() -> None:
    layout = Layout(checkpoints="/c", results="/r", scratch="/s", token_file="/t")
    said = launcher_environment(
        make_job(restartPolicy={"maxRestarts": 7}, stopGraceSeconds=300),
        3,
        layout=layout,
        coordinator="http://localhost:1",
    )
    assert said == {
        "EDGECLOUD_COORDINATOR": "http://localhost:1",
        "EDGECLOUD_TOKEN_FILE": "/t",
        "EDGECLOUD_NAMESPACE": "team",
        "EDGECLOUD_JOB": "digits",
        "EDGECLOUD_JOB_UID": "job-uid",
        "EDGECLOUD_WORKER_INDEX": "3",
        "EDGECLOUD_SCRATCH": "/s",
        "EDGECLOUD_CHECKPOINT_DIR": "/c",
        "EDGECLOUD_RESULTS_DIR": "/r",
        "EDGECLOUD_MAX_RESTARTS": "7",
        "EDGECLOUD_STOP_GRACE_SECONDS": "300",
    }
    with_ca = Layout(checkpoints="/c", results="/r", scratch="/s", token_file="/t", ca_file="/ca")
    said = launcher_environment(make_job(), 0, layout=with_ca, coordinator="https://x")
    assert said["EDGECLOUD_CA_FILE"] == "/ca"
    assert "EDGECLOUD_CA_FILE" not in launcher_environment(make_job(), 0, layout=with_ca, coordinator="http://x")


def test_the_built_in_trainer_finds_its_configuration_in_the_environment() -> None:
    layout = Layout(checkpoints="/c", results="/r", scratch="/s", token_file="/t")
    job = make_job(
        trainer={"data": {"name": "digits"}, "epochs": 3},
        resources={"limits": {"nvidia.com/gpu": 2}},
        storage={"keepCheckpoints": 5},
    )
    said = launcher_environment(job, 0, layout=layout, coordinator="x")
    trainer = json.loads(said["EDGECLOUD_TRAINER"])
    assert (trainer["trainer"]["epochs"], trainer["storage"]["keepCheckpoints"], trainer["gpus"]) == (3, 5, 2)
    assert said["EDGECLOUD_STANDBY"] == "2"
    assert "export" not in trainer
    job = make_job(trainer={"data": {"name": "digits"}}, export={"formats": ["onnx", "pt2"], "calibrationImages": 9})
    trainer = json.loads(launcher_environment(job, 0, layout=layout, coordinator="x")["EDGECLOUD_TRAINER"])
    assert trainer["export"] == {"formats": ["onnx", "pt2"], "maxAccuracyLoss": 1.0, "calibrationImages": 9}


@pytest.mark.parametrize(
    ("limits", "gpus", "whole", "processes"),
    [
        ({"nvidia.com/gpu": "2.0"}, 2, 2, 2),
        ({"nvidia.com/mig-1g.10gb": 1}, 1, 0, 1),
        ({"nvidia.com/mig-1g.10gb": 2, "nvidia.com/mig-3g.40gb": "1"}, 3, 0, 1),
        ({"nvidia.com/gpu.shared": 1}, 1, 0, 1),
        ({"nvidia.com/gpu": 0, "cpu": "8", "xilinx.com/fpga": 1, "nvidia.com/gpumem": 4000}, 0, 0, 1),
    ],
)
def test_whatever_gpu_is_asked_for_the_trainer_uses_it(
    limits: dict[str, Any], gpus: int, whole: int, processes: int
) -> None:
    """It falls to the CPU, without a word, where it is told of none."""
    job = make_job(trainer={"data": {"name": "digits"}}, resources={"limits": limits})
    said = launcher_environment(job, 0, layout=POD_LAYOUT, coordinator="x")
    trainer = json.loads(said["EDGECLOUD_TRAINER"])
    assert (trainer["gpus"], trainer["wholeGpus"]) == (gpus, whole)
    assert said["EDGECLOUD_STANDBY"] == str(processes)


def test_the_environment_of_a_pod() -> None:
    program = {
        "command": ["a"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    }
    said = variables(pod_of(1, program=program))
    assert said["EDGECLOUD_COORDINATOR"] == "https://coordinator:8443"
    assert said["EDGECLOUD_WORKER_INDEX"] == "1"
    assert said["EDGECLOUD_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert said["EDGECLOUD_ADDRESS"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert said["EDGECLOUD_NODE"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert (said["A"], said["B"]) == ("1", {"secretKeyRef": {"name": "s", "key": "k"}})


# The user's template


def test_a_template_is_merged_over_ours() -> None:
    template = {
        "metadata": {"labels": {"team": "vision"}, "annotations": {"note": "x"}},
        "spec": {
            "runtimeClassName": "gvisor",
            "securityContext": {"fsGroup": 2000},
            "containers": [
                {"name": "worker", "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "2"}}},
                {"name": "sidecar", "image": "s:1"},
            ],
            "volumes": [{"name": "data", "hostPath": {"path": "/data"}}],
        },
    }
    pod = pod_of(podTemplate=template)
    plain = pod_of()
    assert pod["metadata"]["labels"] == plain["metadata"]["labels"] | {"team": "vision"}
    assert pod["metadata"]["annotations"] == {"note": "x"}
    assert pod["spec"]["runtimeClassName"] == "gvisor"
    assert pod["spec"]["securityContext"] == plain["spec"]["securityContext"] | {"fsGroup": 2000}
    worker, sidecar = pod["spec"]["containers"]
    assert worker["command"] == container(plain)["command"]
    assert worker["env"] == [*container(plain)["env"], {"name": "A", "value": "1"}]
    assert worker["resources"] == {"limits": {"cpu": "2"}}
    assert sidecar == {"name": "sidecar", "image": "s:1"}
    assert [one["name"] for one in pod["spec"]["volumes"]][-1] == "data"


def test_who_a_pod_belongs_to_is_not_the_templates_to_say() -> None:
    plain = pod_of()
    pod = pod_of(
        podTemplate={
            "metadata": {
                "name": "x",
                "namespace": "y",
                "ownerReferences": [],
                "labels": {"edgecloud.io/job": "z", "edgecloud.io/worker-index": None},
            },
            "spec": {"restartPolicy": "Always"},
        }
    )
    assert pod == plain


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"medium": "Memory", "sizeLimit": "1Gi"},
        ),
        ({"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}, {"medium": "Memory", "sizeLimit": "1Gi"}),
    ],
)
def test_a_volume_of_ours_can_be_changed(template: dict[str, Any], expected: dict[str, Any]) -> None:
    assert volume(pod_of(podTemplate={"spec": {"volumes": [template]}}), "shm") == {"emptyDir": expected}


def test_a_volume_keeps_but_one_source() -> None:
    template = {"spec": {"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}]}}
    assert volume(pod_of(podTemplate=template), "scratch") == {"ephemeral": {"volumeClaimTemplate": {}}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("name", "labels", "metadata", "spec", "volumes", "containers", "env", "mountPath", "key")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


MAPPING = st.dictionaries(st.sampled_from(("labels", "annotations", "volumes", "containers")), JSON, max_size=3)


@given(
    template=st.fixed_dictionaries({}, optional={"metadata": MAPPING, "spec": MAPPING})
    | st.fixed_dictionaries({"metadata": st.fixed_dictionaries({"labels": JSON})})
)
@tries(100)
def test_no_template_breaks_the_builder(template: dict[str, Any]) -> None:
    stored = make_job().dump()
    stored["spec"]["podTemplate"] = template
    job = TrainingJob.parse(stored, stored=True)
    pod = build_pod(job, 0, "image:1", Settings(coordinator="https://coordinator:8443"))
    plain = pod_of()
    for key in ("name", "namespace", "ownerReferences"):
        assert pod["metadata"][key] == plain["metadata"][key]
    assert pod["metadata"]["labels"].items() >= plain["metadata"]["labels"].items()
    assert pod["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        pytest.param({"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="added"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 2}, id="replaced"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null takes away"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}, id="deep"),
        pytest.param({"a": {"b": 1}}, {"a": "x"}, {"a": "x"}, id="another kind"),
        pytest.param({"a": ["x"]}, {"a": ["y"]}, {"a": ["y"]}, id="a plain list is replaced"),
        pytest.param({"a": [{"name": "x"}]}, {"a": []}, {"a": []}, id="an empty list replaces"),
        pytest.param(
            {"a": [{"name": "x", "v": 1}, {"name": "y"}]},
            {"a": [{"name": "x", "v": 2}, {"name": "z"}]},
            {"a": [{"name": "x", "v": 2}, {"name": "y"}, {"name": "z"}]},
            id="a list by name",
        ),
        pytest.param(
            {"a": [{"name": "v", "mountPath": "/a"}]},
            {"a": [{"name": "v", "mountPath": "/b"}]},
            {"a": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]},
            id="mounts by path",
        ),
        pytest.param(
            {"a": [{"name": "x"}]},
            {"a": [{"name": "y", "v": 1}, {"name": "y", "w": 2}, {"name": "x", "v": 3}]},
            {"a": [{"name": "x", "v": 3}, {"name": "y", "v": 1}, {"name": "y", "w": 2}]},
            id="two of theirs stay two",
        ),
        pytest.param(
            {"a": [{"name": "x"}]},
            {"a": [{"name": "x", "v": 1}, {"name": "x", "v": 2}]},
            {"a": [{"name": "x", "v": 1}, {"name": "x", "v": 2}]},
            id="and one of them is laid over ours",
        ),
        pytest.param(
            {"env": [{"name": "x", "value": "1"}, {"name": "y", "valueFrom": {"fieldRef": {}}}]},
            {"env": [{"name": "x", "valueFrom": {"s": 1}}, {"name": "y", "valueFrom": {"s": 2}}]},
            {"env": [{"name": "x", "valueFrom": {"s": 1}}, {"name": "y", "valueFrom": {"s": 2}}]},
            id="a variable has one source",
        ),
        pytest.param(
            {"a": [{"name": "x"}]}, {"a": [{"value": "y"}]}, {"a": [{"value": "y"}]}, id="items without a key replace"
        ),
    ],
)
def test_merge(ours: dict[str, Any], theirs: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy((ours, theirs))
    assert merged(ours, theirs) == expected
    assert (ours, theirs) == before


class Counted(str):
    """A name that counts how often it is compared with another one."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = str.__hash__


def test_a_long_template_is_merged_in_time_that_grows_with_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand variables for each of a thousand workers stopped the operator for a minute and a half."""
    monkeypatch.setattr(Counted, "compared", 0)
    ours, theirs = ([{"name": Counted(f"{letter}{number}")} for number in range(500)] for letter in "AB")
    assert len(merged({"env": ours}, {"env": theirs + ours})["env"]) == 1000
    assert Counted.compared < 10 * 1000
