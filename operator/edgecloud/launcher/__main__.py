"""The command line: `python -m edgecloud.launcher -- COMMAND ARGS...`, or the same as a zipapp."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from edgecloud.launcher import archive, config, linux, machine
from edgecloud.launcher.channel import pid_namespace
from edgecloud.launcher.environment import Worker
from edgecloud.launcher.log import Log, to_stderr
from edgecloud.launcher.sinks import LogFile, Sink, Stream
from edgecloud.launcher.supervisor import Supervisor

USAGE = """\
usage: python -m edgecloud.launcher -- COMMAND [ARGS...]

The first process of an EdgeCloud worker. It asks the job's coordinator for its part in a round, starts COMMAND once for
each local rank with torchrun's environment (RANK, WORLD_SIZE, MASTER_ADDR, ...), reports how it goes, and stops,
restarts or ends the processes as it is told. While the coordinator is away the training goes on.

Nobody needs to call it by hand: the operator puts it into every worker Pod, and `edgecloud run` starts one per worker.

exit codes:
  as the coordinator says; otherwise 0 done, 1 the program failed, 2 bad configuration, 75 may succeed if tried again,
  128 + N ended by signal N, 143 stopped on request (SIGTERM), to go on from a checkpoint

signals:
  SIGTERM, SIGINT   stop in agreement with the other workers, then exit with 143; a second one kills the processes

environment:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the launcher; returns its exit code."""
    first_parent = os.getppid()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-h"], ["--help"]):
        sys.stdout.write(USAGE + config.HELP)
        return 0
    command = given[1:] if given[:1] == ["--"] else given
    if not command:
        to_stderr("there is no command to run: python -m edgecloud.launcher -- COMMAND [ARGS...]  (--help says more)")
        return 2
    if given[:1] != ["--"] and command[0].startswith("-"):
        to_stderr(f"unknown option {command[0]}; the command comes after --")
        return 2
    try:
        settings = config.read(os.environ)
    except config.ConfigError as error:
        to_stderr(str(error))
        return 2
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(_launch(settings, command, first_parent))


async def _launch(settings: config.Config, command: Sequence[str], first_parent: int) -> int:
    loop = asyncio.get_running_loop()
    try:
        file = LogFile(settings.log_file, settings.log_max_bytes) if settings.log_file is not None else None
    except OSError as error:
        to_stderr(f"EDGECLOUD_LOG_FILE: cannot write {settings.log_file}: {error.strerror}")
        return 2
    sink: Sink = file if file is not None else Stream(loop, 1)
    log = Log(file)
    loop.set_exception_handler(
        lambda _, context: log(f"internal error: {context.get('exception') or context['message']}")
    )
    scratch = settings.scratch if settings.scratch is not None else Path(tempfile.mkdtemp(prefix="edgecloud-"))
    worker = Worker(
        job_uid=settings.job_uid,
        max_restarts=settings.max_restarts,
        archive=archive.running(),
        interface=machine.interface_of(settings.address),
        cpus=machine.usable_cpus(),
        pid_namespace=pid_namespace(),
    )
    supervisor = Supervisor(
        settings, command, environment=dict(os.environ), worker=worker, scratch=scratch, sink=sink, log=log
    )
    linux.become_subreaper()
    loop.add_signal_handler(signal.SIGCHLD, supervisor.child_ended)
    loop.add_signal_handler(signal.SIGTERM, supervisor.terminate)
    loop.add_signal_handler(signal.SIGINT, supervisor.terminate)
    if settings.parent_death:
        loop.add_signal_handler(signal.SIGUSR1, supervisor.parent_died)
        linux.end_with_parent(signal.SIGUSR1)
        if linux.parent_gone(settings.parent_pid, first_parent):
            supervisor.parent_died()
    try:
        return await supervisor.work()
    except Exception:
        log(f"internal error: {traceback.format_exc()}")
        supervisor.write_termination(1)
        return 1
    finally:
        if settings.scratch is None:
            shutil.rmtree(str(scratch), ignore_errors=True)


def leave(code: int) -> None:
    """End at once: a name look-up that hangs in a thread must not keep a Pod from ending."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
