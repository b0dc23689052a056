"""EdgeCloud on a real cluster of two nodes: real images, real Pods, real torch.distributed."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from edgecloud_operator.core import names
from tests.e2e.jobs import EXAMPLES, SPREAD, exact, own_script, reporting
from tests.e2e.kube import LOOKS, REGISTRY, SYSTEM, TOOLS, Cluster, Namespace, command
from tests.e2e.local import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


def test_the_first_job_of_a_newcomer(space: Namespace) -> None:
    """helm install; apply the example; watch; wait; read; delete. Nothing is left."""
    space.kubectl("apply", "-f", EXAMPLES / "digits.yaml")
    space.until_step("digits", 30)
    running = space.kubectl("get", "trainingjobs")
    assert re.search(r"^digits +Running +2/2 +\d+% ", running, re.MULTILINE), running
    space.kubectl("wait", "--for=condition=Complete", "trainingjob/digits", "--timeout=240s")
    wide = space.kubectl("get", "tj", "-o", "wide")
    assert re.search(r"^NAME +PHASE +WORKERS +PROGRESS +ETA +LOSS +RESTARTS", wide), wide
    assert re.search(r"^digits +Succeeded +2/2 +100% .* AllWorkersSucceeded", wide, re.MULTILINE), wide
    status = space.status("digits")
    assert status.evaluation and status.evaluation.accuracy and status.evaluation.accuracy >= 0.97
    assert status.performance and status.performance["samplesPerSecond"] > 0
    assert "epoch 30/30" in space.kubectl("logs", "digits-worker-0")
    reasons = {event["reason"] for event in space.get("events")["items"]}
    assert {"Accepted", "RoundOpened", "Running", "Succeeded"} <= reasons, reasons
    owned = space.job("digits").metadata.uid
    assert owned
    space.kubectl("delete", "trainingjob", "digits")
    kinds = "pods,services,configmaps,secrets,persistentvolumeclaims"

    def left() -> list[str]:
        items = space.get(kinds, "-l", f"{names.JOB_LABEL}=digits")["items"]
        return [f"{item['kind']} {item['metadata']['name']}" for item in items]

    wait_for("nothing left", lambda: not left(), within=60, seen=left, every=LOOKS)


def test_helm_test_trains(cluster: Cluster, space: Namespace) -> None:
    """`helm test` as the chart's notes have it: a real job of two workers, shown and gone again."""
    said = cluster.helm("test", "edgecloud", "--namespace", SYSTEM, "--logs", "--timeout", "600s")
    assert re.search(r"Phase: +Succeeded", said), said
    assert re.search(r"^Succeeded: 2/2 workers, restarts 0, accuracy \d+", said, re.MULTILINE), said
    assert cluster.get("trainingjobs", "--namespace", SYSTEM)["items"] == []


def test_a_script_of_ones_own(space: Namespace) -> None:
    """Its files come as a ConfigMap, and go with the job."""
    space.apply(own_script(epochs=6))
    status = space.until_done("own-script")
    assert status.restarts == 0
    assert status.progress and status.progress.accuracy and status.progress.accuracy >= 0.9
    files = space.get("configmap", names.files_name("own-script"))
    assert list(files["data"]) == ["train.py"]
    assert files["metadata"]["ownerReferences"][0]["kind"] == "TrainingJob"


FOREIGN = """
FROM {base}
USER 0
RUN rm -rf /opt/edgecloud/code
ENTRYPOINT []
"""


