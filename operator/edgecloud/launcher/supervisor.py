"""What the launcher does: on a directive, on a signal, on the end of its processes. In one thread, never waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecloud.launcher import failure, linux, machine, verdict
from edgecloud.launcher.config import Config
from edgecloud.launcher.environment import Worker
from edgecloud.launcher.group import Group
from edgecloud.launcher.log import Log
from edgecloud.launcher.messages import Directive, RunOrder
from edgecloud.launcher.process import Process
from edgecloud.launcher.sinks import Sink
from edgecloud.launcher.standby import Reserve
from edgecloud.launcher.standing import OUTCOMES, RUNNING, Standing
from edgecloud.launcher.talk import Talk

DRAIN_SECONDS = 5.0
"""After a SIGTERM, how long to wait for the coordinator to have all workers stop together."""
LAST_WORDS_SECONDS = 1.0
PARENT_DIED_CODE = 137


class Supervisor:
    """All that changes the launcher's standing.

    Args:
        config: who this worker is.
        command: what to run, once for each local rank.
        environment: the launcher's own environment, which the processes inherit.
        worker: what the environment of the processes is made of besides.
        scratch: folder for the files that a process and the launcher share.
        sink: where the processes' output goes.
        log: where the launcher's lines go.
    """

    def __init__(
        self,
        config: Config,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        worker: Worker,
        scratch: Path,
        sink: Sink,
        log: Log,
    ) -> None:
        self._config = config
        self._command = list(command)
        self._environment = environment
        self._worker = worker
        self._scratch = scratch
        self._sink = sink
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._standing = Standing(
            job_uid=config.job_uid,
            pod_uid=config.pod_uid,
            address=config.address,
            node=config.node,
            next_port=machine.free_port(config.address),
        )
        self._reserve = Reserve(
            command, count=config.standby, base=environment, worker=worker, loop=self._loop, sink=sink, log=log
        )
        self._group: Group | None = None
        self._pending: Directive | None = None
        self._to_idle = False
        """The round is over by a `wait`: stopped, but not preempted."""
        self._exit: int | None = None
        self._outcome_at = 0.0
        self._finished: asyncio.Future[int] = self._loop.create_future()
        self._talk = Talk(config, message=self._poll, progress=self._progress, take=self.take, log=log)

    async def work(self) -> int:
        """Talk and act until it is time to exit; returns the exit code. The termination message is written then."""
        tasks = [asyncio.ensure_future(work) for work in (self._talk.listen(), self._talk.report(), self._watch())]
        self._reserve.fill()
        code = await self._finished
        self._reserve.close()
        for task in tasks:
            task.cancel()
        if code != PARENT_DIED_CODE or not self._config.parent_death:
            await self._talk.last_words(LAST_WORDS_SECONDS)
        self.write_termination(code)
        await self._sink.drained(LAST_WORDS_SECONDS)
        return code

    def write_termination(self, code: int) -> None:
        path = self._config.termination_file
        if path is not None:
            try:
                path.write_bytes(self._standing.termination(code))
            except OSError as error:
                self._log(f"cannot write the last message to {path}: {error.strerror}")

    def _poll(self, hold: float) -> dict[str, Any]:
        self._progress()
        return self._standing.poll(hold)

    def _progress(self) -> object:
        if self._group is not None:
            self._standing.progress = self._group.progress()
            self._standing.asks = self._group.asks
        return self._standing.progress, self._standing.asks

    # Directives

    def take(self, directive: Directive) -> bool:
        """Take up a directive; false if there is nothing new in it.

        Two conversations may overtake each other, so an answer can be an old one. Rounds only rise, so one that speaks
        of a round before ours is old.
        """
        ack = self._standing.ack
        repeated = ack is not None and (ack.action, ack.round) == (directive.action, directive.round)
        if repeated or self._exit is not None:
            return False
        newest = self._standing.round if self._pending is None else self._pending.round
        if directive.action == "run" and directive.round == newest and not self._standing.draining:
            self._standing.ack = directive  # said again, by a coordinator that has thought better of a stop or is new
            return False
        if directive.action == "run" and directive.run is None:
            return False  # of a coordinator that does not know yet where the round meets
        if directive.action == "run" and (directive.round <= newest or self._standing.draining):
            return False
        if directive.action in ("wait", "stop") and directive.round < newest:
            return False
        self._standing.ack = directive
        why = f": {directive.reason}" if directive.reason else ""
        self._log(f"told to {directive.action} (round {directive.round}){why}")
        {"wait": self._wait, "run": self._run, "stop": self._stop, "exit": self._leave}[directive.action](directive)
        self._talk.changed()
        return True

    def _wait(self, directive: Directive) -> None:
        self._pending = None
        if self._group is not None:
            self._to_idle = True
            self._standing.stopping()
            self._group.stop_hard()

    def _run(self, directive: Directive) -> None:
        self._pending = directive
        if self._group is None:
            self._start()
        else:
            self._standing.stopping()
            self._group.stop_hard()

    def _stop(self, directive: Directive) -> None:
        self._pending = None
        if self._group is not None:
            self._standing.stopping()
            self._group.stop_agreed(directive.grace_seconds, asked_elsewhere=directive.asked is True)

    def _leave(self, directive: Directive) -> None:
        self._pending = None
        self._exit, self._standing.farewell = directive.exit_code, directive.reason
        if self._group is None:
            self._finish(directive.exit_code)
        else:
            self._standing.stopping()
            self._group.stop_hard()

    # Rounds

    def _start(self) -> None:
        directive, self._pending = self._pending, None
        assert directive is not None and directive.run is not None
        order = directive.run
        self._standing.begin(directive)
        self._to_idle = False
        port = self._standing.port
        taken = port is not None and machine.port_taken(self._config.address, port)
        self._new_port()
        last = order.first_rank + order.processes - 1
        ranks = f"rank {last}" if order.processes == 1 else f"ranks {order.first_rank} to {last}"
        where = f"{order.master_address}:{order.master_port}"
        self._log(f"round {directive.round}: {ranks} of {order.world_size}, meeting at {where}")
        if taken:
            message = f"port {port} on {self._config.address} has been taken meanwhile"
            self._failed(
                failure.report(
                    local_rank=0, rank=order.first_rank, reason=failure.PORT_TAKEN, message=message, at=time.time()
                )
            )
            self._ended(verdict.FAILED)
            return
        self._standing.state = RUNNING
        self._group = Group(
            directive,
            order,
            start=self._start_process,
            scratch=self._scratch,
            loop=self._loop,
            log=self._log,
            failed=self._failed,
            leaving=self._left,
            besides=self._reserve.pids,
            unheard=self._reserve.unheard,
            ended=self._ended,
        )

    def _start_process(self, directive: Directive, order: RunOrder, local_rank: int, folder: Path) -> Process:
        return Process(
            self._command,
            loop=self._loop,
            sink=self._sink,
            base=self._environment,
            worker=self._worker,
            round=directive.round,
            order=order,
            local_rank=local_rank,
            folder=folder,
            standby=self._reserve.take(local_rank),
        )

    def _new_port(self) -> None:
        try:
            self._standing.next_port = machine.free_port(self._config.address)
        except OSError as error:
            self._log(f"no free port on {self._config.address}: {error.strerror}")

    def _failed(self, report: dict[str, Any]) -> None:
        self._standing.state = verdict.FAILED
        self._standing.failure = report
        ended = f"exit code {report['exitCode']}" if "exitCode" in report else report.get("signal", "not started")
        self._log(f"round {self._standing.round}: rank {report['rank']} failed ({ended}): {report['reason']}")
        self._talk.changed()

    def _left(self) -> None:
        self._log(f"round {self._standing.round}: a process left after a checkpoint; waiting for the others")
        self._standing.stopping()
        self._talk.changed()

    def _ended(self, outcome: str) -> None:
        self._progress()
        self._group = None
        self._standing.state = verdict.IDLE if self._to_idle and outcome == verdict.PREEMPTED else outcome
        self._outcome_at = time.monotonic()
        self._log(f"round {self._standing.round}: {self._standing.state}")
        if self._exit is not None:
            self._finish(self._exit)
        elif self._standing.draining:
            self._finish(self._standing.drained_code())
        elif self._pending is not None:
            self._start()
        self._talk.changed()

    # Signals

    def child_ended(self) -> None:
        """SIGCHLD."""
        ends = linux.reap()
        self._reserve.reaped(ends)
        if self._group is not None:
            self._group.reaped(ends)

    def terminate(self) -> None:
        """SIGTERM or SIGINT: leave, in agreement with the other workers if that can be had; a second one: leave now."""
        if self._standing.draining:
            self._log("asked to end a second time: killing the processes")
            if self._group is not None:
                self._group.kill()
            return
        self._log("asked to end")
        self._standing.draining = True
        self._pending = None
        self._talk.changed()
        if self._group is None:
            self._finish(self._standing.drained_code())
        else:
            self._loop.call_later(DRAIN_SECONDS, self._drain)

    def parent_died(self) -> None:
        """End everything at once."""
        self._log("the parent has died: killing everything")
        self._exit, self._standing.farewell = PARENT_DIED_CODE, "the launcher's parent died"
        self._pending = None
        if self._group is None:
            self._finish(PARENT_DIED_CODE)
        else:
            self._group.kill()

    def _drain(self) -> None:
        if self._group is not None and not self._group.stopping:
            self._log("no word to stop from the coordinator: stopping alone")
            self._standing.stopping()
            self._group.stop_agreed(self._config.stop_grace_seconds)
            self._talk.changed()

    async def _watch(self) -> None:
        """Do not wait for ever for a coordinator that is gone when there is nothing left to do here.

        A worker that has not begun waits for one that is away, but not for one that says that the worker is nobody's:
        its job was deleted, and its Pod left behind.
        """
        while True:
            limit, disowned = self._config.orphan_seconds, self._talk.disowned
            over = self._standing.state in OUTCOMES
            waited = time.monotonic() - max(self._talk.heard, self._outcome_at)
            if not over:
                waited = disowned[1] - disowned[0] if disowned else 0.0
            left = limit - waited
            if self._group is None and left <= 0:
                what = "after the end" if over else "but that this worker is nobody's"
                self._log(f"no word from the coordinator for {limit:g} s {what}: leaving")
                self._standing.farewell = "the coordinator could not be reached"
                self._finish(self._standing.orphan_code())
                return
            await asyncio.sleep(min(max(left, 0.05), 1.0))

    def _finish(self, code: int) -> None:
        if not self._finished.done():
            self._finished.set_result(code)
