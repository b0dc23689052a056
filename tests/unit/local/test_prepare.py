"""How a run begins in a folder: afresh, going on, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecloud.api.immutable import IMMUTABLE
from edgecloud.api.job import TrainingJob
from edgecloud.api.status import Rendezvous
from edgecloud_operator.core.builders import Settings
from edgecloud_operator.core.observed import Observed
from edgecloud_operator.core.reconcile import reconcile
from edgecloud_operator.local import Workdir, WorkdirError, prepare
from tests.unit.api import strategies
from tests.unit.local.jobs import made, make_job

AT = "2026-01-31T12:00:00Z"
MEMBERS = [{"index": 0, "podUid": "a"}, {"index": 1, "podUid": "b"}]
RUNNING = {
    "phase": "Running", "startTime": AT, "restarts": 2, "rendezvous": {"round": 3, "members": MEMBERS, "openedAt": AT},
    "budget": {"spent": 1}, "checkpoint": {"step": 40}, "progress": {"step": 42}, "image": "i:1",
}  # fmt: skip


def with_earlier(path: Path, status: Any = RUNNING, **spec: Any) -> Workdir:
    """A folder in which the job ran before."""
    workdir = made(path)
    metadata = {"uid": "first", "generation": 4, "resourceVersion": "17", "creationTimestamp": AT}
    workdir.save(make_job(metadata=metadata, status=status, **spec))
    return workdir


# Afresh


@pytest.fixture
def empty(tmp_path: Path) -> Workdir:
    return made(tmp_path / "work")


def test_a_new_job_is_created(empty: Workdir) -> None:
    job, finished = prepare(make_job(), empty, None)
    assert not finished
    metadata = job.metadata
    assert metadata.uid and len(metadata.uid) == 36
    assert (metadata.generation, metadata.resource_version, job.status) == (1, "0", None)
    assert metadata.creation_timestamp is not None
    assert abs(metadata.creation_timestamp - datetime.now(UTC)) < timedelta(minutes=1)
    assert prepare(make_job(), empty, None)[0].metadata.uid != metadata.uid


def test_a_new_job_with_kept_checkpoints_opens_rounds_above_theirs(empty: Workdir) -> None:
    job, finished = prepare(make_job(), empty, None, above=3)
    assert not finished and job.status is not None
    now = datetime.now(UTC)
    plan = reconcile(job, Observed(listening_since=now), now)
    assert plan.status_first and plan.status is not None and plan.status.rendezvous == Rendezvous(round=3)
    assert (plan.status.phase, plan.status.start_time) == ("Pending", now.replace(microsecond=0))


@pytest.mark.parametrize("phase", ["Pending", "Running", "Suspended", "Succeeded", "Failed"])
def test_what_another_server_noted_in_the_file_is_not_ours(empty: Workdir, phase: str) -> None:
    """A file from `kubectl get -o yaml`, or the job.yaml of another run: it is a new run here, and not done already."""
    noted = {
        "uid": "foreign", "generation": 9, "resourceVersion": "123456", "creationTimestamp": AT,
        "deletionTimestamp": AT, "labels": {"team": "a"}, "ownerReferences": [{"uid": "x"}],
        "managedFields": [{"manager": "kubectl"}],
    }  # fmt: skip
    job, finished = prepare(make_job(metadata=noted, status=RUNNING | {"phase": phase}), empty, None)
    assert not finished and job.status is None
    assert job.metadata.uid != "foreign" and job.metadata.deletion_timestamp is None
    assert (job.metadata.generation, job.metadata.resource_version) == (1, "0")
    assert job.metadata.labels == {"team": "a"}
    plan = reconcile(job, Observed(listening_since=datetime.now(UTC)), datetime.now(UTC))
    assert plan.status is not None and plan.status.phase == "Pending"


# --workers


@pytest.mark.parametrize("workers", [1, 2, 5, 1000])
def test_another_number_of_workers(empty: Workdir, workers: int) -> None:
    assert prepare(make_job(), empty, workers)[0].spec.workers == workers


@pytest.mark.parametrize(
    ("spec", "workers", "says"),
    [
        ({"workers": None, "pools": [{"name": "a", "workers": 1}]}, 2, "this job has pools"),
        ({"minWorkers": 2}, 1, "minWorkers is above"),
        ({"program": None, "trainer": {"data": {"name": "digits"}}}, 13, "more training processes than shards"),
        ({}, 1001, "less than or equal to 1000"),
        ({}, 0, "greater than or equal to 1"),
    ],
)
def test_a_number_that_does_not_fit(empty: Workdir, spec: dict[str, Any], workers: int, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        prepare(make_job(**spec), empty, workers)


@pytest.mark.parametrize(
    "spec", [{"minWorkers": 2}, {"program": None, "trainer": {"data": {"name": "digits"}}}], ids=["program", "trainer"]
)
def test_a_number_that_just_fits(empty: Workdir, spec: dict[str, Any]) -> None:
    for workers in (2, 12):
        assert prepare(make_job(**spec), empty, workers)[0].spec.workers == workers


# Going on


def test_it_goes_on_from_what_was_written(tmp_path: Path) -> None:
    workdir = with_earlier(tmp_path / "work")
    job, finished = prepare(make_job(), workdir, None)
    assert not finished
    assert (job.metadata.uid, job.metadata.generation) == ("first", 4)
    status = job.status
    assert status is not None and status.phase == "Suspended"
    assert status.rendezvous == Rendezvous(round=3), "closed: the workers of the earlier run went with it"
    assert (status.restarts, status.image) == (2, "i:1"), "that it ended costs nothing"
    assert status.budget is not None and status.budget.spent == 1
    assert status.checkpoint is not None and status.checkpoint.step == 40


@pytest.mark.parametrize("phase", ["Pending", "Starting", "Running", "Recovering", "Suspended"])
def test_whatever_it_was_doing_it_starts_again(tmp_path: Path, phase: str) -> None:
    workdir = with_earlier(tmp_path / "work", RUNNING | {"phase": phase}, suspend=True)
    job, finished = prepare(make_job(), workdir, None)
    assert not finished and not job.spec.suspend
    now = datetime.now(UTC)
    plan = reconcile(job, Observed(listening_since=now), now)
    assert plan.status_first and plan.status is not None
    assert (plan.status.phase, plan.status.start_time) == ("Pending", now.replace(microsecond=0))
    assert plan.status.rendezvous is not None and plan.status.rendezvous.round == 3


def test_what_measured_went_with_the_run_and_costs_nothing(tmp_path: Path) -> None:
    measuring = {"since": AT, "podUid": "m", "failures": 1, "failedAt": AT, "message": "the Pod is gone"}
    spec = {
        "program": None, "trainer": {"data": {"name": "digits"}}, "export": {"measureOn": {}},
    }  # fmt: skip
    workdir = with_earlier(tmp_path / "work", RUNNING | {"measuring": measuring}, **spec)
    job, _ = prepare(make_job(**spec), workdir, None)
    now = datetime.now(UTC)
    for _ in range(3):
        plan = reconcile(job, Observed(listening_since=now), now, Settings(one_machine=True))
        job = job.model_copy(update={"status": plan.status or job.status})
    assert job.status is not None and job.status.measuring is not None
    assert job.status.measuring.failures == 0
    assert [child["metadata"]["name"] for child in plan.create] == [f"{job.metadata.name}-measure"]


def test_a_run_that_ended_before_its_first_status(tmp_path: Path) -> None:
    job, finished = prepare(make_job(), with_earlier(tmp_path / "work", None), None)
    assert (job.metadata.uid, job.status, finished) == ("first", None, False)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_what_is_finished_stays_finished(tmp_path: Path, phase: str) -> None:
    workdir = with_earlier(tmp_path / "work", RUNNING | {"phase": phase, "completionTime": AT})
    for workers in (None, 7):
        job, finished = prepare(make_job(), workdir, workers)
        assert finished
        assert job == workdir.load()


ALLOWED: list[dict[str, Any]] = [
    {"workers": 3},
    {"minWorkers": 1},
    {"image": "other:2"},
    {"restartPolicy": {"maxRestarts": 9}},
    {"activeDeadlineSeconds": 60},
    {"resources": {"limits": {"cpu": 1}}},
    {"stopGraceSeconds": 5},
]


@pytest.mark.parametrize("change", ALLOWED, ids="+".join)
def test_what_may_change(tmp_path: Path, change: dict[str, Any]) -> None:
    workdir = with_earlier(tmp_path / "work")
    job, finished = prepare(make_job(**change), workdir, None)
    assert not finished
    assert job.spec == make_job(**change).spec
    assert job.metadata.generation == 5


def test_the_same_again_is_the_same_generation(tmp_path: Path) -> None:
    job, _ = prepare(make_job(), with_earlier(tmp_path / "work"), None)
    assert job.metadata.generation == 4


def test_labels_are_those_of_the_file(tmp_path: Path) -> None:
    """As `kubectl apply` would have it."""
    workdir = with_earlier(tmp_path / "work")
    job, _ = prepare(make_job(metadata={"labels": {"a": "b"}, "annotations": {"c": "d"}}), workdir, None)
    assert (job.metadata.labels, job.metadata.annotations) == ({"a": "b"}, {"c": "d"})


# Not at all

POOLS = {"workers": None, "pools": [{"name": "a", "workers": 1}]}
TRAINER = {"program": None, "trainer": {"data": {"name": "digits"}}}
CHANGED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"program": {"command": ["python", "other.py"]}}, "program"),
    ({}, {"program": {"command": ["python", "train.py"], "args": []}}, "program"),
    ({}, {"program": {"command": ["python", "train.py"], "env": [{"name": "A"}]}}, "program"),
    ({}, TRAINER, "trainer"),
    (TRAINER, {}, "trainer"),
    (TRAINER, {"program": None, "trainer": {"data": {"name": "digits"}, "epochs": 11}}, "trainer"),
    (TRAINER, TRAINER | {"export": {}}, "export"),
    ({}, POOLS, "pools"),
    (POOLS, {"workers": None, "pools": [{"name": "a", "workers": 2}]}, "pools"),
    ({}, {"processesPerWorker": 2}, "processesPerWorker"),
    ({"processesPerWorker": 2}, {}, "processesPerWorker"),
    ({}, {"storage": {"keepCheckpoints": 1}}, "storage"),
    ({}, {"managedBy": "a"}, "managedBy"),
]


@pytest.mark.parametrize(("before", "after", "field"), CHANGED, ids=[f"{field}" for *_, field in CHANGED])
def test_another_training(tmp_path: Path, before: dict[str, Any], after: dict[str, Any], field: str) -> None:
    for status in (RUNNING, RUNNING | {"phase": "Succeeded"}):
        workdir = with_earlier(tmp_path / "work", status, **before)
        with pytest.raises(WorkdirError, match=rf"spec\.{field} has changed since.*--fresh.*--workdir"):
            prepare(make_job(**after), workdir, None)


@pytest.mark.parametrize(("before", "after", "field"), CHANGED, ids=[f"{field}" for *_, field in CHANGED])
def test_the_way_on_from_the_checkpoints(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], field: str
) -> None:
    """Named where it leads on: there are some, and the built-in trainer will not refuse them as another training's."""
    workdir = with_earlier(tmp_path / "work", **before)
    for there in (False, True):
        with pytest.raises(WorkdirError) as raised:
            prepare(make_job(**after), workdir, None)
        assert ("--fresh --keep-checkpoints" in str(raised.value)) == (there and field != "trainer")
        (workdir.checkpoints / "step-3").mkdir(exist_ok=True)


