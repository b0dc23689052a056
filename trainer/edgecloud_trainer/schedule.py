"""The learning rate over the training: a pure function of the step."""

from __future__ import annotations

import math

from edgecloud.api.trainer import ScheduleSpec


def factor(schedule: ScheduleSpec, step: int, total: int) -> float:
    """What the learning rate is multiplied with at `step` (from 0) of `total`: between 0 and 1."""
    done = (step + 0.5) / max(1, total)
    warmup = schedule.warmup_fraction
    if warmup > 0 and done < warmup:
        return done / warmup
    rest = (done - warmup) / (1 - warmup)
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    if schedule.name == "triangular":
        return 1 - rest
    if schedule.name == "step":
        return 1.0 if rest < 0.5 else 0.1 if rest < 0.75 else 0.01
    return 1.0
