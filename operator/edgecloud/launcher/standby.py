"""Processes that have everything ready but their part in a round, so that a restart does not pay for the imports.

The command is started with `--standby` behind it, and waits for one line of JSON on its standard input: the environment
of its round. It is of use as soon as it is started: one that is still importing is ahead of one that is not there.

With the line come two descriptors (standard input is a socket): before it changes anything, the process may fork an
heir, which takes them for its standard input and output, becomes a child of ours, writes {"pid": N} into its standard
input and waits as its parent did. An heir costs no start, and shares its parent's memory. Where there comes none (the
process does not know of it, or holds a GPU, which no fork survives), the next one is started the long way.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence

from edgecloud.launcher import linux
from edgecloud.launcher.environment import Worker, standing_environment
from edgecloud.launcher.log import Log
from edgecloud.launcher.output import Output
from edgecloud.launcher.sinks import Sink
from edgecloud.launcher.verdict import End

FLAG = "--standby"
DELAY_SECONDS = 15.0
"""The next one is not started while a round is: it would take the processor from those who need it. Nor is it for a
training that is over in seconds."""
_WORD_BYTES = 64
"""More than an heir has to say."""


class Standby:
    """One waiting process, or one that is about to be.

    Args:
        environment: what it finds in its environment.
        heir: makes the one that shall wait after it.

    Raises:
        OSError: from the constructor: no descriptors left.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        heir: Callable[[], Standby | None],
        loop: asyncio.AbstractEventLoop,
        sink: Sink,
    ) -> None:
        self.pid = 0
        """0 until it is known."""
        self.output = Output(loop, sink)
        self._environment = environment
        self._heir = heir
        self._popen: subprocess.Popen[bytes] | None = None
        try:
            self.ours, self._theirs = socket.socketpair()
        except OSError:
            self.output.close()
            raise

    def start(self, command: Sequence[str]) -> None:
        """Start it as a new process.

        Raises:
            OSError, ValueError: it cannot be started; it is closed then.
        """
        try:
            self._popen = subprocess.Popen(
                [*command, FLAG],
                stdin=self._theirs.fileno(),
                stdout=self.output.writer,
                stderr=self.output.writer,
                env=dict(self._environment),
                start_new_session=True,
                preexec_fn=linux.bound_to(os.getpid()),  # noqa: PLW1509  (it takes no lock, and makes system calls only)
            )
        except (OSError, ValueError):
            self.close()
            raise
        self.pid = self._popen.pid
        self._given()

    def take_part(self, environment: Mapping[str, str]) -> bool:
        """Give it its round's environment; false if it is not there to take it."""
        if linux.dying(self.pid):
            return False
        differing = {name: value for name, value in environment.items() if self._environment.get(name) != value}
        heir = self._heir()
        ends = array.array("i", [] if heir is None else [heir._theirs.fileno(), heir.output.writer])
        try:
            # A socket holds far more than this line: nobody waits.
            line = json.dumps(differing).encode() + b"\n"
            sent = self.ours.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)] if ends else [])
            self.ours.sendall(line[sent:])
        except OSError:
            return False
        finally:
            if heir is not None:
                heir._given()
            self.ours.close()
        return True

    def hear(self) -> bool:
        """Read what an heir says of itself; false if it says nothing that can be: there is none."""
        try:
            word = json.loads(self.ours.recv(_WORD_BYTES))
            pid = word["pid"]
        except (OSError, ValueError, TypeError, KeyError):
            return False
        # Signals go to it: what is not our child is none of our business.
        if not isinstance(pid, int) or not linux.is_child(pid):
            return False
        self.pid = pid
        return True

    def ended(self, end: End) -> None:
        """It has been reaped, by us and not by Popen, which would otherwise wait for it some day."""
        if self._popen is not None:
            self._popen.returncode = end.exit_code

    def dismiss(self) -> None:
        """It is not needed, or has ended."""
        if self.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, 9)
        self.close()

    def close(self) -> None:
        """Let go of it."""
        self.ours.close()
        self._given()
        self.output.close()

    def _given(self) -> None:
        """The process has its ends; ours of them are in the way of seeing it go."""
        self._theirs.close()
        self.output.started()


class Reserve:
    """The waiting processes of a worker, one for each local rank.

    A slot belongs to its local rank: what waits there may hold that rank's GPU already.

    Args:
        command: as for the processes of a round.
        count: how many to keep.
        base, worker: what their environment is made of.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        count: int,
        base: Mapping[str, str],
        worker: Worker,
        loop: asyncio.AbstractEventLoop,
        sink: Sink,
        log: Log,
    ) -> None:
        self._command = command
        self._standing = standing_environment(base, worker=worker, processes=count)
        self._count = count
        self._loop = loop
        self._sink = sink
        self._log = log
        self._waiting: dict[int, Standby] = {}
        self._expected: list[Standby] = []
        """Heirs that have not said yet that they are there."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def fill(self) -> None:
        """Start as many as are missing."""
        self._timer = None
        for local_rank in range(self._count):
            if local_rank not in self._waiting and not self._closed:
                started = self._start(local_rank)
                if started is None:
                    return
                self._waiting[local_rank] = started

    def take(self, local_rank: int) -> Standby | None:
        """One of this local rank for a round: the one that waits, or a new one, which can have an heir at least."""
        standby = self._waiting.pop(local_rank, None)
        if standby is not None and linux.dying(standby.pid):
            standby.dismiss()
            standby = None
        return standby if standby is not None or local_rank >= self._count else self._start(local_rank)

    def pids(self) -> list[int]:
        """Children of the launcher that belong to no round."""
        return [standby.pid for standby in self._waiting.values()]

    def unheard(self) -> bool:
        """Whether there may be others, which have not said yet who they are."""
        return bool(self._expected)

    def reaped(self, ends: Mapping[int, End]) -> None:
        """One that ended by itself is not started again before the next round: it would end again."""
        for local_rank, standby in [slot for slot in self._waiting.items() if slot[1].pid in ends]:
            del self._waiting[local_rank]
            standby.ended(ends[standby.pid])
            standby.output.drain()
            standby.dismiss()

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for heir in self._expected:
            self._loop.remove_reader(heir.ours)
            heir.close()  # it finds nobody at the other end, and ends
        for standby in self._waiting.values():
            standby.dismiss()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(standby.pid, 0)  # killed, and so not for long: nothing of ours outlives us
        self._waiting.clear()
        self._expected.clear()

    def _start(self, local_rank: int) -> Standby | None:
        try:
            standby = self._new(local_rank)
            standby.start(self._command)
        except (OSError, ValueError) as error:
            self._log(f"no standby: {error}")
            return None
        return standby

    def _new(self, local_rank: int) -> Standby:
        place = {"LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(self._count)}
        return Standby(
            {**self._standing, **place}, heir=lambda: self._expect(local_rank), loop=self._loop, sink=self._sink
        )

    def _expect(self, local_rank: int) -> Standby | None:
        if self._closed:
            return None
        try:
            heir = self._new(local_rank)
        except OSError as error:
            self._log(f"no standby: {error}")
            return None
        self._expected.append(heir)
        self._loop.add_reader(heir.ours, self._heard, local_rank, heir)
        return heir

    def _heard(self, local_rank: int, heir: Standby) -> None:
        self._loop.remove_reader(heir.ours)
        self._expected.remove(heir)
        if not heir.hear():
            heir.close()
            self._fill_later()
        elif local_rank in self._waiting:
            heir.dismiss()
        else:
            self._waiting[local_rank] = heir

    def _fill_later(self) -> None:
        """Start what is missing once the round is under way."""
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(DELAY_SECONDS, self.fill)
