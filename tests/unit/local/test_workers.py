"""Pods played by processes: whose token it is, what a launcher left behind, and who may be swept away."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.api.job import TrainingJob
from edgecloud.launcher import linux
from edgecloud.protocol import FailureReport
from edgecloud_operator.coordinator.admission import Identity
from edgecloud_operator.core.observed import Pod, Termination
from edgecloud_operator.local import prepare
from edgecloud_operator.local import workers as workers_module
from edgecloud_operator.local.workers import MAX_TERMINATION_BYTES, MAX_WORDS, Workers, last_words, read_termination
from tests.unit.local.jobs import made, make_job

NOWHERE = "http://127.0.0.1:9"
"""No coordinator: a launcher asks and asks, and does nothing else."""


async def eventually(look: Callable[[], object], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + 15
    while not look():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)


@dataclass
class House:
    workers: Workers
    job: TrainingJob
    scratch: Path
    pods: dict[str, Pod]
    """As the control loop knows them."""

    def of(self, index: int) -> Pod:
        (pod,) = (pod for pod in self.pods.values() if pod.index == index)
        return pod

    def process(self, index: int) -> psutil.Process:
        process = self.workers._workers[self.of(index).uid].process
        assert process is not None
        return psutil.Process(process.pid)

    def token(self, index: int) -> str:
        return (self.scratch / self.of(index).uid / "token").read_text()


@asynccontextmanager
async def house(path: Path, **spec: Any) -> AsyncIterator[House]:
    """The workers of a job, which are ended afterwards, and nothing is left."""
    workdir = made(path / "work")
    scratch = path / "scratch"
    scratch.mkdir()
    pods: dict[str, Pod] = {}

    def on_pod(pod: Pod, there: bool) -> None:
        if there:
            pods[pod.uid] = pod
        else:
            pods.pop(pod.uid)

    job, _ = prepare(make_job(**spec), workdir, None)
    before = set(linux.children())
    workers = Workers(workdir, scratch, NOWHERE, on_pod)
    try:
        yield House(workers, job, scratch, pods)
    finally:
        await workers.end_all()
        assert set(linux.children()) <= before
        assert list(scratch.iterdir()) == [], "their folders are gone with them"


# Tokens


def test_a_token_stands_for_its_worker_as_long_as_that_lives(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as it:
            for index in (0, 1):
                await it.workers.start(it.job, index)
            tokens = [it.token(index) for index in (0, 1)]
            assert len(set(tokens)) == 2 and all(len(token) >= 32 for token in tokens)
            for index, token in enumerate(tokens):
                assert await it.workers.authenticate(token) == Identity(
                    namespace="default",
                    job="digits",
                    job_uid=it.job.metadata.uid or "",
                    pod_uid=it.of(index).uid,
                    index=index,
                )
            for nobodys in (
                "",
                " ",
                tokens[0][:-1],
                tokens[0] + "x",
                tokens[0].upper(),
                secrets.token_urlsafe(32),
                "\udcff",
            ):
                assert await it.workers.authenticate(nobodys) is None
            file = it.scratch / it.of(0).uid / "token"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            it.process(0).kill()
            await eventually(lambda: it.of(0).dead, "its end is seen")
            assert await it.workers.authenticate(tokens[0]) is None
            assert await it.workers.authenticate(tokens[1]) is not None
            assert all(token not in " ".join(it.process(1).cmdline()) for token in tokens)
            assert all(token not in it.process(1).environ().values() for token in tokens)

    asyncio.run(scenario())


# Pods


def test_a_worker_is_started_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as it:
            await asyncio.gather(*(it.workers.start(it.job, 0) for _ in range(5)))
            assert len(it.pods) == 1
            pod = it.of(0)
            assert (pod.name, pod.phase, pod.terminating) == ("digits-worker-0", "Running", False)
            it.process(0).kill()
            await eventually(lambda: it.of(0).dead, "its end is seen")
            await it.workers.start(it.job, 0)
            assert it.of(0).uid == pod.uid, "a dead Pod keeps its name until it is deleted"
            assert it.of(0).termination == Termination(exit_code=128 + signal.SIGKILL)
            it.workers.delete(pod.uid)
            await eventually(lambda: not it.pods, "it is gone")
            await it.workers.start(it.job, 0)
            assert it.of(0).uid != pod.uid and not it.of(0).dead

    asyncio.run(scenario())


def test_a_deleted_worker_is_terminating_and_then_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as it:
            for index in (0, 1):
                await it.workers.start(it.job, index)
            doomed, process = it.of(0).uid, it.process(0)
            for _ in range(3):
                it.workers.delete(doomed)
            assert it.pods[doomed].terminating
            it.workers.delete("no such Pod")
            await eventually(lambda: doomed not in it.pods, "it is gone")
            assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
            assert not it.of(1).dead

    asyncio.run(scenario())


def test_what_cannot_be_started_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARGE", "x" * 200_000)  # more than the kernel takes

    async def scenario() -> None:
        async with house(tmp_path) as it:
            for _ in range(2):
                with pytest.raises(OSError, match="Argument list too long"):
                    await it.workers.start(it.job, 0)
            assert it.pods == {} and list(it.scratch.iterdir()) == []

    asyncio.run(scenario())


def test_the_environment_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECLOUD_JOB", "an outer run's")
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    async def scenario() -> None:
        env = [{"name": "MINE", "value": "a=b"}, {"name": "INHERITED", "value": "no"}, {"name": "EMPTY"}]
        program = {"command": ["python", "x.py"], "args": ["--fast"], "env": env}
        async with house(tmp_path, program=program, resources={"limits": {"nvidia.com/gpu": 1}}) as it:
            await it.workers.start(it.job, 1)
            await eventually(lambda: "edgecloud.launcher" in it.process(1).cmdline(), "it is that program by now")
            environment = it.process(1).environ()
            assert it.process(1).cmdline()[-3:] == ["python", "x.py", "--fast"]
            assert (environment["MINE"], environment["INHERITED"], environment["EMPTY"]) == ("a=b", "no", "")
            assert environment["EDGECLOUD_JOB"] == "digits" and environment["EDGECLOUD_WORKER_INDEX"] == "1"
            assert environment["EDGECLOUD_COORDINATOR"] == NOWHERE
            assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
            assert int(environment["OMP_NUM_THREADS"]) >= 1
            assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-b"
            assert os.getsid(it.process(1).pid) == it.process(1).pid, "Ctrl-C on the terminal is not for it"

    asyncio.run(scenario())


@pytest.mark.parametrize("variable", ["", "PYTHONPATH", "PYTHONHOME"])
def test_what_is_for_the_users_program_is_not_for_the_launcher(tmp_path: Path, variable: str) -> None:
    """Files beside it do not stand in for the standard library, wherever the program is to look for them."""
    (tmp_path / "select.py").write_text("raise SystemExit('mine')")

    async def scenario() -> None:
        program: dict[str, Any] = {"command": ["a"], "workingDir": str(tmp_path)}
        if variable:
            program["env"] = [{"name": variable, "value": str(tmp_path)}]
        async with house(tmp_path, program=program) as it:
            await it.workers.start(it.job, 0)
            log_file = tmp_path / "work" / "logs" / "worker-0.log"
            await eventually(lambda: it.of(0).dead or log_file.exists(), "it begins")
            assert not it.of(0).dead, it.of(0).why
            assert not variable or it.process(0).environ()[variable] == str(tmp_path)

    asyncio.run(scenario())


def test_what_a_launcher_says_before_it_has_its_log_is_why_it_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as it:
            (tmp_path / "work" / "logs" / "worker-0.log").mkdir(parents=True)
            await it.workers.start(it.job, 0)
            await eventually(lambda: it.of(0).dead, "its end is seen")
            assert it.of(0).termination == Termination(exit_code=2)
            assert it.of(0).why.endswith("worker-0.log: Is a directory")

    asyncio.run(scenario())


@pytest.mark.parametrize(("made_as", "said"), [("none", "is not there"), ("file", "is no folder, or within none")])
def test_a_working_directory_that_is_none_is_the_end_of_it(tmp_path: Path, made_as: str, said: str) -> None:
    folder = tmp_path / "folder"
    if made_as == "file":
        folder.write_text("")

    async def scenario() -> None:
        async with house(tmp_path, program={"command": ["a"], "workingDir": str(folder)}) as it:
            for _ in range(2):
                await it.workers.start(it.job, 1)
            pod = it.of(1)
            assert pod.dead and pod.termination is not None and pod.termination.failure is not None
            assert pod.termination.failure.reason == "BadConfiguration"
            where = f"spec.program.workingDir: {folder} {said}"
            message = f"worker 1 can't be started: {where}: put it right, or name another folder"
            assert pod.termination.failure.message == message
            it.workers.delete(pod.uid)
            await eventually(lambda: not it.pods, "it is gone")

    asyncio.run(scenario())


def test_the_last_words_are_few(tmp_path: Path) -> None:
    (tmp_path / "stderr").write_bytes(b"first\n" + b"\xe2\x82\xac" * 100_000 + b"\nlast\n")
    assert last_words(tmp_path / "stderr").endswith("\u20ac\nlast")
    assert len(last_words(tmp_path / "stderr")) == MAX_WORDS
    assert last_words(tmp_path / "none") == last_words(tmp_path) == ""


# What measures

MEASURED: dict[str, Any] = {
    "program": None,
    "trainer": {"data": {"name": "digits"}},
    "export": {"measureOn": {"nodeSelector": {"edge": "true"}}, "maxAccuracyLoss": 0.5},
}
MEASURES = """
import json, os, sys
print("measuring")
print("slowly", file=sys.stderr)
names = ("EXPORT", "MAX_ACCURACY_LOSS", "NODE", "JOB", "LATENCY_SECONDS")
with open(os.environ["EDGECLOUD_TERMINATION_LOG"], "w") as file:
    json.dump({name: os.environ.get(f"EDGECLOUD_{name}") for name in names}, file)
