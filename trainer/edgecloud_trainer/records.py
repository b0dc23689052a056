"""What a rank writes into results/ while it trains: rank 0 the numbers of each step, and each its samples, if asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgecloud_trainer.events import EventLog
from edgecloud_trainer.lines import LineLog
from edgecloud_trainer.performance import Stopwatch
from edgecloud_trainer.results import MetricsLog
from edgecloud_trainer.settings import Settings

SAMPLE_LOG: Final = "samples.jsonl"
VALIDATION: Final = "validationAccuracy"
"""Its name in metrics.jsonl."""


class Records:
    """metrics.jsonl and TensorBoard's files on rank 0; rank-N-samples.jsonl on all."""

    def __init__(self, settings: Settings, watch: Stopwatch, *, start: int) -> None:
        """start: steps done so far.

        Raises:
            SettingsError: TensorBoard's extra is not installed.
        """
        folder, spec, first = settings.results, settings.trainer, settings.rank == 0
        self._round = settings.round
        self._watch = watch
        self._metrics = MetricsLog(folder, start=start) if first else None
        self._events = EventLog(folder, start=start) if first and spec.tensorboard else None
        self._samples = LineLog(folder / f"rank-{settings.rank}-{SAMPLE_LOG}") if spec.sample_log else None

    def write(self, *, step: int, **values: float) -> None:
        """Numbers of a step, into metrics.jsonl and for TensorBoard."""
        if self._metrics is not None:
            self._metrics.write(step=step, seconds=self._watch.elapsed, **values)
        if self._events is not None:
            self._events.write(step=step, samplesPerSecond=self._watch.samples_per_second, **values)

    def knows_validation(self, step: int) -> bool:
        """Whether metrics.jsonl has the one after so many steps; False on a rank that has no such file."""
        return self._metrics is not None and self._metrics.holds(step=step, name=VALIDATION)

    def write_samples(self, number: int, shards: Sequence[tuple[int, np.ndarray]]) -> None:
        """Which samples step `number` (from 0) sees: a line a shard (its number, the ids)."""
        if self._samples is None:
            return
        for shard, ids in shards:
            self._samples.write({"step": number, "round": self._round, "shard": shard, "ids": ids.tolist()})

    def flush(self) -> None:
        """Before a checkpoint: what it knows of is not to be missing in TensorBoard's files."""
        if self._events is not None:
            self._events.flush()

    def end(self, *, step: int, test_accuracy: float) -> None:
        """The training is complete."""
        if self._events is not None:
            self._events.write(step=step, testAccuracy=test_accuracy)
        self.close()

    def close(self) -> None:
        for one in (self._metrics, self._samples, self._events):
            if one is not None:
                one.close()
