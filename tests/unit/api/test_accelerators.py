"""Accelerators that a built-in training would hold and not use: told before there is a Pod."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud.api.spec import TrainingJobSpec
from edgecloud.api.unmade import unmade

TRAINER = {"data": {"name": "digits"}}
AMD = {"limits": {"amd.com/gpu": 4}}
NVIDIA = {"limits": {"nvidia.com/gpu": 1}}
IMAGE = {"image": "a"}
CLAIMS = {"claims": [{"name": "gpu"}]}


def paths(**spec: Any) -> list[str]:
    parsed = TrainingJobSpec.parse({"trainer": TRAINER} | ({} if "pools" in spec else {"workers": 2}) | spec)
    return [".".join(map(str, path)) for path, _, _ in unmade(parsed)]


def template(resources: dict[str, Any], name: str = "worker") -> dict[str, Any]:
    return {"spec": {"containers": [{"name": name, "resources": resources} | ({} if name == "worker" else IMAGE)]}}


@pytest.mark.parametrize(
    "name",
    ["amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi", "aws.amazon.com/neuron",
     "aws.amazon.com/neuroncore", "google.com/tpu", "volcano.sh/vgpu-number", "aliyun.com/gpu-mem"],
)  # fmt: skip
def test_one_that_no_trainer_counts(name: str) -> None:
    resources = {"limits": {name: 1, "cpu": 4}}
    assert paths(resources=resources) == [f"resources.limits.{name}"]
    for device in ("cpu", "cuda"):
        assert paths(resources=resources, trainer=TRAINER | {"device": device}) == []
    assert paths(resources=resources, trainer=None, program={"command": ["a"]}) == []


@pytest.mark.parametrize("limits", [
    {"nvidia.com/gpu": 1, "nvidia.com/gpu-mem": 3000}, {"nvidia.com/mig-1g.10gb": 1}, {"nvidia.com/gpu.shared": 1},
    {"amd.com/gpu": 0}, {"rdma/hca_shared_devices_gpu": 1}, {"smarter-devices/nvhost-gpu": 1}, {"cpu": 1},
    {"vpc.amazonaws.com/efa": 1}, {"example.kubernetes.io/gpu": 1}, {"xilinx.com/fpga": 1},
])  # fmt: skip
def test_what_is_counted_or_none(limits: dict[str, Any]) -> None:
    assert paths(resources={"limits": limits}) == []


def test_each_pool_by_its_own() -> None:
    first, second = {"name": "a", "workers": 1}, {"name": "b", "workers": 1}
    assert paths(pools=[first | {"resources": NVIDIA}, second | {"resources": AMD}]) == [
        "pools.1.resources.limits.amd.com/gpu"
    ]
    assert paths(resources=AMD, pools=[first, second]) == ["resources.limits.amd.com/gpu"]
    assert paths(resources=AMD, pools=[first | {"resources": NVIDIA}]) == []


@pytest.mark.parametrize(
    ("resources", "path"),
    [(NVIDIA, "limits.nvidia.com/gpu"), (AMD, "limits.amd.com/gpu"), (CLAIMS, "claims")],
)
def test_what_a_template_asks_for(resources: dict[str, Any], path: str) -> None:
    assert paths(podTemplate=template(resources)) == [f"podTemplate.spec.containers.0.resources.{path}"]
    assert paths(podTemplate=template(resources), resources=NVIDIA) == [], "that is counted"
    assert paths(podTemplate=template(resources, "beside")) == []


@pytest.mark.parametrize(
    ("resources", "right"),
    [
        ({"requests": {"nvidia.com/gpu": 1}}, False),
        ({"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}, False),
        ({"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": "1"}}, True),
        ({"requests": {"cpu": 1, "hugepages-2Mi": "4Mi"}}, True),
    ],
)
def test_a_request_of_what_is_counted_is_its_limit(resources: dict[str, Any], right: bool) -> None:
    """The server refuses each Pod else, and a request alone gives a training none."""
    assert paths(resources=resources) == ([] if right else ["resources.requests.nvidia.com/gpu"])
