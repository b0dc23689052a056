"""TensorBoard's event files in results/tensorboard, by tensorboardX (extra `tensorboard`): torch not needed to read."""

from __future__ import annotations

import time
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
            from tensorboardX.event_file_writer import EventsWriter  # type: ignore[import-untyped]
            from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
        except ImportError:
            raise SettingsError(
                "trainer.tensorboard needs an extra package: pip install 'edgecloud[tensorboard]', or leave it out and"
                " look at results/metrics.jsonl and results/curves.png"
            ) from None
        self._event = Event
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        # Not SummaryWriter: that queues events for a thread, and its flush() leaves the queued ones behind.
        self._writer = EventsWriter(str(folder / FOLDER / "events"), f".from-{start}")
        if start:
            log = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=start + 1, session_log=log))

    def write(self, *, step: int, **values: float | None) -> None:
        """Values under the names of metrics.jsonl; what has no tag or no value is left out."""
        event = self._event(wall_time=time.time(), step=step)
        for name, value in values.items():
            if name in _TAGS and value is not None:
                event.summary.value.add(tag=_TAGS[name], simple_value=value)
        self._writer.write_event(event)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
