"""What a device is told to do, and what telling it costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from edgecloud_trainer import devices
from edgecloud_trainer.settings import Settings
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
