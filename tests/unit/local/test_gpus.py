"""A machine's GPUs among the workers of a local run: each its own, and none where nobody asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecloud.api.spec import TrainingJobSpec
from edgecloud_operator.local import shortage, visible_gpus
from edgecloud_operator.local.gpus import share_of, unseen
from tests.unit.local.jobs import make_job

TRAINER: dict[str, Any] = {"program": None, "trainer": {"data": {"name": "digits"}}}
FOUR = ("0", "1", "2", "3")


def asking(limits: dict[str, Any] | None, **spec: Any) -> TrainingJobSpec:
    return make_job(**({"resources": {"limits": limits}} | spec)).spec


def gpus(count: int | str) -> dict[str, Any]:
    return {"nvidia.com/gpu": count}


def shares(spec: TrainingJobSpec, seen: tuple[str, ...]) -> list[str | None]:
    return [share_of(spec, index, seen, {}) for index in range(spec.worker_count())]


def on_cuda(limits: dict[str, Any] | None = None, **spec: Any) -> TrainingJobSpec:
    return asking(limits, program=None, trainer=TRAINER["trainer"] | {"device": "cuda"}, **spec)


POOLS: dict[str, Any] = {
    "workers": None,
    "pools": [
        {"name": "cloud", "workers": 1, "resources": {"limits": gpus(2)}},
        {"name": "edge", "workers": 1},
        {"name": "pc", "workers": 1, "resources": {"limits": gpus("1")}},
    ],
}


@pytest.mark.parametrize(
    ("spec", "seen", "expected"),
    [
        (asking(gpus(1)), ("0", "1"), ["0", "1"]),
        (asking(gpus("2"), **TRAINER), FOUR, ["0,1", "2,3"]),
        (asking(gpus(1)), ("GPU-b", "GPU-a", "7"), ["GPU-b", "GPU-a"]),
        (asking(gpus(1)), ("MIG-a", "MIG-b"), ["MIG-a", "MIG-b"]),
        (asking({"nvidia.com/mig-1g.10gb": 1}), ("MIG-a", "MIG-b"), ["MIG-a", "MIG-b"]),
        (asking({"nvidia.com/mig-1g.10gb": 1}), ("0",), [None, None]),
        (asking({"nvidia.com/gpu.shared": 1}), ("0",), [None, None]),
        (asking(None, **POOLS), FOUR, ["0,1", "", "2"]),
        (asking(None), ("0",), ["", ""]),
        (asking(gpus(0)), FOUR, ["", ""]),
        (asking(None, workers=1, processesPerWorker=2), ("0",), [""]),
        (on_cuda(), FOUR, ["0", "1"]),
        (on_cuda({"cpu": 1}, processesPerWorker=2), FOUR, ["0,1", "2,3"]),
        (on_cuda({"nvidia.com/gpu": 0}, workers=1), ("0",), ["0"]),
        (on_cuda(**POOLS), FOUR, ["0,1", "2", "3"]),
        (asking({"nvidia.com/gpu.shared": 1}, **TRAINER), ("0", "1"), ["0", "1"]),
    ],
)
def test_each_worker_has_its_own(spec: TrainingJobSpec, seen: tuple[str, ...], expected: list[str | None]) -> None:
    assert shares(spec, seen) == expected
    assert shortage(spec, seen) is None


NAMED = {"command": ["a"], "env": [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]}


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        (asking({"cpu": 2}, **TRAINER), ("0",)),
        (asking(gpus(1)), ()),
        (asking(gpus(1), **TRAINER), ()),
        (on_cuda(), ()),
        (asking(None, **TRAINER), FOUR),
        (asking(gpus(1), program=NAMED), ("0",)),
        (asking(None, program=NAMED), ("0",)),
        (asking(gpus(1), program=None, trainer=TRAINER["trainer"] | {"device": "cpu"}), ("0",)),
    ],
    ids=[
        "a trainer's",
        "no GPU",
        "the trainer without one",
        "nor with device: cuda",
        "device: auto",
        "named by the job",
        "and not asked for",
        "pretended",
    ],
)
def test_what_stays_as_it_is(spec: TrainingJobSpec, seen: tuple[str, ...]) -> None:
    assert shares(spec, seen) == [None, None]
    assert shortage(spec, seen) is None


@pytest.mark.parametrize(
    ("spec", "seen", "environment"),
    [
        (asking(None, workers=1), ("0",), {}),
        (asking(None, workers=1, processesPerWorker=2), ("0", "1"), {}),
        (asking(None), ("0",), {"CUDA_VISIBLE_DEVICES": "0"}),
        (asking(None), (), {}),
    ],
    ids=["one rank", "one worker, and enough of them", "named by who runs it", "no GPU"],
)
def test_a_script_sees_what_is_there(spec: TrainingJobSpec, seen: tuple[str, ...], environment: dict[str, str]) -> None:
    assert {share_of(spec, index, seen, environment) for index in range(spec.worker_count())} == {None}
    assert unseen(spec, seen, environment) is None


def test_a_script_that_asks_for_none_hears_how_to() -> None:
    """All its workers took the first GPU, and NCCL refused them."""
    assert unseen(asking(None), ("0", "1"), {}) == (
        "GPUs: workers that ask for none see none, as in a cluster: ask for them in spec.resources.limits"
        " (nvidia.com/gpu), or set CUDA_VISIBLE_DEVICES"
    )
    some = unseen(asking(None, **POOLS), FOUR, {})
    assert some is not None and "in spec.pools (" in some
    assert unseen(asking(gpus(1)), ("0", "1"), {}) is None


def test_too_few() -> None:
    why = shortage(asking(gpus(1)), ("0",))
    assert why == (
        "spec.resources.limits: the workers ask for 2 GPUs together, and 1 can be seen here: take fewer workers,"
        " ask for less nvidia.com/gpu, or have them share by CUDA_VISIBLE_DEVICES in spec.program.env"
    )
    why = shortage(asking(gpus(3), **TRAINER), FOUR)
    assert why is not None and "ask for 6 GPUs" in why and why.endswith("or write spec.trainer.device: cpu")
    why = shortage(asking(None, **POOLS), ("0", "1"))
    assert why is not None and why.startswith("spec.pools: the workers ask for 3 GPUs")
    why = shortage(on_cuda(processesPerWorker=2), ("0", "1"))
    assert why == (
        "spec.trainer: the workers' 4 processes need a GPU each, and 2 can be seen here: take fewer workers or"
        " processes, or write spec.trainer.device: cpu"
    )
    assert shortage(on_cuda(), ("0",)) and shortage(on_cuda(workers=1), ("0",)) is None, "a laptop with its one GPU"


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("0,1", ("0", "1")),
        (" GPU-8932f937-d72c , MIG-5", ("GPU-8932f937-d72c", "MIG-5")),
        ("3", ("3",)),
        ("", ()),
        ("-1", ()),
        ("2,-1,0", ("2",)),
    ],
)
def test_what_the_environment_names_is_what_is_seen(tmp_path: Path, said: str, seen: tuple[str, ...]) -> None:
    (tmp_path / "nvidia0").touch()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": said}, tmp_path) == seen


def test_device_files_are_counted(tmp_path: Path) -> None:
    """As in a container that has the last two GPUs of four: CUDA numbers what it finds from 0."""
    assert visible_gpus({}, tmp_path) == ()
    for name in ("nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-caps", "nvidia-modeset", "null"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ("0", "1")
    assert visible_gpus({}, tmp_path / "none") == ()
