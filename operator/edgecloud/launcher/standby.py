"""A process that has everything ready but its part in a round, so that a restart does not pay for the imports.

The command is started with `--standby` behind it, and waits for one line of JSON on its standard input: the environment
of its round. It is of use as soon as it is started: one that is still importing is ahead of one that is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
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


class Standby:
    """One waiting process.

    Raises:
        OSError, ValueError: from the constructor: it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, loop: asyncio.AbstractEventLoop, sink: Sink
    ) -> None:
        self.output = Output(loop, sink)
        try:
            self.popen = subprocess.Popen(
                [*command, FLAG],
                stdin=subprocess.PIPE,
                stdout=self.output.writer,
                stderr=self.output.writer,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=linux.bound_to(os.getpid()),  # noqa: PLW1509  (it takes no lock, and makes system calls only)
            )
        except (OSError, ValueError):
            self.output.close()
            raise
        self.output.started()
        self._environment = environment

    @property
    def pid(self) -> int:
        return self.popen.pid

    def take_part(self, environment: Mapping[str, str]) -> bool:
        """Give it its round's environment; false if it is not there to take it."""
        if linux.dying(self.pid):
            return False
        differing = {name: value for name, value in environment.items() if self._environment.get(name) != value}
        stream = self.popen.stdin
        assert stream is not None
        try:
            # A pipe holds far more than this line: nobody waits.
            stream.write(json.dumps(differing).encode() + b"\n")
            stream.close()
        except OSError:
            return False
        return True

    def dismiss(self) -> None:
        """It is not needed, or has ended."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, 9)
        stream = self.popen.stdin
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
        self.output.close()


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
        standing = standing_environment(base, worker=worker, processes=count)

        def start(local_rank: int) -> Standby:
            place = {"LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(count)}
            return Standby(command, standing | place, loop=loop, sink=sink)

        self._start_one: Callable[[int], Standby] = start
        self._count = count
        self._loop = loop
        self._log = log
        self._waiting: dict[int, Standby] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def fill(self) -> None:
        """Start as many as are missing."""
        self._timer = None
        try:
            for local_rank in range(self._count):
                if local_rank not in self._waiting and not self._closed:
                    self._waiting[local_rank] = self._start_one(local_rank)
        except (OSError, ValueError) as error:
            self._log(f"no standby: {error}")

    def fill_later(self) -> None:
        """Start what is missing once the round is under way."""
        if self._count and self._timer is None and not self._closed:
            self._timer = self._loop.call_later(DELAY_SECONDS, self.fill)

    def take(self, local_rank: int) -> Standby | None:
        """The one of this local rank for a round, if there is one."""
        return self._waiting.pop(local_rank, None)

    def pids(self) -> list[int]:
        """Children of the launcher that belong to no round."""
        return [standby.pid for standby in self._waiting.values()]

    def reaped(self, ends: Mapping[int, End]) -> None:
        """One that ended by itself is not started again before the next round: it would end again."""
        for local_rank, standby in [slot for slot in self._waiting.items() if slot[1].pid in ends]:
            del self._waiting[local_rank]
            standby.popen.returncode = ends[standby.pid].exit_code
            standby.output.drain()
            standby.dismiss()

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for standby in self._waiting.values():
            standby.dismiss()
            standby.popen.wait()  # killed, and so not for long: nothing of ours outlives us
        self._waiting.clear()
