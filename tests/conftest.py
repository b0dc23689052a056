"""What holds for every test."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# Tests run side by side, on few cores: OpenMP's threads spin while they wait for one that has none, which made what
# takes a second take twenty. Whatever a test starts inherits it; those about numbers of threads set their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long a model takes is of interest to none of them, only that it was measured.
os.environ.setdefault("EDGECLOUD_LATENCY_SECONDS", "1")

# Tests in the background, or under nohup, ignore these, and so would the commands that they start and stop; what is
# caught is not passed on.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("edgecloud", deadline=None)
settings.load_profile("edgecloud")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first: at the end of a parallel run the other processes would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
