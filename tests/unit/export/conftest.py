"""One thread for torch: small networks are no faster with more, and far slower where other tests run beside.

And each model loaded once, or a small disk, where a test asks for that.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.unit.edge.export import one_load
from tests.unit.trainer_checkpoints.conftest import make_disk

__all__ = ["make_disk", "one_load", "one_thread"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
