"""How long a training stands still when one of its processes is killed, systems side by side in one run.

    python -m tests.bench.recovery --repeats 5

The script is that of manifests/examples/own-script.yaml, on two ranks of one thread each. Once both ranks have stepped
for a while, the training process of one gets SIGKILL (rank 0 and 1 by turns). The result is the time from then until
every rank has completed a step in a process that had not stepped before. Steps are seen from outside and alike for
every system, see step_trace/sitecustomize.py. The systems take turns, so that a busy machine slows all of them.

torchrun is measured twice. As it is, torch 2.15 keeps one store over all restarts, with the addresses of the round
before in it: new processes often connect to dead ones, and fail or hang. With the opt-out that torch has for this they
get a fresh store each time: that is torchrun at its best, and the one to beat.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
import yaml

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
JOB = ROOT / "manifests" / "examples" / "own-script.yaml"
TRAINER_JOB = ROOT / "manifests" / "examples" / "digits.yaml"
TRACE = "STEP_TRACE"
RANKS = 2
START_SECONDS = 180.0
RECOVERY_SECONDS = 90.0

T = TypeVar("T")

Start = Callable[[Path, Mapping[str, str]], Sequence[subprocess.Popen[bytes]]]
"""Starts a training of RANKS ranks in a folder of its own, with the given environment, and does not wait for it."""


class Step(NamedTuple):
    """One completed optimizer step."""

    at: float
    pid: int
    rank: int


def torchrun(folder: Path, env: Mapping[str, str]) -> Sequence[subprocess.Popen[bytes]]:
    """Two elastic agents on this machine, as on two nodes; their rendezvous store lives in one of them."""
    script = yaml.safe_load(JOB.read_text())["spec"]["program"]["files"]["train.py"]
    (folder / "train.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={RANKS}", "--nproc-per-node=1"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1"]
    command += ["--max-restarts=3", "train.py"]
    return [_popen(command, folder, env, f"agent-{number}") for number in range(RANKS)]


def torchrun_fresh_store(folder: Path, env: Mapping[str, str]) -> Sequence[subprocess.Popen[bytes]]:
    """The same, with a new store for each round."""
    return torchrun(folder, {**env, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"})


def edgecloud(folder: Path, env: Mapping[str, str]) -> Sequence[subprocess.Popen[bytes]]:
    """The same script as a TrainingJob of two workers."""
    return [_edgecloud(JOB, folder, env)]


def edgecloud_trainer(folder: Path, env: Mapping[str, str]) -> Sequence[subprocess.Popen[bytes]]:
    """The built-in trainer on the same images, for which the launchers keep a process ready."""
    job = yaml.safe_load(TRAINER_JOB.read_text())
    job["spec"]["trainer"]["epochs"] = 1000
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return [_edgecloud(folder / "job.yaml", folder, env)]


def _edgecloud(job: Path, folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edgecloud.cli.main", "run", str(job), "--workdir", str(folder / "work")]
    return _popen(command, folder, env, "edgecloud")


SYSTEMS: dict[str, Start] = {
    "torchrun": torchrun,
    "torchrun-fresh-store": torchrun_fresh_store,
    "edgecloud": edgecloud,
    "edgecloud-trainer": edgecloud_trainer,
}
KEEPS_STANDBYS = ("edgecloud-trainer",)
"""Systems that have a process ready for the next round of each rank. The kill waits for them: a training is long."""
STEPS_BEFORE_KILL = 40
"""Past the script's first checkpoint, so that there is something to go on from."""
REST_SECONDS = 1.0
"""A standby that has used no CPU for so long is ready."""


