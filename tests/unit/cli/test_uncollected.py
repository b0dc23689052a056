"""No garbage collection within, and as before afterwards."""

from __future__ import annotations

import gc

import pytest

from edgecloud.uncollected import uncollected


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_off_within_and_then_as_it_was(was_on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(ImportError), uncollected():
            assert not gc.isenabled()
            raise ImportError("torch")
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()