def test_other_gpus(tmp_path: Path) -> None:
    """In a cluster they stay, for the sake of Pods that are there; a run begins with workers of its own."""
    gpus = [{"resources": {"limits": {"nvidia.com/gpu": number}}} for number in (1, 2)]
    job, finished = prepare(make_job(**gpus[1]), with_earlier(tmp_path / "work", **gpus[0]), None)
    assert (job.spec.processes_of(0), finished) == (2, False)


def test_every_field_that_may_not_change_is_tried() -> None:
    assert {field for *_, field in CHANGED} == set(IMMUTABLE)


def test_another_job(tmp_path: Path) -> None:
    workdir = with_earlier(tmp_path / "work")
    with pytest.raises(WorkdirError, match=r"holds the job digits, not letters.*--workdir"):
        prepare(make_job("letters"), workdir, None)


@pytest.mark.parametrize("content", ["nonsense", "", "kind: TrainingJob\n"])
def test_a_spoilt_folder(tmp_path: Path, content: str) -> None:
    workdir = made(tmp_path / "work")
    workdir.job_file.write_text(content)
    with pytest.raises(WorkdirError, match="not a TrainingJob any more"):
        prepare(make_job(), workdir, None)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(strategies.right_specs, st.none() | strategies.statuses)
def test_any_job_goes_on_as_itself(tmp_path: Path, spec: dict[str, Any], status: dict[str, Any] | None) -> None:
    """Run, stopped and run again: the same job, unless it was finished; and prepared twice it comes to the same."""
    job = TrainingJob.parse(strategies.resource(spec))
    workdir = made(tmp_path / "work")
    workdir.job_file.unlink(missing_ok=True)
    first, _ = prepare(job, workdir, None)
    assert first.spec == job.spec
    earlier = TrainingJob.parse(first.dump() | ({"status": status} if status else {}))
    workdir.save(earlier)
    again, finished = prepare(job, workdir, None)
    assert again.metadata.uid == first.metadata.uid
    assert finished == (earlier.status is not None and earlier.status.phase in ("Succeeded", "Failed"))
    workdir.save(again)
    assert prepare(job, workdir, None) == (again, finished)
