"""TensorBoard's event files in results/tensorboard, by tensorboardX (extra `tensorboard`): torch not needed to read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgecloud_trainer.settings import SettingsError

FOLDER: Final = "tensorboard"
_TAGS: Final = {
    "loss": "train/loss",
    "accuracy": "train/accuracy",
    "validationAccuracy": "validation/accuracy",
    "testAccuracy": "test/accuracy",
    "samplesPerSecond": "speed/samples_per_second",
}


class EventLog:
    """Scalars by step. Opened again at an earlier step, it tells TensorBoard to forget what came after that."""

    def __init__(self, folder: Path, *, start: int) -> None:
        """start: steps done so far.

        Raises:
            SettingsError: the extra is not installed.
        """
        try:
            from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
        except ImportError:
            raise SettingsError(
                "trainer.tensorboard needs an extra package: pip install 'edgecloud[tensorboard]', or leave it out and"
                " look at results/metrics.jsonl and results/curves.png"
            ) from None
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=start + 1 if start else None)

    def write(self, *, step: int, **values: float | None) -> None:
        """Values under the names of metrics.jsonl; what has no tag or no value is left out."""
        for name, value in values.items():
            if name in _TAGS and value is not None:
                self._writer.add_scalar(_TAGS[name], value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