sys.exit(3)
"""


def test_what_measures_plays_a_pod_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECLOUD_JOB", "an outer run's")
    monkeypatch.setenv("EDGECLOUD_LATENCY_SECONDS", "7")
    monkeypatch.setattr(workers_module, "PROGRAM", ("python", "-c", MEASURES))

    async def scenario() -> None:
        async with house(tmp_path, **MEASURED) as it:
            await asyncio.gather(*(it.workers.measure(it.job) for _ in range(3)))
            (pod,) = it.pods.values()
            assert (pod.name, pod.role, pod.phase, pod.node) == (
                "digits-measure",
                "measure",
                "Running",
                platform.node(),
            )
            await eventually(lambda: it.of(0).dead, "its end is seen")
            end = it.of(0).termination
            assert end is not None and (it.of(0).phase, end.exit_code) == ("Failed", 3)
            assert json.loads(end.message) == {
                "EXPORT": str(tmp_path / "work" / "results" / "export"),
                "MAX_ACCURACY_LOSS": "0.5",
                "NODE": platform.node(),
                "JOB": None,
                "LATENCY_SECONDS": "7",
            }
            assert set((tmp_path / "work" / "logs" / "measure.log").read_text().split()) == {"measuring", "slowly"}
            assert it.workers._identities == {}, "it speaks to nobody"

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["deleted", "killed", "left behind"])
def test_what_measures_goes_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    starts = "import subprocess, time; subprocess.Popen(['sleep', '60']); print('both'); time.sleep(60)"
    monkeypatch.setattr(workers_module, "PROGRAM", ("python", "-u", "-c", starts))

    async def scenario() -> None:
        linux.become_subreaper()
        async with house(tmp_path, **MEASURED) as it:
            await it.workers.measure(it.job)
            log_file = tmp_path / "work" / "logs" / "measure.log"
            await eventually(lambda: "both" in log_file.read_text(), "both run")
            (child,) = it.process(0).children()
            if how == "deleted":
                it.workers.delete(it.of(0).uid)
                await eventually(lambda: not it.pods, "it is gone")
            elif how == "killed":
                it.process(0).kill()
                await eventually(lambda: it.of(0).dead, "its end is seen")
                assert it.of(0).termination == Termination(exit_code=128 + signal.SIGKILL)
            else:
                await it.workers.end_all()
            assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE

    asyncio.run(scenario())


# The sweep


def test_a_worker_that_is_only_just_starting_is_not_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker's end, in the moment between another's fork and its place in the list."""
    started, go_on = asyncio.Event(), asyncio.Event()
    real = asyncio.create_subprocess_exec

    async def scenario() -> None:
        async with house(tmp_path) as it:
            await it.workers.start(it.job, 0)

            async def slow(*args: Any, **options: Any) -> asyncio.subprocess.Process:
                process = await real(*args, **options)
                started.set()
                await go_on.wait()
                return process

            monkeypatch.setattr(asyncio, "create_subprocess_exec", slow)
            starting = asyncio.create_task(it.workers.start(it.job, 1))
            await started.wait()
            first = it.workers._workers[it.of(0).uid].process
            first.kill()
            await first.wait()
            lock = it.workers._starting
            await eventually(lambda: it.of(0).dead or lock._waiters, "that end is followed up, or waits")  # type: ignore[attr-defined]
            go_on.set()
            await starting
            await eventually(lambda: it.of(0).dead, "the first one's end is seen")
            assert it.process(1).status() != psutil.STATUS_ZOMBIE
            assert not it.of(1).dead

    asyncio.run(scenario())


