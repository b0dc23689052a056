"""A job's Pods played by processes: started, watched, ended, and shown as Pods."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import platform
import secrets
import shutil
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edgecloud.api.job import TrainingJob
from edgecloud.launcher import failure, linux
from edgecloud.protocol import MAX_MESSAGE, FailureReport
from edgecloud_operator.coordinator.admission import Identity
from edgecloud_operator.core.environment import Layout, launcher_environment, program_command
from edgecloud_operator.core.measurer import FOLDER, PROGRAM, measuring_environment
from edgecloud_operator.core.names import measurer_name, worker_name
from edgecloud_operator.core.observed import Pod, Role, Termination
from edgecloud_operator.core.termination import MAX_BYTES, parse_termination
from edgecloud_operator.local.gpus import VARIABLE, share_of, visible_gpus
from edgecloud_operator.local.starting import FINAL, launcher_command, why_not
from edgecloud_operator.local.workdir import Workdir

log = logging.getLogger(__name__)

ADDRESS: Final = "127.0.0.1"
KILL_SECONDS: Final = 10.0
"""What a launcher needs at most to end everything below it once it was told to."""
MAX_TERMINATION_BYTES: Final = MAX_BYTES
TERMINATION: Final = "termination"
"""The file that a process leaves its last message in."""
STDERR: Final = "stderr"
"""The file for what a launcher, or its Python, says while it has no log. Afterwards it says everything there."""
MAX_WORDS: Final = 1500
"""Characters of that in a failure's message."""
_FOR_US: Final = ("EDGECLOUD_LATENCY_SECONDS",)
"""Whoever starts us may say these; an outer run doesn't set them."""


@dataclass
class _Worker:
    pod: Pod
    process: asyncio.subprocess.Process | None
    """None if it could not be started at all."""
    home: Path
    token_digest: str = ""
    """Of a launcher; what measures has nobody to talk to."""
    watcher: asyncio.Task[None] | None = None
    remover: asyncio.Task[None] | None = None


