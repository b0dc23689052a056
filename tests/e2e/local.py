"""`edgecloud run` from outside: started as a person would, watched through its folder and the process table."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import TrainingJobStatus

ROOT = Path(__file__).parents[2]
EDGECLOUD = Path(sys.executable).with_name("edgecloud")
PROGRAMS = ROOT / "tests" / "faults" / "programs"
DEADLINE = 60.0

T = TypeVar("T")


def wait_for(
    what: str,
    look: Callable[[], T | None],
    *,
    within: float = DEADLINE,
    seen: Callable[[], object] | None = None,
    every: float = 0.02,
) -> T:
    """Look until there is something to see; a failure says what was seen instead.

    every: seconds between two looks, to be more where a look takes a good part of a processor from what it waits for.
    """
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within:.0f} s; seen: {seen() if seen else found!r}")
        time.sleep(every)


def job_dict(name: str, command: list[str], *, workers: int = 2, **spec: Any) -> dict[str, Any]:
    """A job that runs a program of tests/faults/programs."""
    return {
        "apiVersion": "edgecloud.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {"workers": workers, "program": {"command": command}, **spec},
    }


def program(name: str, *args: object) -> list[str]:
    return ["python", str(PROGRAMS / f"{name}.py"), *map(str, args)]


@dataclass
class Run:
    """A running `edgecloud run`."""

    process: subprocess.Popen[str]
    folder: Path
    everything: dict[int, psutil.Process] = field(default_factory=dict)
    """Every process ever seen below it."""
    read: tuple[tuple[int, ...], TrainingJob] | None = None
    """The job that was read last, and of which file."""

    def job(self) -> TrainingJob | None:
        """As it stands in the folder. It is replaced as a whole, and looked at far more often than that."""
        try:
            with (self.folder / "job.yaml").open() as file:
                about = os.fstat(file.fileno())
                which = about.st_ino, about.st_mtime_ns, about.st_size
                if self.read is None or self.read[0] != which:
                    self.read = which, TrainingJob.parse(yaml.load(file.read(), yaml.CSafeLoader))
        except FileNotFoundError:
            return None
        return self.read[1]

    @property
    def status(self) -> TrainingJobStatus:
        job = self.job()
        return (job.status if job else None) or TrainingJobStatus()

    def trace(self) -> list[dict[str, Any]]:
        """The steps that counts.py did."""
        file = self.folder / "checkpoints" / "counts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_steps(self, count: int, *, round: int = 0, ranks: int = 2) -> None:
        """Wait until each rank has done so many steps, in that round or later."""

        def look() -> bool:
            done: dict[int, int] = {}
            for line in self.trace():
                if line["round"] >= round:
                    done[line["rank"]] = done.get(line["rank"], 0) + 1
            return len(done) >= ranks and min(done.values()) >= count

        wait_for(f"{count} steps on {ranks} ranks in round {round}", look, seen=lambda: (self.status, self.output()))

    def wait_phase(self, phase: str) -> TrainingJobStatus:
        return wait_for(
            f"phase {phase}", lambda: self.status if self.status.phase == phase else None, seen=lambda: self.status
        )

    def wait_for_text(self, text: str) -> None:
        """Wait until it was printed to standard error."""
        wait_for(f"the words {text!r}", lambda: text in self.stderr(), seen=self.output)

    def below(self) -> list[psutil.Process]:
        """Processes that the run has started, and theirs."""
        found = []
        for pid in descendants(self.process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        self.everything.update({process.pid: process for process in found})
        return found

    def launcher(self, index: int) -> psutil.Process:
        def fits(process: psutil.Process) -> bool:
            ours = process.environ().get("EDGECLOUD_WORKER_INDEX") == str(index)
            return ours and "edgecloud.launcher" in process.cmdline()

        return self._find(fits, f"launcher {index}")

    def rank(self, rank: int, *, round: int = 0) -> psutil.Process:
        """The training process of a rank, in that round or later."""

        def fits(process: psutil.Process) -> bool:
            # A standby was started before it had a rank; it shows it as its name.
            environment = process.environ()
            started = environment.get("RANK") == str(rank) and int(environment.get("EDGECLOUD_ROUND", 0)) >= round
            return started or process.name() == f"rank-{rank}"

        return self._find(fits, f"rank {rank}")

    def _find(self, fits: Callable[[psutil.Process], bool], what: str) -> psutil.Process:
        def look() -> psutil.Process | None:
            for process in self.below():
                try:
                    if fits(process) and process.status() != psutil.STATUS_ZOMBIE:
                        return process
                except psutil.Error:
                    continue
            return None

        return wait_for(what, look, seen=lambda: [process.as_dict(["pid", "cmdline"]) for process in self.below()])

    def end(self, within: float = DEADLINE) -> int:
        """Wait for the end; its exit code."""
        deadline = time.monotonic() + within
        while self.process.poll() is None:
            self.below()
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after {within:.0f} s: {self.status} {self.output()}")
            time.sleep(0.05)
        return self.process.returncode

    def output(self) -> str:
        """What was printed so far."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-3000:]}"
            for path in (self.folder.with_suffix(".out"), self.folder.with_suffix(".err"))
        )

    def stdout(self) -> str:
        return self.folder.with_suffix(".out").read_text()

    def stderr(self) -> str:
        return self.folder.with_suffix(".err").read_text()

    def left(self) -> list[psutil.Process]:
        """Processes of the run that are still there; given a moment, for the kernel ends them one after the other."""
        for process in psutil.process_iter():
            try:
                if str(self.folder) in " ".join(process.environ().values()) and process.pid != os.getpid():
                    self.everything[process.pid] = process
            except psutil.Error:
                continue
        _, alive = psutil.wait_procs(list(self.everything.values()), timeout=10)
        return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def descendants(pid: int) -> Iterator[int]:
    """Processes below that one. psutil would look at all of the machine's, and a run is looked at all the time."""
    children: list[str] = []
    with contextlib.suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread has
                children += (task / "children").read_text().split()
    for child in map(int, children):
        yield child
        yield from descendants(child)


@contextmanager
def run(
    folder: Path,
    job: dict[str, Any] | Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
    unread: bool = False,
) -> Iterator[Run]:
    """Start `edgecloud run` on a job; at the end nothing of it may be left, or the test fails.

    under: a command that becomes it. unread: what it prints goes into a pipe that nobody reads.
    """
    file = job if isinstance(job, Path) else folder.with_suffix(".yaml")
    if not isinstance(job, Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(job))
    command = [*under, str(EDGECLOUD), "run", str(file), "--workdir", str(folder), *options]
    with folder.with_suffix(".out").open("w") as out, folder.with_suffix(".err").open("w") as err:
        if unread:
            for stream in (out, err):
                reader, writer = os.pipe()
                os.dup2(writer, stream.fileno())
                os.close(writer)
                os.close(reader)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, start_new_session=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    running = Run(process=process, folder=folder)
    try:
        yield running
    finally:
        running.below()
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        left = running.left()
        for stray in left:
            stray.kill()
        assert not left, f"left running: {left}"
