"""One training process: how it is started, told to stop, and what is known of its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecloud.launcher import failure, linux
from edgecloud.launcher.channel import LauncherEnd
from edgecloud.launcher.environment import Files, Worker, training_environment
from edgecloud.launcher.messages import RunOrder
from edgecloud.launcher.output import Output
from edgecloud.launcher.sinks import Sink
from edgecloud.launcher.standby import Standby
from edgecloud.launcher.verdict import LEFT, End


class StartError(Exception):
    """A process could not be started; `reason` and `message` are for its FailureReport."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Process:
    """A process in a session, and so a process group, of its own, with a pipe and a channel to it.

    Raises:
        StartError: from the constructor: the command cannot be started.
        OSError: from the constructor: no room in the scratch folder, no descriptors left.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        loop: asyncio.AbstractEventLoop,
        sink: Sink,
        base: Mapping[str, str],
        worker: Worker,
        round: int,
        order: RunOrder,
        local_rank: int,
        folder: Path,
        standby: Standby | None = None,
    ) -> None:
        """standby: one that waits, to be used instead of a new process."""
        self.local_rank = local_rank
        self.rank = order.first_rank + local_rank
        self.end: End | None = None
        self.verdict = ""
        """See `verdict.judge`; empty while it lives."""
        self.sent: set[int] = set()
        self._left_as_asked = False
        self._error_file = folder / f"{local_rank}.error.json"
        self._failure_file = folder / f"{local_rank}.failure.json"
        files = Files(str(folder / f"{local_rank}.channel"), str(self._error_file), str(self._failure_file))
        prefix = f"[rank {self.rank}] ".encode() if order.processes > 1 else b""
        self._output = standby.output if standby is not None else Output(loop, sink)
        self._output.name(prefix)
        try:
            self.channel = LauncherEnd(Path(files.channel))
        except OSError:
            self._output.close()
            raise
        environment = training_environment(
            base, worker=worker, round=round, order=order, local_rank=local_rank, files=files
        )
        self._popen: subprocess.Popen[bytes] | None = None
        self._standby = standby
        if standby is not None and standby.take_part(environment):
            self.pid = standby.pid
            return
        if standby is not None:  # it has ended, or cannot be spoken to
            standby.dismiss()
            self._standby = None
            self._output = Output(loop, sink, prefix)
        try:
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=self._output.writer,
                stderr=self._output.writer,
                env=environment,
                start_new_session=True,
                preexec_fn=linux.bound_to(os.getpid()),  # noqa: PLW1509  (it takes no lock, and makes system calls only)
            )
        except OSError as error:
            self.close()
            raise StartError(*failure.start_failure(error, command[0])) from None
        except ValueError:
            self.close()
            raise StartError(failure.START_FAILED, "the command or the environment holds a zero byte") from None
        self._output.started()
        self.pid = self._popen.pid

    @property
    def alive(self) -> bool:
        return self.end is None

    @property
    def asks(self) -> bool:
        """Whether a process of this rank looks at the stop flag, and so may be trusted to see it.

        One that lives: not the first of a shell's two commands, once the second one runs. Or that it was one, and has
        left by agreement: the other ranks learn of that from it, and have yet to follow.
        """
        if self.end is not None:
            return self._left_as_asked
        return self.channel.attached and (self.channel.asker in (0, self.pid) or linux.lives(self.channel.asker))

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group; each only once, and none after its end: the id may be another's."""
        if self.alive and number not in self.sent:
            self.sent.add(number)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def lingers(self) -> bool:
        """Whether others of a group that we asked to end are still at it (a shell goes before its program)."""
        return signal.SIGTERM in self.sent and not self.alive and linux.group_alive(self.pid)

    def ended(self, end: End, verdict: str) -> None:
        self.end, self.verdict = end, verdict
        self._left_as_asked = verdict == LEFT and signal.SIGTERM not in self.sent and self.channel.attached
        # Reaped by us, not by Popen, which would otherwise wait for it some day.
        if self._popen is not None:
            self._popen.returncode = end.exit_code
        if self._standby is not None:
            self._standby.ended(end)
        self._output.drain()

    def note(self) -> failure.Note:
        return failure.read_note(self._error_file, self._failure_file)

    def failure(self, note: failure.Note) -> dict[str, Any]:
        """The FailureReport of a process that has ended badly."""
        end = self.end or End(code=1)
        output = self._output.tail.text()
        text = f"{failure.last_lines(output)}\n{note.message}"
        return failure.report(
            local_rank=self.local_rank,
            rank=self.rank,
            end=end,
            reason=failure.classify(end, text, note.reason),
            message=failure.describe(end, output, note),
            at=time.time(),
            seen_round=note.seen_round,
        )

    def close(self) -> None:
        self._output.close()
        self.channel.close()


def first_cause(broken: Sequence[tuple[Process, failure.Note]]) -> tuple[Process, failure.Note]:
    """Of processes that were found ended at the same moment, the one that most likely took the others with it.

    A signal comes from outside, an exception may be the loss of a peer; of two exceptions the time tells, if noted.
    """

    def order(one: tuple[Process, failure.Note]) -> tuple[bool, float, int]:
        process, note = one
        by_signal = process.end is not None and process.end.killed_by is not None
        return (not by_signal, note.at if note.at is not None else float("inf"), process.local_rank)

    return min(broken, key=order)
