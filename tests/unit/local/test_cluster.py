"""The API server of a local run: what it stores, what it refuses, and what happens when the disk is full."""

from __future__ import annotations

import asyncio
import errno
import signal
from pathlib import Path

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Phase, TrainingJobStatus
from edgecloud_operator.controller.cluster import AwayError, Cluster, ConflictError, LaterError, UnstartedError
from edgecloud_operator.core.builders import Settings, build_files, build_pod, build_service
from edgecloud_operator.core.observed import Service
from edgecloud_operator.core.plan import Delete, Event
from edgecloud_operator.local import LocalRun, Workdir, prepare
from edgecloud_operator.local.cluster import LocalCluster
from edgecloud_operator.local.run import _heard, wide_door
from edgecloud_operator.local.workers import Workers
from tests.unit.local.jobs import made, make_job

PENDING, RUNNING = TrainingJobStatus(phase="Pending"), TrainingJobStatus(phase="Running")


class Told:
    """What the cluster tells of."""

    def __init__(self, workdir: Workdir, job: TrainingJob) -> None:
        self.jobs: list[TrainingJob] = []
        self.written: list[TrainingJob] = []
        self.services: list[Service | None] = []
        self.events: list[Event] = []
        self.cluster = LocalCluster(
            job,
            workdir,
            on_job=self.jobs.append,
            on_written=self.written.append,
            on_service=self.services.append,
            on_event=self.events.append,
        )


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return made(tmp_path / "work")


@pytest.fixture
def told(workdir: Workdir) -> Told:
    job, _ = prepare(make_job(), workdir, None)
    return Told(workdir, job)


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(_workdir: Workdir, _job: TrainingJob) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Workdir, "save", save)


def test_it_is_a_cluster(told: Told) -> None:
    cluster: Cluster = told.cluster
    assert cluster is told.cluster


def test_a_status_is_stored_and_the_version_rises(told: Told, workdir: Workdir) -> None:
    async def scenario() -> None:
        job = told.cluster.job
        versions = [job.metadata.resource_version]
        for status in (PENDING, RUNNING, RUNNING):
            job = await told.cluster.write_status(job, status)
            assert job == told.cluster.job and job.status == status
            assert workdir.load() == job
            versions.append(job.metadata.resource_version)
        assert versions == ["0", "1", "2", "3"]
        assert [written.status for written in told.written] == [PENDING, RUNNING, RUNNING]
        assert told.jobs == [], "of its own writes the control loop is not told"

    asyncio.run(scenario())


def test_an_older_version_is_a_conflict(told: Told, workdir: Workdir) -> None:
    async def scenario() -> None:
        old = told.cluster.job
        newest = await told.cluster.write_status(old, PENDING)
        for _ in range(2):
            with pytest.raises(ConflictError):
                await told.cluster.write_status(old, RUNNING)
        assert workdir.load() == newest == told.cluster.job
        assert len(told.written) == 1

    asyncio.run(scenario())


def test_a_suspension_is_a_change_of_spec(told: Told, workdir: Workdir) -> None:
    async def scenario() -> None:
        before = await told.cluster.write_status(told.cluster.job, RUNNING)
        told.cluster.suspend()
        after = told.cluster.job
        assert after.spec.suspend and after.status == RUNNING
        assert after.metadata.generation == before.metadata.generation + 1
        assert told.jobs == [after] and workdir.load() == after
        with pytest.raises(ConflictError):
            await told.cluster.write_status(before, RUNNING)

    asyncio.run(scenario())


