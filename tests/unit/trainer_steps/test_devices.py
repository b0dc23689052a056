"""What a device is told to do, and what telling it costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from edgecloud_trainer import devices


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
