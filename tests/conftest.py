"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("edgecloud", deadline=None)
settings.load_profile("edgecloud")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first: at the end of a parallel run the other processes would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
