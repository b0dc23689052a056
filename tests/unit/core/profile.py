"""How hard hypothesis tries: quick and always the same in `make test`, longer with EDGECLOUD_HYPOTHESIS=thorough."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

THOROUGH: Final = os.environ.get("EDGECLOUD_HYPOTHESIS") == "thorough"


def tries(quick: int, *, steps: int = 50, thorough: int | None = None) -> settings:
    """Settings with so many examples in the quick profile; in the thorough one thirty times as many, or `thorough`."""
    return settings(
        max_examples=(thorough or 30 * quick) if THOROUGH else quick,
        stateful_step_count=2 * steps if THOROUGH else steps,
        derandomize=not THOROUGH,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