class Workers:
    """The processes of one job: launchers, and in the end one that measures."""

    def __init__(self, workdir: Workdir, scratch: Path, coordinator: str, on_pod: Callable[[Pod, bool], None]) -> None:
        """on_pod: told of each change of a Pod; its second argument is False when the Pod is gone."""
        self._workdir = workdir
        self._scratch = scratch
        self._coordinator = coordinator
        self._on_pod = on_pod
        self._workers: dict[str, _Worker] = {}
        self._identities: dict[str, Identity] = {}
        self._strangers = frozenset(linux.children())
        """Children that this process had before: not ours to end."""
        self._starting = asyncio.Lock()
        """Held between a launcher's first moment and its place in the list: a sweep would take it for a stray."""

    def pods(self) -> tuple[Pod, ...]:
        return tuple(worker.pod for worker in self._workers.values())

    async def authenticate(self, token: str) -> Identity | None:
        """Whom a token stands for. Looked up by digest: the time that takes says nothing of the token."""
        return self._identities.get(_digest(token))

    async def start(self, job: TrainingJob, index: int) -> None:
        """Start the launcher that plays worker `index`, unless one does."""
        worker = await self._play(
            worker_name(job.metadata.name, index), lambda uid, home: self._spawn_or_fail(job, index, uid, home)
        )
        if worker is None:
            return
        if worker.process is None:
            self._on_pod(worker.pod, True)
            return
        self._identities[worker.token_digest] = Identity(
            namespace=job.metadata.namespace,
            job=job.metadata.name,
            job_uid=job.metadata.uid or "",
            pod_uid=worker.pod.uid,
            index=index,
        )
        self._show(worker)

    async def measure(self, job: TrainingJob) -> None:
        """Start the process that plays the measuring Pod, unless one does."""
        name = measurer_name(job.metadata.name)
        worker = await self._play(name, lambda uid, home: self._spawn_measurer(job, uid, home))
        if worker is not None:
            self._show(worker)

    async def _play(self, name: str, spawn: Callable[[str, Path], Awaitable[_Worker]]) -> _Worker | None:
        """Have a process play the Pod of that name; None if one does."""
        async with self._starting:
            if any(worker.pod.name == name for worker in self._workers.values()):
                return None
            uid = str(uuid.uuid4())
            home = self._scratch / uid
            home.mkdir(mode=0o700)
            try:
                worker = await spawn(uid, home)
            except BaseException:
                shutil.rmtree(home, ignore_errors=True)
                raise
            self._workers[uid] = worker
        return worker

    def _show(self, worker: _Worker) -> None:
        worker.watcher = asyncio.create_task(self._watch(worker))
        self._on_pod(worker.pod, True)

    async def _spawn_measurer(self, job: TrainingJob, uid: str, home: Path) -> _Worker:
        here = {
            "EDGECLOUD_NODE": platform.node()[:253],
            "EDGECLOUD_TERMINATION_LOG": str(home / TERMINATION),
        }
        with self._workdir.measure_log.open("ab") as log_file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *PROGRAM[1:]),
                env=_surroundings() | measuring_environment(job, str(self._workdir.results / FOLDER)) | here,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
                preexec_fn=linux.bound_to(os.getpid()),
            )
        return _Worker(pod=_pod(measurer_name(job.metadata.name), uid, role="measure"), process=process, home=home)

    async def _spawn_or_fail(self, job: TrainingJob, index: int, uid: str, home: Path) -> _Worker:
        """A worker, or one that has failed already: what it was to be started with is not there, and won't be."""
        try:
            return await self._spawn(job, index, uid, home)
        except OSError as error:
            if error.errno not in FINAL:
                raise
            program = job.spec.program
            message = f"worker {index} can't be started: {why_not(error, program.working_dir if program else None)}"
        shutil.rmtree(home, ignore_errors=True)
        at = datetime.now(UTC).timestamp()
        report = FailureReport(
            local_rank=0, rank=0, exit_code=2, reason="BadConfiguration", message=message[:MAX_MESSAGE], at=at
        )
        end = Termination(exit_code=2, outcome="failed", failure=report)
        pod = replace(_pod(worker_name(job.metadata.name, index), uid, index=index), phase="Failed", termination=end)
        return _Worker(pod=pod, process=None, home=home)

    async def _spawn(self, job: TrainingJob, index: int, uid: str, home: Path) -> _Worker:
        token = secrets.token_urlsafe(32)
        token_file = home / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        with (home / STDERR).open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *launcher_command(program_command(job)),
                cwd=self._working_dir(job),
                env=self._environment(job, index, uid, home, token_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for us: the workers are asked to stop in good order
            )
        pod = _pod(worker_name(job.metadata.name, index), uid, index=index)
        return _Worker(pod=pod, process=process, token_digest=_digest(token), home=home)

    def _environment(self, job: TrainingJob, index: int, uid: str, home: Path, token_file: Path) -> dict[str, str]:
        layout = Layout(
            checkpoints=str(self._workdir.checkpoints),
            results=str(self._workdir.results),
            scratch=str(home),
            token_file=str(token_file),
        )
        ours = _surroundings()
        ours.setdefault("OMP_NUM_THREADS", str(self._threads(job, index)))
        if (gpus := share_of(job.spec, index, visible_gpus())) is not None:
            ours[VARIABLE] = gpus
        program = job.spec.program
        theirs = {variable.name: variable.value or "" for variable in (program.env if program else None) or ()}
        return (
            ours
            | theirs
            | launcher_environment(job, index, layout=layout, coordinator=self._coordinator)
            | {
                "EDGECLOUD_POD_UID": uid,
                "EDGECLOUD_ADDRESS": ADDRESS,
                "EDGECLOUD_NODE": platform.node()[:253],
                "EDGECLOUD_LOG_FILE": str(self._workdir.log_file(index)),
                "EDGECLOUD_TERMINATION_FILE": str(home / TERMINATION),
                "EDGECLOUD_PARENT_DEATH": "1",
                "EDGECLOUD_PARENT_PID": str(os.getpid()),
            }
        )

    def _threads(self, job: TrainingJob, index: int) -> int:
        """This machine's processors shared out among all ranks: on one machine the workers are neighbours."""
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ranks = job.spec.rank_count()
        return max(1, processors // max(1, ranks))

    def _working_dir(self, job: TrainingJob) -> str | None:
        program = job.spec.program
        if program is None:
            return None
        if program.working_dir:
            return program.working_dir
        return str(self._workdir.files) if program.files else None

    async def _watch(self, worker: _Worker) -> None:
        """Wait for a process's end, and make sure that nothing of it is left."""
        assert worker.process is not None
        code = await worker.process.wait()
        async with self._starting:
            self._sweep()
        exit_code = code if code >= 0 else 128 - code
        end = read_termination(worker.home / TERMINATION, exit_code, role=worker.pod.role)
        phase, why = "Succeeded" if exit_code == 0 else "Failed", last_words(worker.home / STDERR)
        self._change(worker, phase=phase, termination=end, why=why)
        self._identities.pop(worker.token_digest, None)
        shutil.rmtree(worker.home, ignore_errors=True)

    def _change(self, worker: _Worker, **changes: Any) -> None:
        worker.pod = replace(worker.pod, **changes)
        if worker.pod.uid in self._workers:
            self._on_pod(worker.pod, True)

    def _sweep(self) -> None:
        """A launcher that was killed leaves its daemons to us (we are their subreaper): they go too."""
        known = self._strangers.union(worker.process.pid for worker in self._workers.values() if worker.process)
        for pid in linux.children(besides=known):
            log.warning("ending process %d, which a worker left behind", pid)
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except OSError:
                continue

    def delete(self, uid: str) -> None:
        """Take a Pod away: its process is asked, then made, to end. Returns at once, as an API server would."""
        worker = self._workers.get(uid)
        if worker is not None and not worker.pod.terminating:
            self._change(worker, terminating=True)
            worker.remover = asyncio.create_task(self._remove(worker))

    async def _remove(self, worker: _Worker) -> None:
        if not worker.pod.dead:
            await self._end(worker, signal.SIGTERM)
        self._workers.pop(worker.pod.uid, None)
        self._on_pod(worker.pod, False)

    async def _end(self, worker: _Worker, first: signal.Signals) -> None:
        assert worker.process is not None
        for word in (first, signal.SIGTERM, signal.SIGKILL):
            try:
                worker.process.send_signal(word)
            except ProcessLookupError:
                break
            try:
                async with asyncio.timeout(KILL_SECONDS):
                    await worker.process.wait()
                break
            except TimeoutError:
                continue
        if worker.watcher is not None:
            await worker.watcher

    async def end_all(self) -> None:
        """End every process, and with it everything below it, now."""
        workers = list(self._workers.values())
        await asyncio.gather(*(self._end(worker, signal.SIGUSR1) for worker in workers if not worker.pod.dead))
        await asyncio.gather(*(worker.remover for worker in workers if worker.remover is not None))
        async with self._starting:
            self._sweep()


def _surroundings() -> dict[str, str]:
    """Our own environment, without what an outer run may have set.

    `python` is the one that runs EdgeCloud: where its packages are, the programs find them too.
    """
    ours = {key: value for key, value in os.environ.items() if key in _FOR_US or not key.startswith("EDGECLOUD_")}
    return ours | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), ours.get("PATH", os.defpath)])}


def _pod(name: str, uid: str, *, role: Role = "worker", index: int = 0) -> Pod:
    now, node = datetime.now(UTC), platform.node()
    return Pod(
        name=name, uid=uid, index=index, role=role, phase="Running", created_at=now, running_since=now, node=node
    )


def read_termination(path: Path, exit_code: int, *, role: Role = "worker") -> Termination:
    """What a process wrote before it ended; it may have written nothing, or nonsense."""
    try:
        with path.open("rb") as handle:
            message = handle.read(MAX_TERMINATION_BYTES)
    except OSError:
        message = b""
    if role == "measure":
        return Termination(exit_code=exit_code, message=message.decode("utf-8", "replace"))
    return parse_termination(message, exit_code)


def last_words(path: Path) -> str:
    """The end of what a process that had no log yet wrote; "" if it wrote nothing."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - 4 * MAX_WORDS))
            text = handle.read(4 * MAX_WORDS).decode("utf-8", "replace")
    except OSError:
        return ""
    return failure.last_lines(text)[-MAX_WORDS:]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