def test_an_image_that_is_not_ours(space: Namespace, tmp_path: Path) -> None:
    """Debian with python3 and torch, and nothing of EdgeCloud: an init container brings the launcher."""
    tag = space.cluster.tag
    build_foreign(tmp_path, tag)
    job = own_script(epochs=6)
    job["metadata"]["name"] = "foreign"
    job["spec"]["image"] = f"{REGISTRY}/edgecloud/foreign:{tag}"
    job["spec"]["program"]["command"] = ["python3", "train.py"]
    job["spec"]["podTemplate"] = {"spec": SPREAD}
    space.apply(job)
    status = space.until_done("foreign")
    assert status.progress and status.progress.accuracy and status.progress.accuracy >= 0.9
    pods = space.get("pods", "-l", f"{names.JOB_LABEL}=foreign")["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2, "gloo went from node to node"
    assert [pod["spec"]["initContainers"][0]["name"] for pod in pods] == ["launcher"] * 2


def build_foreign(folder: Path, tag: str) -> None:
    """From the trainer image, for its torch is there already; EdgeCloud's code is taken out."""
    builder = "docker"
    try:
        command("docker", "image", "inspect", f"edgecloud/trainer:{tag}")
    except Exception:
        builder = "buildah"
    base = f"edgecloud/trainer:{tag}" if builder == "docker" else f"localhost/edgecloud/trainer:{tag}"
    (folder / "Dockerfile").write_text(FOREIGN.format(base=base))
    build = ["docker", "build"] if builder == "docker" else ["buildah", "bud", "--pull-never"]
    isolation = {"BUILDAH_ISOLATION": "chroot"}
    command(*build, "-t", f"edgecloud/foreign:{tag}", folder, env=isolation)
    command(TOOLS / "push.sh", f"edgecloud/foreign:{tag}")


def test_gpus_are_asked_for_and_tolerated(space: Namespace) -> None:
    """Scheduled on the advertised GPUs; there is no device behind them, so the training says where it computes."""
    job = exact("gpus", epochs=2, resources={"limits": {"nvidia.com/gpu": 1}})
    job["spec"]["trainer"]["device"] = "cpu"
    space.apply(job)
    space.until_done("gpus")
    for pod in space.get("pods", "-l", f"{names.JOB_LABEL}=gpus")["items"]:
        assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
        assert any(one.get("key") == "nvidia.com/gpu" for one in pod["spec"]["tolerations"])


def test_a_gpu_that_is_not_there_is_a_failure(space: Namespace) -> None:
    job = exact("invisible", epochs=1, resources={"limits": {"nvidia.com/gpu": 1}})
    job["spec"]["restartPolicy"] = {"maxRestarts": 0}
    space.apply(job)
    space.until("invisible", "Failed", lambda status: status.phase == "Failed")
    failure = space.status("invisible").last_failure
    assert failure and failure.reason == "GPUNotVisible"
    assert "trainer.device: cpu" in failure.message


JOBS = 5


def test_operator_killed_and_upgraded_under_running_jobs(cluster: Cluster, space: Namespace) -> None:
    """Five jobs train on: no Pod restarted, no round spent, the status right again within ten seconds."""
    jobs = [f"job-{number}" for number in range(JOBS)]
    few = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "1Gi"}}
    space.apply(*(reporting(name, resources=few) for name in jobs))
    for name in jobs:
        space.until_step(name, 1)
    before = {name: space.pods(name) for name in jobs}
    rounds = {name: space.status(name).rendezvous for name in jobs}

    def steps() -> dict[str, int]:
        found = {}
        for name in jobs:
            progress = space.status(name).progress
            found[name] = (progress.step or 0) if progress else 0
        return found

    def right_again(what: str, then: dict[str, int]) -> None:
        """What the status says is newer than what it said before, which takes an operator that hears the workers."""
        began = time.monotonic()
        wait_for(
            f"newer steps in status after {what}",
            lambda: all(now > then[name] for name, now in steps().items()),
            within=10,
            seen=lambda: (then, steps()),
            every=LOOKS,
        )
        print(f"{what}: status right {time.monotonic() - began:.1f} s after the operator was ready")

    then = steps()
    cluster.kubectl(
        "-n", SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/name=edgecloud", "--force", "--grace-period=0"
    )
    cluster.kubectl("-n", SYSTEM, "rollout", "status", "deployment/edgecloud", "--timeout=120s")
    right_again("the operator was killed", then)
    then = steps()
    cluster.install("log.level=warning")
    right_again("an upgrade", then)
    cluster.install()
    for name in jobs:
        status = space.status(name)
        assert status.phase == "Running"
        assert status.restarts == 0
        assert status.rendezvous == rounds[name], "the round is the same"
        assert space.pods(name) == before[name], "and so are the Pods"