def test_what_a_killed_worker_leaves_is_swept_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        linux.become_subreaper()
        async with house(tmp_path) as it:
            stranger = await asyncio.create_subprocess_exec("sleep", "60")
            it.workers._strangers = frozenset({stranger.pid})
            await it.workers.start(it.job, 0)
            # A daemon: its parent is gone, and so it is ours.
            orphan = await asyncio.create_subprocess_exec(
                "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!", stdout=asyncio.subprocess.PIPE
            )
            assert orphan.stdout is not None
            left = psutil.Process(int(await orphan.stdout.readline()))
            await orphan.wait()
            it.process(0).kill()
            await eventually(lambda: it.of(0).dead, "its end is seen")
            assert not left.is_running()
            assert stranger.returncode is None, "what was there before is not ours to end"
            stranger.kill()
            await stranger.wait()

    asyncio.run(scenario())


# Termination messages

FAILURE = {"localRank": 0, "rank": 3, "exitCode": 1, "reason": "ProgramError", "message": "boom", "at": 100.0}


def read(path: Path, content: bytes | str | None, exit_code: int = 1) -> Termination:
    file = path / "termination"
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_termination(file, exit_code)


@pytest.mark.parametrize(
    ("said", "termination"),
    [
        ({"round": 2, "outcome": "succeeded"}, Termination(exit_code=1, round=2, outcome="succeeded")),
        ({"round": 2, "outcome": "preempted", "more": [1]}, Termination(exit_code=1, round=2, outcome="preempted")),
        (
            {"round": 2, "outcome": "failed", "failure": FAILURE},
            Termination(exit_code=1, round=2, outcome="failed", failure=FailureReport.parse(FAILURE)),
        ),
        ({"round": 0, "outcome": "none", "failure": None}, Termination(exit_code=1)),
        ({"round": 1, "outcome": "triumph"}, Termination(exit_code=1, round=1)),
        ({"round": 1, "outcome": ["failed"]}, Termination(exit_code=1, round=1)),
        ({"round": 1}, Termination(exit_code=1, round=1)),
        ({"round": -1, "outcome": "failed"}, Termination(exit_code=1)),
        ({"round": 10**10, "outcome": "failed"}, Termination(exit_code=1)),
        ({"round": "1", "outcome": "failed"}, Termination(exit_code=1)),
        ({"round": True, "outcome": "failed"}, Termination(exit_code=1)),
        ({"round": 1.0, "outcome": "failed"}, Termination(exit_code=1)),
        ({"outcome": "failed"}, Termination(exit_code=1)),
        ({"round": 1, "outcome": "failed", "failure": {"rank": 1}}, Termination(exit_code=1)),
        ({"round": 1, "outcome": "failed", "failure": FAILURE | {"at": float("nan")}}, Termination(exit_code=1)),
        ({"round": 1, "outcome": "failed", "failure": FAILURE | {"message": "\ud800"}}, Termination(exit_code=1)),
        ({"round": 1, "outcome": "failed", "failure": "boom"}, Termination(exit_code=1)),
        ([], Termination(exit_code=1)),
        ("failed", Termination(exit_code=1)),
        (None, Termination(exit_code=1)),
    ],
)
def test_what_a_launcher_said(tmp_path: Path, said: Any, termination: Termination) -> None:
    assert read(tmp_path, json.dumps(said)) == termination


