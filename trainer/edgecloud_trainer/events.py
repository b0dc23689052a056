"""TensorBoard's event files in results/tensorboard, by tensorboardX (extra `tensorboard`): torch not needed to read."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edgecloud_trainer.lines import lost
from edgecloud_trainer.settings import SettingsError

log = logging.getLogger(__name__)

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
                "trainer.tensorboard needs an extra package: pip install '.[tensorboard]' in EdgeCloud's folder, or"
                " leave it out and look at results/metrics.jsonl and results/curves.png"
            ) from None
        self._event = Event
        # Not SummaryWriter: that queues events for a thread, and its flush() leaves the queued ones behind.
        self._make = EventsWriter
        self._folder = folder / FOLDER
        self._writer: Any = None
        self._told = False
        self._step = start
        self._open(f"from-{start}")
        if start:
            session = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=start + 1, session_log=session))

    def write(self, *, step: int, **values: float | None) -> None:
        """Values under the names of metrics.jsonl; what has no tag or no value is left out."""
        event = self._event(wall_time=time.time(), step=step)
        for name, value in values.items():
            if name in _TAGS and value is not None:
                event.summary.value.add(tag=_TAGS[name], simple_value=value)
        self._write(event)
        self._step = step

    def flush(self) -> None:
        """Make the events so far durable. After trouble with the storage this begins a new file."""
        if self._writer is None:
            self._open(f"again-{self._step}")
        if self._writer is not None and self._attempt(self._writer.flush):
            self._told = False

    def close(self) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)
            self._writer = None

    def _open(self, suffix: str) -> None:
        def make() -> None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = self._make(str(self._folder / "events"), f".{suffix}")

        self._attempt(make)

    def _write(self, event: Any) -> None:
        if self._writer is not None:
            self._attempt(lambda: self._writer.write_event(event))

    def _attempt(self, work: Callable[[], object]) -> bool:
        """Do something with the file. One that couldn't be written is given up: nothing can be read after the broken
        record at its end."""
        try:
            work()
        except OSError as error:
            if not self._told:
                log.warning("%s", lost(self._folder, error))
            self._told = True
            self._give_up()
            return False
        return True

    def _give_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):  # its own close() stops at what can't be written, with the file open
                writer._py_recordio_writer.close()