def compare(systems: Mapping[str, Start], repeats: int) -> dict[str, list[float]]:
    """Seconds of standstill for each system, in the order measured; infinite where it did not end."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for repeat in range(repeats):
        for name, start in systems.items():
            seconds[name].append(standstill(start, victim=repeat % RANKS, standbys=name in KEEPS_STANDBYS))
            print(f"{repeat + 1}/{repeats}  {name:<21} {seconds[name][-1]:6.2f} s", flush=True)
    return seconds


def standstill(start: Start, victim: int, *, standbys: bool) -> float:
    """Seconds from SIGKILL of rank `victim` to the first new step on all ranks, in a training started for it.

    Infinite if that takes longer than RECOVERY_SECONDS, or if the system gives up.
    """
    with tempfile.TemporaryDirectory(prefix="edgecloud-bench-") as name:
        folder = Path(name)
        trace = folder / "trace"
        paths = [str(Path(__file__).parent / "step_trace"), os.environ.get("PYTHONPATH")]
        env = {
            **os.environ,
            TRACE: str(trace),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
        }
        with _ended_at_exit(trace) as started:
            started.extend(start(folder, env))
            before = _wait(lambda: _ranks(trace, at_least=STEPS_BEFORE_KILL), started, START_SECONDS)
            if before is not None and standbys:
                at_rest = _StandbysAtRest(started, trace, {step.pid for step in before.values()})
                before = before if _wait(at_rest, started, START_SECONDS) else None
            if before is None:
                raise RuntimeError(f"no training: {[process.poll() for process in started]}{_logs(folder)}")
            killed_at = time.time()
            os.kill(before[victim].pid, signal.SIGKILL)
            old = {step.pid for step in before.values()}
            new = _wait(lambda: _ranks(trace, at_least=1, without=old), started, RECOVERY_SECONDS)
            return max(step.at for step in new.values()) - killed_at if new else math.inf


def _ranks(trace: Path, *, at_least: int, without: set[int] | frozenset[int] = frozenset()) -> dict[int, Step] | None:
    """The `at_least`-th step of each rank by processes other than `without`, once every rank has one."""
    found: dict[int, list[Step]] = {}
    for line in trace.read_text().splitlines() if trace.exists() else ():
        at, pid, rank = line.split()
        step = Step(float(at), int(pid), int(rank))
        if step.pid not in without:
            found.setdefault(step.rank, []).append(step)
    ready = {rank: steps[at_least - 1] for rank, steps in found.items() if len(steps) >= at_least}
    return ready if len(ready) == RANKS else None


class _StandbysAtRest:
    """Whether each rank has a process ready for its next round: one that waits, and uses no CPU any more."""

    def __init__(self, started: list[subprocess.Popen[bytes]], trace: Path, stepping: set[int]) -> None:
        """stepping: the processes of this round. They were standbys too, and still have the flag."""
        self._started, self._trace, self._stepping = started, trace, stepping
        self._used: dict[int, float] = {}
        self._since = time.monotonic()

    def __call__(self) -> bool:
        used: dict[int, float] = {}
        for process in _alive(self._started, self._trace):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.pid not in self._stepping and "--standby" in process.cmdline():
                    used[process.pid] = sum(process.cpu_times()[:2])
        if used != self._used:
            self._used, self._since = used, time.monotonic()
        return len(used) == RANKS and time.monotonic() - self._since >= REST_SECONDS


def _wait(look: Callable[[], T | None], started: Sequence[subprocess.Popen[bytes]], seconds: float) -> T | None:
    """What `look` finds, or None: it found nothing in time, or nothing runs any more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.poll() is None for process in started):
        if found := look():
            return found
        time.sleep(0.02)
    return None


def _logs(folder: Path) -> str:
    return "".join(f"\n--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(folder.glob("*.log")))


@contextlib.contextmanager
def _ended_at_exit(trace: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Kills what was started and what came of it: descendants, and whoever has this trace in its environment."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield started
    finally:
        deadline = time.monotonic() + 15
        while (left := _alive(started, trace)) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)
        for process in started:
            process.wait(timeout=15)
        if left:
            print(f"still running: {[process.pid for process in left]}", file=sys.stderr)


def _alive(started: Sequence[subprocess.Popen[bytes]], trace: Path) -> list[psutil.Process]:
    found: set[psutil.Process] = set()
    for own in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(own.pid)
            found |= {process, *process.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(TRACE) == str(trace):
                found.add(process)
    return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _popen(command: Sequence[str], folder: Path, env: Mapping[str, str], name: str) -> subprocess.Popen[bytes]:
    """In `folder`, with its output in NAME.log, and in a session of its own: Ctrl-C reaches the bench alone."""
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Recovery time after the kill of one training process.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--json", type=Path, help="write the values to this file too; null: no recovery")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended then too

    seconds = compare({name: SYSTEMS[name] for name in options.systems}, options.repeats)
    for name, values in seconds.items():
        listed = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:<21} median {statistics.median(values):.2f} s of {len(values)}: {listed}")
    if options.json:
        finite = {name: [v if math.isfinite(v) else None for v in values] for name, values in seconds.items()}
        options.json.write_text(json.dumps(finite) + "\n")


if __name__ == "__main__":
    main()