@pytest.mark.parametrize(
    "content",
    [
        None, b"", b"{", b"\xff\xfe\x00", b"null", b"NaN", b"[" * 4000, b'{"failure": ' + b"[" * 3000, b"1" * 4096,
        b'{"round": ' + b"9" * 4000 + b"}", b'{"round": 1e999}', b'{"round": 1, "outcome": "failed"}' + b"x" * 5000,
        b" " * MAX_TERMINATION_BYTES + b'{"round": 1, "outcome": "failed"}',
    ],
    ids=lambda content: repr(content)[:20],
)  # fmt: skip
def test_nonsense(tmp_path: Path, content: bytes | None) -> None:
    termination = read(tmp_path, content, 77)
    assert termination.exit_code == 77
    assert termination.failure is None


def test_a_folder_for_a_message(tmp_path: Path) -> None:
    (tmp_path / "termination").mkdir()
    assert read_termination(tmp_path / "termination", 5) == Termination(exit_code=5)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["failed", "succeeded"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["round", "outcome", "failure", "rank", "localRank", "reason", "at", "message"])
            | st.text(max_size=3),
            inner,
            max_size=6,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | json_like.map(json.dumps), st.integers(0, 255))
def test_any_message(tmp_path: Path, content: bytes | str, exit_code: int) -> None:
    termination = read(
        tmp_path, content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content, exit_code
    )
    assert termination.exit_code == exit_code
    assert type(termination.round) is int and 0 <= termination.round <= 10**9
    assert termination.outcome in ("succeeded", "preempted", "failed", "none")
    assert termination.failure is None or isinstance(termination.failure, FailureReport)
