"""The export as the last stage of a job: in a process of its own, watched by the rank that has the weights."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgecloud import worker
from edgecloud.api.spec import ExportSpec
from edgecloud.edge.report import Report, summary
from edgecloud.launcher import linux
from edgecloud_trainer import ready
from edgecloud_trainer.checkpoints import CheckpointError, read_manifest
from edgecloud_trainer.export.errors import DONE, GATE_FAILED, SAID, TRANSIENT, UNUSABLE
from edgecloud_trainer.export.gates import JOB, complaints
from edgecloud_trainer.export.standing import read_report
from edgecloud_trainer.settings import Settings

log = logging.getLogger(__name__)

FOLDER: Final = "export"
"""In the job's results."""
_LOOK_SECONDS: Final = 0.2
_SIGN_SECONDS: Final = 1.0
_KEPT_LINES: Final = 12
_PERCENT: Final = re.compile(r"export: +(\d{1,3}) %")
_Alive = Callable[[int], None]
_NOT_FOR_IT: Final = ("EDGECLOUD_CHANNEL", "EDGECLOUD_FAILURE_FILE", "TORCHELASTIC_ERROR_FILE")
"""By these the rank itself is heard."""


class ExportFailedError(Exception):
    """A gate failed, or a format can't be made: another try would come to the same (exit code 2)."""


class ExportBrokenError(Exception):
    """The export didn't come to its end this time (exit code 1)."""


class ExportStoppedError(Exception):
    """The rank was asked to stop, and the export with it (exit code 143)."""


def run_stage(settings: Settings, spec: ExportSpec, checkpoint: Path, total_steps: int) -> None:
    """Export the network of a finished training into the results, and publish what came of it.

    What an earlier round has exported is not exported again. The job shows all its steps as done meanwhile, and as the
    metric exportPercent how far the export is: anew as long as it gets on, so that it doesn't pass for stalled.

    Args:
        checkpoint: folder of the one after the last step.
        total_steps: of the training.

    Raises:
        ExportFailedError, ExportBrokenError, ExportStoppedError: see there.
    """
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.asked)
    gc.collect()  # of the training: its memory is for the export's process
    ready.give_back()
    out = settings.results / FOLDER
    threads = settings.threads * settings.local_world_size  # the other ranks of this worker have ended
    command = [sys.executable, "-m", "edgecloud_trainer.export", str(checkpoint), "--out", str(out)]
    command += ["--cache", str(settings.cache), "--spec", json.dumps(spec.dump()), "--threads", str(threads)]
    command += ["--node", os.environ.get("EDGECLOUD_NODE", "")]
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_IT}
    environment["OMP_NUM_THREADS"] = str(threads)

    def alive(percent: int) -> None:
        worker.report(step=total_steps, total_steps=total_steps, exportPercent=percent)

    alive(0)
    ended = _watched(command, environment, stop, alive)
    report = _report_of(checkpoint, out) if ended.code in (DONE, GATE_FAILED, TRANSIENT) else None
    if report is not None:
        worker.publish(exports=[summary(one) for one in report.exports])
    _judge(ended, report, out, spec)


def _report_of(checkpoint: Path, out: Path) -> Report | None:
    """The folder's report, unless an earlier export of other weights has left it there."""
    report = read_report(out)
    if report is None:
        return None
    try:
        return report if report.run.weights_sha256 == read_manifest(checkpoint).weights_sha256 else None
    except (CheckpointError, OSError):
        return None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the process ended; code as subprocess has it: a signal is below 0."""

    code: int
    lines: tuple[str, ...]
    """The last that it wrote."""


def _judge(ended: Ended, report: Report | None, out: Path, spec: ExportSpec) -> None:
    """Raise what the end comes to."""
    last = _last(ended.lines)
    if ended.code == DONE:
        return
    if ended.code == GATE_FAILED:
        said = "; ".join(complaints(report, JOB)) if report is not None else last
        copied = "" if spec.destination is None else ", and nothing was copied to export.destination"
        raise ExportFailedError(f"{said}. The files and report.html are in {out}{copied}")
    if ended.code == UNUSABLE:
        raise ExportFailedError(last)
    if ended.code == TRANSIENT:
        raise ExportBrokenError(last)
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        why = ": often out of memory: ask for more" if name == "SIGKILL" else ""
        raise ExportBrokenError(f"the export was ended by {name}{why}; its last line: {last}")
    raise ExportBrokenError("the export failed:\n" + "\n".join(ended.lines))


def _last(lines: tuple[str, ...]) -> str:
    """The last that the export said of itself; else what was printed last."""
    said = [line.removeprefix(SAID) for line in lines if line.startswith(SAID)]
    return (said or list(lines) or ["it printed nothing"])[-1]


class _Stop:
    """Whether this rank has been asked to stop, in whichever way."""

    def __init__(self) -> None:
        self._signalled = False

    def asked(self, _number: int, _frame: object) -> None:
        self._signalled = True

    def __bool__(self) -> bool:
        return self._signalled or worker.should_stop()


def _watched(command: list[str], environment: dict[str, str], stop: _Stop, alive: _Alive) -> Ended:
    """Run a program to its end; its lines go to the log, and `alive` is called as long as it gets on.

    Raises:
        ExportStoppedError: asked to stop meanwhile; nothing of it is left.
        ExportBrokenError: it can't be started.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=linux.bound_to(os.getpid()),  # noqa: PLW1509  (it takes no lock, and makes system calls only)
        )
    except OSError as error:
        raise ExportBrokenError(f"the export can't be started: {error}") from error
    lines = _Lines()
    pulse = _Pulse(process.pid, alive)
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if stop:
                    raise ExportStoppedError("stopped while it was exporting; the training is complete")
                if selector.select(_LOOK_SECONDS):
                    data = os.read(process.stdout.fileno(), 1 << 16)
                    if not data:
                        break
                    lines.take(data)
                elif process.poll() is not None:  # something that it has left holds the pipe
                    break
                pulse.look(lines.count, lines.percent)
        code = process.wait()
        if stop:
            raise ExportStoppedError("stopped while it was exporting; the training is complete")
        return Ended(code=code, lines=tuple(lines.kept))
    finally:
        if process.returncode != 0:  # with what it has started in its turn
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class _Lines:
    """Lines out of pieces; into the log, and the last of them kept."""

    def __init__(self) -> None:
        self.count = 0
        self.percent = 0
        """That the export says is done."""
        self.kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self._rest = b""

    def take(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-(1 << 16) :]
        for line in whole:
            text = line.decode("utf-8", "replace").rstrip()
            self.count += 1
            self.kept.append(text)
            if found := _PERCENT.match(text):
                self.percent = int(found[1])
            log.info("%s", text)


class _Pulse:
    """Says that a process gets on: it has written something, or computed."""

    def __init__(self, pid: int, alive: _Alive) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._alive = alive
        self._seen: tuple[int, Any] = (0, None)
        self._at = time.monotonic()

    def look(self, lines: int, percent: int) -> None:
        if time.monotonic() - self._at < _SIGN_SECONDS:
            return
        self._at = time.monotonic()
        seen = (lines, self._computed())
        if seen != self._seen:
            self._seen = seen
            self._alive(percent)

    def _computed(self) -> list[str] | None:
        """Clock ticks of the process and of its children that have ended; None where the kernel doesn't tell."""
        try:
            return self._stat.read_text().rpartition(")")[2].split()[11:15]
        except OSError:
            return None