def test_what_could_not_be_saved_has_not_happened(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk for a moment: the next write goes through, and is no conflict. It is said once."""

    async def scenario() -> None:
        job = await told.cluster.write_status(told.cluster.job, PENDING)
        with monkeypatch.context() as patch:
            full(patch)
            for _ in range(3):
                with pytest.raises(LaterError):
                    await told.cluster.write_status(job, RUNNING)
            assert told.cluster.job == job
        assert (await told.cluster.write_status(job, RUNNING)).status == RUNNING
        assert [written.status for written in told.written] == [PENDING, RUNNING]

    asyncio.run(scenario())
    (failed, again) = caplog.messages
    assert "job.yaml can't be written: No space left on device: free some space" in failed
    assert "job.yaml is written again" in again


def test_a_stop_holds_on_a_full_disk(told: Told, workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        await told.cluster.write_status(told.cluster.job, RUNNING)
        with monkeypatch.context() as patch:
            full(patch)
            told.cluster.suspend()
            stopping = told.cluster.job
            assert stopping.spec.suspend and told.jobs == [stopping]
            stopped = await told.cluster.write_status(stopping, TrainingJobStatus(phase="Suspended"))
            assert told.written[-1] == stopped, "it need not be saved to be over"
        await told.cluster.write_status(stopped, stopped.status or PENDING)
        loaded = workdir.load()
        assert loaded is not None and loaded.spec.suspend, "the next write has it all"

    asyncio.run(scenario())


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_how_it_came_out_holds_on_a_full_disk(told: Told, monkeypatch: pytest.MonkeyPatch, phase: Phase) -> None:
    async def scenario() -> None:
        full(monkeypatch)
        ended = await told.cluster.write_status(told.cluster.job, TrainingJobStatus(phase=phase))
        assert told.written == [ended] == [told.cluster.job]

    asyncio.run(scenario())


def test_what_cannot_be_made_is_tried_again(told: Told, workdir: Workdir) -> None:
    """A line for it, and no traceback."""
    job, _ = prepare(make_job(program={"command": ["a"], "files": {"train.py": ""}}), workdir, None)
    config_map = build_files(job)
    assert config_map is not None
    workdir.files.write_text("in the way")
    with pytest.raises(AwayError, match="files: File exists"):
        asyncio.run(told.cluster.create(job, config_map))


def test_a_worker_that_cannot_be_started_now_is_named(told: Told, workdir: Workdir, tmp_path: Path) -> None:
    """What may pass, as a full disk does; the log says nothing of a write."""
    job = told.cluster.job
    workers = told.cluster.workers = Workers(
        workdir, tmp_path / "scratch", "http://127.0.0.1:9", lambda _pod, _there: None
    )
    (tmp_path / "scratch").write_text("no room for a folder")
    with pytest.raises(UnstartedError, match=r"worker 1 can't be started: .*/scratch/.*: Not a directory"):
        asyncio.run(told.cluster.create(job, build_pod(job, 1, "image", Settings())))
    assert workers.pods() == ()


# Signals


class Display:
    """Of which nobody reads a word."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def show(self, job: TrainingJob) -> None:
        """Nothing."""

    def event(self, event: Event) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        self.notes.append(text)
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_stop_comes_before_the_word_on_it(workdir: Workdir) -> None:
    job, _ = prepare(make_job(), workdir, None)
    display = Display()
    run = LocalRun(job, workdir, display)
    with pytest.raises(BrokenPipeError):
        run.stop(signal.SIGINT)
    saved = workdir.load()
    assert saved is not None and saved.spec.suspend
    run.stop(signal.SIGHUP)  # the shell and the kernel both tell of a terminal that is closed
    assert not run._over.is_set()
    run.stop(signal.SIGINT)  # the second one stops at once
    assert run._over.is_set() and run._at_once
    (note,) = display.notes
    assert "SIGINT" in note


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """`nohup edgecloud run ... &`: that the terminal is closed is no matter then."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert set(_heard()) == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} - {number}
    finally:
        signal.signal(number, before)
    assert set(_heard()) == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def test_files_are_laid_out(workdir: Workdir) -> None:
    files = {"train.py": "print('ü')\n", "config.yaml": "a: 1\r\nb: 2", "empty": "", "_x-1.txt": "\0\n"}
    job, _ = prepare(make_job(program={"command": ["a"], "files": files}), workdir, None)
    told = Told(workdir, job)
    config_map = build_files(job)
    assert config_map is not None

    async def scenario() -> None:
        for _ in range(2):
            await told.cluster.create(job, config_map)

    asyncio.run(scenario())
    assert {path.name: path.read_bytes().decode() for path in workdir.files.iterdir()} == files


def test_the_service_is_there_once_it_was_made(told: Told) -> None:
    async def scenario() -> None:
        job = told.cluster.job
        assert told.cluster.service is None
        await told.cluster.create(job, build_service(job))
        assert told.cluster.service is not None and told.cluster.service.owned
        assert told.services == [told.cluster.service]

    asyncio.run(scenario())


def test_a_local_job_is_kept(told: Told, workdir: Workdir) -> None:
    """ttlSecondsAfterFinished is for a cluster: nobody's results are deleted here."""

    async def scenario() -> None:
        job = await told.cluster.write_status(told.cluster.job, RUNNING)
        await told.cluster.delete(job, Delete(kind="TrainingJob", name="digits", uid=job.metadata.uid or ""))
        assert workdir.load() == job

    asyncio.run(scenario())


def test_events_are_passed_on(told: Told) -> None:
    event = Event(type="Normal", reason="Accepted", message="m")

    async def scenario() -> None:
        await told.cluster.emit(told.cluster.job, event)

    asyncio.run(scenario())
    assert told.events == [event]


def test_a_thousand_workers_of_this_machine_need_not_wait_at_the_door() -> None:
    door = wide_door()
    assert all(door.enter("127.0.0.1", 0.0) for _ in range(2000))
