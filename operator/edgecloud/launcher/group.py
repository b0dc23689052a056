"""The processes of one round on this worker, from their start until nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from edgecloud.launcher import failure, linux, progress, verdict
from edgecloud.launcher.log import Log
from edgecloud.launcher.messages import Directive, RunOrder
from edgecloud.launcher.process import Process, StartError, first_cause
from edgecloud.launcher.verdict import End

HARD_SECONDS = 5.0
"""Between SIGTERM and SIGKILL where no checkpoint is waited for."""
LEAVE_SECONDS = 30.0
"""For the others to follow a process that left with 143 unasked."""
LATE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL for a process that was asked in another way first; half of a grace that is short."""
_CAUSE_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_COMPLAIN_SECONDS = 10.0
_HEIRS_SECONDS = 2.0
"""For an heir to say that it is one: a round may be over before that."""


class StartProcess(Protocol):
    """Starts the process of a round with this local rank, with its files in this folder. Raises StartError, OSError."""

    def __call__(self, directive: Directive, order: RunOrder, local_rank: int, folder: Path) -> Process: ...


class Group:
    """Processes that start together and end together.

    It tells its owner three things, by callbacks: `failed` (the first cause, at once, while the others still live),
    `leaving` (a process left with 143 unasked) and `ended` (an outcome; nothing of the round is alive any more).
    """

    def __init__(
        self,
        directive: Directive,
        order: RunOrder,
        *,
        start: StartProcess,
        scratch: Path,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        failed: Callable[[dict[str, Any]], None],
        leaving: Callable[[], None],
        besides: Callable[[], list[int]],
        unheard: Callable[[], bool],
        ended: Callable[[str], None],
    ) -> None:
        """besides: children that are none of the round's. unheard: whether others of those have yet to say who they
        are."""
        self.stopping = False
        self._loop = loop
        self._log = log
        self._failed, self._leaving, self._ended = failed, leaving, ended
        self._besides, self._unheard = besides, unheard
        self._folder: Path | None = None
        self._processes: list[Process] = []
        self._broken: list[Process] = []
        self._failure: dict[str, Any] | None = None
        self._kill_at = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._late: list[asyncio.TimerHandle] = []
        self._hard = False
        self._killed = False
        self._child_ended = asyncio.Event()
        self._finishing: asyncio.Task[None] | None = None
        self._reports: dict[int, dict[str, Any]] = {}
        local_rank = 0
        try:
            # A new one each time: a container that is started again finds the scratch folder as its last life left it.
            self._folder = Path(tempfile.mkdtemp(prefix=f"round-{directive.round}-", dir=str(scratch)))
            for local_rank in range(order.processes):
                self._processes.append(start(directive, order, local_rank, self._folder))
        except StartError as error:
            self._not_started(order.first_rank + local_rank, local_rank, error.reason, error.message)
        except OSError as error:
            message = f"cannot start a process with its files in {scratch}: {error.strerror}"
            self._not_started(order.first_rank + local_rank, local_rank, failure.TRANSIENT, message)

    def progress(self) -> dict[str, Any] | None:
        """The newest values of all its processes."""
        for process in self._processes:
            report = process.channel.progress()
            if report is not None:
                self._reports[process.local_rank] = report
        return progress.merge(list(self._reports.values()))

    @property
    def asks(self) -> bool:
        """Whether any process looks at the stop flag."""
        return any(process.asks for process in self._processes)

    def stop_agreed(self, grace: float, *, asked_elsewhere: bool = False) -> None:
        """Ask all to save and leave together; kill what is left after the grace.

        Where none of the job's processes looks at the flag, SIGTERM is the asking. Where one does, here or elsewhere,
        the others learn of it from that one, and a SIGTERM would end them before they have: it is for those who are
        still there when the grace is nearly over, and could not be reached otherwise. Not for one that looks at the
        flag: it has seen it, and may be saving to the grace's end.
        """
        self.stopping = True
        early = not (asked_elsewhere or self.asks)
        for process in self._processes:
            process.channel.stop()
            if early:
                process.signal(signal.SIGTERM)
        if not early:
            self._late.append(self._loop.call_later(max(grace - LATE_SECONDS, grace / 2), self._signal_late))
        self._kill_within(grace)

    def _signal_late(self) -> None:
        late = [process for process in self._processes if process.alive and not process.asks]
        if late:
            names = ", ".join(f"rank {process.rank}" for process in late)
            self._log(f"still there though asked to stop, now by SIGTERM: {names}")
        for process in late:
            process.signal(signal.SIGTERM)

    def stop_hard(self) -> None:
        """End all: SIGTERM now, SIGKILL soon."""
        self.stopping = self._hard = True
        for process in self._processes:
            process.channel.end()
            process.signal(signal.SIGTERM)
        self._kill_within(HARD_SECONDS)

    def kill(self) -> None:
        """End all now."""
        self.stopping = self._killed = True
        for process in self._processes:
            process.signal(signal.SIGKILL)
        self._child_ended.set()

    def reaped(self, ends: Mapping[int, End]) -> None:
        """Some children of the launcher, not only of this group, have been found ended at this moment."""
        self._child_ended.set()
        ended = [process for process in self._processes if process.alive and process.pid in ends]
        excused = self._hard or any(process.verdict == verdict.STOPPED for process in self._processes)
        verdicts = verdict.judge_together([(ends[process.pid], process.sent) for process in ended], excused=excused)
        for process, found in zip(ended, verdicts):  # noqa: B905  (Python 3.8)
            process.ended(ends[process.pid], found)
            self._note_a_rude_end(process, ends[process.pid])
        self._broken += [process for process in ended if process.verdict == verdict.BROKEN]
        left = any(process.verdict == verdict.LEFT for process in ended)
        alive = any(process.alive for process in self._processes)
        if self._broken and self._failure is None:
            self._name_the_cause(self._loop.time() + _CAUSE_SECONDS)
        elif left and alive and not self.stopping:
            self.stopping = True
            self._kill_within(LEAVE_SECONDS)
            self._leaving()
        if not alive:
            self._finish()

    def _note_a_rude_end(self, process: Process, end: End) -> None:
        """No failure; but whoever misses a checkpoint finds in the log why there is none."""
        rude = end.exit_code not in (0, verdict.PREEMPTED_CODE)
        # To one that would have left by itself SIGTERM came too early, or nobody of it looked any more.
        rude = rude or (end.signal == signal.SIGTERM and process.channel.attached)
        if rude and process.verdict == verdict.STOPPED and not (self._hard or self._killed):
            how = end.signal_name or f"exit code {end.code}"
            self._log(f"rank {process.rank} was asked to stop, and ended with {how}")

    def _name_the_cause(self, until: float) -> None:
        """Say who failed first; but wait for one that is just ending.

        A process that was killed takes its peers with it, and they can be gone before the kernel is done with it.
        """
        if self._failure is not None:
            return
        exceptions_only = all(process.end is None or process.end.killed_by is None for process in self._broken)
        ending = any(process.alive and linux.dying(process.pid) for process in self._processes)
        if exceptions_only and ending and self._loop.time() < until:
            self._loop.call_later(_LOOK_SECONDS / 10, self._name_the_cause, until)
            return
        process, note = first_cause([(process, process.note()) for process in self._broken])
        self._fail(process.failure(note))

    def _not_started(self, rank: int, local_rank: int, reason: str, message: str) -> None:
        report = failure.report(local_rank=local_rank, rank=rank, reason=reason, message=message, at=time.time())
        # Not from within the constructor: the owner does not know us yet.
        self._loop.call_soon(self._fail, report)
        self._loop.call_soon(self._finish_if_empty)

    def _finish_if_empty(self) -> None:
        if not any(process.alive for process in self._processes):
            self._finish()

    def _fail(self, report: dict[str, Any]) -> None:
        self._failure = report
        self._failed(report)
        self.stop_hard()

    def _kill_within(self, seconds: float) -> None:
        """A deadline only ever comes nearer: an agreed stop may turn into a hard one, never back."""
        at = self._loop.time() + seconds
        if at < self._kill_at:
            self._kill_at = at
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._deadline)

    def _deadline(self) -> None:
        names = ", ".join(f"rank {process.rank}" for process in self._processes if process.alive)
        if names:
            self._log(f"killing what has not ended in time: {names}")
        self.kill()

    def _finish(self) -> None:
        if self._finishing is None:
            self._finishing = self._loop.create_task(self._clear_away())

    async def _clear_away(self) -> None:
        """The processes have ended: see off what they left behind, then say how it went."""
        while not self._killed and any(process.lingers() for process in self._processes):
            await self._next_end()
        started, complained = self._loop.time(), 0.0
        while not self._killed and self._unheard() and self._loop.time() < started + _HEIRS_SECONDS:
            await self._next_end()
        while True:
            leftovers = linux.children(besides=self._besides())
            if not leftovers:
                break
            for pid in leftovers:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            waited = self._loop.time() - started
            if waited > complained + _COMPLAIN_SECONDS:
                complained = waited
                self._log(
                    f"waiting for {len(leftovers)} killed processes to end (in the kernel, on a device or a disk?)"
                )
            await self._next_end()
        for timer in (*self._late, *filter(None, [self._timer])):
            timer.cancel()
        self.progress()
        for process in self._processes:
            process.close()
        if self._folder is not None:
            shutil.rmtree(str(self._folder), ignore_errors=True)
        outcome = verdict.outcome([process.verdict for process in self._processes])
        self._ended(verdict.FAILED if self._failure is not None else outcome)

    async def _next_end(self) -> None:
        """Until another child has ended, or a moment has passed: the end of a grandchild is not told to us."""
        self._child_ended.clear()
        waiter = asyncio.ensure_future(self._child_ended.wait())
        await asyncio.wait({waiter}, timeout=_LOOK_SECONDS)
        waiter.cancel()
