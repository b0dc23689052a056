"""What the trainer sets for its whole process, which here is that of other tests as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _subnormal_numbers_stay() -> Iterator[None]:
    """hypothesis makes some, and fails where the processor takes them for zero."""
    yield
    torch.set_flush_denormal(False)
