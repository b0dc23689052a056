"""What a device is told to do, and what telling it costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from edgecloud_trainer import devices
from edgecloud_trainer.settings import Settings, read
from tests.ports import free_port
from tests.unit.trainer_steps.ranks import Rank, ended


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_DETERMINISTIC", "0")
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch._C._set_deterministic_algorithms(False, warn_only=False)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.usefixtures("as_before")
def test_deterministic_algorithms_come_without_the_compiler() -> None:
    before = set(sys.modules)
    devices.use_deterministic(compiles=False)
    assert set(sys.modules) == before
    assert torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2))


def told(error: RuntimeError) -> Callable[[object], None]:
    def set_device(_device: object) -> None:
        raise error

    return set_device


ON_A_GPU = read({"EDGECLOUD_TRAINER": '{"trainer": {"data": {"name": "digits"}}, "gpus": 1, "wholeGpus": 1}'})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver.",
            "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver",
        ),
        (
            "CUDA error: no kernel image is available for execution on the device\nCompile with `TORCH_USE_CUDA_DSA`",
            "CUDA error: no kernel image is available for execution on the device",
        ),
    ],
)
def test_a_gpu_that_this_torch_does_not_know(monkeypatch: pytest.MonkeyPatch, words: str, line: str) -> None:
    """NVML sees it, and the driver or the GPU is not one that the wheel is made for."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", told(torch.AcceleratorError(words)))
    with pytest.raises(devices.GPUNotVisibleError) as caught:
        devices.choose(ON_A_GPU)
    assert str(caught.value).startswith(f"local rank 0 sees its GPU and can't compute on it ({line}): put a newer")


@pytest.mark.parametrize(
    "error", [torch.AcceleratorError("CUDA error: out of memory"), torch.OutOfMemoryError("CUDA out of memory.")]
)
def test_a_gpu_that_is_full_is_no_wrong_one(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", told(error))
    with pytest.raises(type(error), match="out of memory"):
        devices.choose(ON_A_GPU)


def looks_for_gpus(settings: Settings) -> object:
    gpus = replace(settings, gpus=1)
    with pytest.raises(devices.GPUNotVisibleError, match="local rank 0 needs a GPU and sees 0: look at"):
        devices.foresee(gpus)
    before = fit_after_a_fork(gpus)
    torch._C._cuda_getDeviceCount()  # as torch.cuda.is_available(), which a user's model may call
    return [before, fit_after_a_fork(gpus), fit_after_a_fork(settings)]


def fit_after_a_fork(settings: Settings) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(devices.fit_after_a_fork(settings))
    return bool(os.waitpid(child, 0)[1])


def test_a_standby_that_waits_for_a_gpu_can_be_forked() -> None:
    """It has looked whether there is one, but in a child. A fork that finds CUDA begun gives up, if it needs it."""
    rank = Rank(looks_for_gpus, 0, free_port(), CUDA_VISIBLE_DEVICES="")
    with ended(rank):
        assert rank.end() == ("[True, False, True]", 0)
