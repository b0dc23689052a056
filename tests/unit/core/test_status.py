"""What status says: conditions, events, progress, the strings of the columns, and when it is written."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgecloud.api.status import (
    CheckpointStatus,
    Condition,
    LastFailure,
    ProgressStatus,
    Rendezvous,
    TrainingJobStatus,
    WorkersStatus,
)
from edgecloud_operator.core import conditions
from edgecloud_operator.core.events import MAX_MESSAGE, events_between
from edgecloud_operator.core.observed import Launcher
from edgecloud_operator.core.progress import with_progress, with_summary
from edgecloud_operator.core.writes import CHECKPOINT_SECONDS, write_delay
from tests.unit.core.build import (
    MEASURED,
    NOW,
    Scene,
    as_served,
    make_job,
    make_launcher,
    make_message,
    make_observed,
    make_pod,
    make_progress,
    member,
)

LATER = NOW + timedelta(seconds=30)

# Conditions


def test_a_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    status = conditions.put(TrainingJobStatus(), "Running", "False", "WaitingForWorkers", now=NOW, generation=1)
    status = conditions.put(status, "Running", "False", "RoundClosed", now=LATER, message="why", generation=2)
    assert status.conditions == (
        Condition(
            type="Running",
            status="False",
            reason="RoundClosed",
            message="why",
            last_transition_time=NOW,
            observed_generation=2,
        ),
    )
    status = conditions.put(status, "Running", "True", "WorkersRunning", now=LATER)
    assert status.conditions[0].last_transition_time == LATER


def test_conditions_keep_their_order_and_stand_once() -> None:
    status = TrainingJobStatus()
    for kind in ("Accepted", "Running", "Accepted", "Blocked", "Running"):
        status = conditions.put(status, kind, "True", "Accepted", now=NOW)
    assert [condition.type for condition in status.conditions] == ["Accepted", "Running", "Blocked"]


def test_whether_a_condition_is_true() -> None:
    status = conditions.put(TrainingJobStatus(), "Suspended", "Unknown", "Stopping", now=NOW)
    assert not conditions.is_true(status, "Suspended")
    assert not conditions.is_true(status, "Running")
    assert conditions.is_true(conditions.put(status, "Running", "True", "WorkersRunning", now=NOW), "Running")
    assert conditions.get(status, "Failed") is None


def test_a_long_message_is_cut() -> None:
    status = conditions.put(TrainingJobStatus(), "Blocked", "True", "Unschedulable", now=NOW, message="x" * 5000)
    assert len(status.conditions[0].message) == 2048


# Events


def events(old: TrainingJobStatus, new: TrainingJobStatus) -> list[tuple[str, str, str]]:
    return [(event.type, event.reason, event.message) for event in events_between(old, new)]


def test_events_come_on_transitions_only() -> None:
    scene = Scene()
    said: list[str] = []
    for story in (
        lambda: scene,
        scene.up,
        lambda: scene.all_say(state="running"),
        lambda: scene.later(5),
        lambda: scene.fails(1, signal="SIGKILL"),
        lambda: scene.later(5),
        lambda: scene.all_say(state="running"),
        lambda: scene.changes(0, blocked=("ErrImagePull", "no")),
        lambda: scene.later(5).changes(0, blocked=("ErrImagePull", "not yet")),
        lambda: scene.changes(0, blocked=("Unschedulable", "no node")),
        lambda: scene.changes(0, blocked=None),
        lambda: scene.spec(suspend=True),
        lambda: scene.all_say(state="preempted"),
        lambda: scene.spec(suspend=False),
        lambda: scene.all_say(state="running"),
        lambda: scene.all_say(state="succeeded"),
        lambda: scene.later(100),
    ):
        story()
        for _ in range(5):
            said += [event.reason for event in scene.act().events]
    assert said == [
        "Accepted",
        "RoundOpened",
        "Running",
        "Killed",
        "RoundOpened",
        "Running",
        "ErrImagePull",
        "Unschedulable",
        "CheckpointsLost",
        "Suspended",
        "Accepted",
        "RoundOpened",
        "Running",
        "Succeeded",
    ]


FAILURE = LastFailure(worker=1, rank=3, exit_code=1, reason="ProgramError", round=2, at=NOW)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({}, {"start_time": NOW}, [("Normal", "Accepted", "waiting for the workers")]),
        ({}, {"last_failure": FAILURE}, [("Warning", "ProgramError", "worker 1 rank 3: exit code 1 in round 2")]),
        (
            {},
            {"last_failure": FAILURE.model_copy(update={"rank": None, "exit_code": None, "signal": "SIGKILL"})},
            [("Warning", "ProgramError", "worker 1: SIGKILL in round 2")],
        ),
        (
            {},
            {"last_failure": FAILURE.model_copy(update={"exit_code": None})},
            [("Warning", "ProgramError", "worker 1 rank 3: ProgramError in round 2")],
        ),
        (
            {"rendezvous": Rendezvous(round=1)},
            {"rendezvous": Rendezvous(round=2, members=(member(0),))},
            [("Normal", "RoundOpened", "round 2 with 1 worker")],
        ),
        (
            {},
            {"rendezvous": Rendezvous(round=2, members=(member(0), member(1)))},
            [("Normal", "RoundOpened", "round 2 with 2 workers")],
        ),
        ({"rendezvous": Rendezvous(round=2, members=(member(0),))}, {"rendezvous": Rendezvous(round=2)}, []),
        ({"phase": "Starting"}, {"phase": "Running"}, [("Normal", "Running", "all workers are running")]),
        ({"phase": "Running"}, {"phase": "Suspended"}, [("Normal", "Suspended", "the job is suspended")]),
        ({"phase": "Running"}, {"phase": "Succeeded"}, [("Normal", "Succeeded", "the job has succeeded")]),
        ({"phase": "Running"}, {"phase": "Recovering"}, []),
    ],
)
def test_events(old: dict[str, Any], new: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert events(TrainingJobStatus(**old), TrainingJobStatus(**new)) == expected


def test_a_failed_job_says_why_and_not_too_long() -> None:
    failed = conditions.put(
        TrainingJobStatus(phase="Failed"), "Failed", "True", "ExitCodeRule", now=NOW, message="x" * 2000
    )
    assert events(TrainingJobStatus(), failed) == [("Warning", "ExitCodeRule", "x" * MAX_MESSAGE)]


# Progress


def speaker(
    index: int, step: int, *, number: int = 3, first: tuple[int, float] | None = None, **values: Any
) -> Launcher:
    launcher = make_launcher(f"pod-{index}", round=number, state="running", progress=make_progress(step, **values))
    return replace(launcher, first_step=first)


def progressed(*launchers: Launcher, old: TrainingJobStatus | None = None) -> TrainingJobStatus:
    rendezvous = Rendezvous(round=3, members=(member(0), member(1)))
    observed = make_observed([make_pod(0), make_pod(1)], launchers)
    return with_progress(make_job(), old or TrainingJobStatus(), observed, NOW, members_of=rendezvous)


def test_the_first_rank_gives_the_values_and_the_newest_step_counts() -> None:
    at = NOW.timestamp()
    progress = progressed(
        speaker(0, 40, total_steps=200, loss=0.5, epoch=1.5, metrics={"lr": 0.1}, reported_at=at),
        speaker(1, 42, loss=0.7, accuracy=0.9, samples_per_second=1234.5, reported_at=at + 2.7),
    ).progress
    assert progress == ProgressStatus(
        percent=21.0,
        step=42,
        total_steps=200,
        epoch=1.5,
        loss=0.5,
        accuracy=0.9,
        samples_per_second=1234.5,
        metrics={"lr": 0.1},
        reported_at=NOW + timedelta(seconds=2),
    )


@pytest.mark.parametrize(
    ("step", "total", "percent"), [(0, 10, 0.0), (1, 3, 33.3), (10, 10, 100.0), (12, 10, 100.0), (5, None, None)]
)
def test_percent(step: int, total: int | None, percent: float | None) -> None:
    progress = progressed(speaker(0, step, total_steps=total)).progress
    assert progress is not None
    assert progress.percent == percent


@pytest.mark.parametrize(
    ("first", "step", "total", "expected"),
    [
        pytest.param((10, -20.0), 20, 100, 160, id="80 steps at 2 s"),
        pytest.param((10, -20.0), 100, 100, 0, id="done"),
        pytest.param((10, -20.0), 110, 100, 0, id="more than done"),
        pytest.param((20, -20.0), 20, 100, None, id="no step since the first"),
        pytest.param((10, 0.0), 20, 100, None, id="no time since the first"),
        pytest.param(None, 20, 100, None, id="no first step"),
        pytest.param((10, -20.0), 20, None, None, id="no end known"),
    ],
)
def test_time_to_the_end(first: Any, step: int, total: int | None, expected: int | None) -> None:
    start = first and (first[0], NOW.timestamp() + first[1])
    progress = progressed(speaker(0, step, total_steps=total, first=start)).progress
    assert progress is not None
    assert progress.eta_seconds == expected


def test_who_is_not_in_the_round_has_no_say() -> None:
    old = TrainingJobStatus(progress=ProgressStatus(step=5))
    status = progressed(speaker(0, 40, number=2), speaker(2, 50), make_launcher("pod-1", round=3), old=old)
    assert status.progress == old.progress


def test_the_accuracy_of_the_last_evaluation_stays() -> None:
    old = TrainingJobStatus(progress=ProgressStatus(accuracy=0.8))
    progress = progressed(speaker(0, 1), old=old).progress
    assert progress is not None
    assert progress.accuracy == 0.8


@pytest.mark.parametrize(
    ("old", "said", "expected"),
    [
        pytest.param(None, (None, None), None, id="none yet"),
        pytest.param(None, (10, None), CheckpointStatus(step=10), id="the first"),
        pytest.param(CheckpointStatus(step=10), (10, 20), CheckpointStatus(step=20), id="a newer one"),
        pytest.param(
            CheckpointStatus(step=20, path="p"), (20, None), CheckpointStatus(step=20, path="p"), id="the same stays"
        ),
        pytest.param(CheckpointStatus(step=20), (None, None), CheckpointStatus(step=20), id="nothing new is said"),
        pytest.param(CheckpointStatus(step=20), (10, 10), CheckpointStatus(step=10), id="an older one is gone on from"),
    ],
)
def test_checkpoint(old: CheckpointStatus | None, said: Any, expected: CheckpointStatus | None) -> None:
    launchers = [speaker(index, 30, checkpoint_step=step) for index, step in enumerate(said)]
    assert progressed(*launchers, old=TrainingJobStatus(checkpoint=old)).checkpoint == expected


def test_the_description_of_a_checkpoint_is_kept_if_it_is_one() -> None:
    said = {"step": 20, "path": "checkpoints/step-20", "weightsSha256": "ab", "size": 7}
    status = progressed(speaker(0, 30, checkpoint_step=20, checkpoint=said))
    assert status.checkpoint == CheckpointStatus(step=20, path="checkpoints/step-20", weights_sha256="ab")
    for other in ({"step": 10, "path": "x"}, {"step": 20, "path": 7}):
        status = progressed(speaker(0, 30, checkpoint_step=20, checkpoint=other))
        assert status.checkpoint == CheckpointStatus(step=20)


def test_the_evaluation_and_the_performance_are_the_first_speakers() -> None:
    said: dict[str, Any] = {"accuracy": 0.9, "correct": 90, "total": 100, "perClass": [0.8, 1.0]}
    old = progressed(speaker(0, 30), speaker(1, 30, evaluation=said, performance={"samplesPerSecond": 5}))
    assert old.evaluation is not None
    assert old.evaluation.dump() == {
        "accuracy": 0.9,
        "correct": 90,
        "total": 100,
        "details": {"perClass": [0.8, 1.0]},
    }
    assert old.performance == {"samplesPerSecond": 5}
    later = progressed(speaker(0, 31, evaluation={"accuracy": 9}), old=old)
    assert (later.evaluation, later.performance) == (old.evaluation, old.performance)


EXPORT: dict[str, Any] = {
    "format": "onnx-int8", "path": "model-int8.onnx", "bytes": 2035361, "sha256": "0a" * 32, "accuracy": 0.8963,
    "parity": {"images": 10000, "agreement": 0.9891, "maxDifference": 0.41}, "gate": "passed",
    "latency": {"p50": 0.37, "p90": 0.4, "p99": 0.46},
}  # fmt: skip


def test_converted_models_stay_until_others_are_reported() -> None:
    old = progressed(speaker(0, 30), speaker(1, 30, exports={"exports": [EXPORT]}))
    assert old.exports == (EXPORT,)
    assert as_served(old).exports == (EXPORT,)
    for later in (speaker(0, 30), speaker(0, 30, exports={"exports": [EXPORT | {"gate": "perhaps"}]})):
        assert progressed(later, old=as_served(old)).exports == (EXPORT,)
    newer = EXPORT | {"node": "edge-1", "gate": "failed"}
    assert progressed(speaker(0, 30, exports={"exports": [newer]}), old=old).exports == (newer,)


def test_an_export_that_must_not_be_used_ends_the_job_and_is_shown() -> None:
    """No restart, and a condition with the export's own words: they name the format and the way out."""
    scene = Scene(workers=2).running()
    words = "onnx-int8 has lost 5.00 points of accuracy:\n calibrate on more images"
    progress = make_progress(30, total_steps=30, exports={"exports": [EXPORT | {"gate": "failed"}]})
    scene.says(1, state="succeeded").says(0, progress=progress)
    scene.fails(0, exit_code=2, reason="ExportFailed", message=words).settle()
    failed = conditions.get(scene.status, "Failed")
    assert failed is not None
    assert (scene.status.phase, failed.reason, scene.status.restarts) == ("Failed", "ExportFailed", 0)
    assert failed.message.endswith("onnx-int8 has lost 5.00 points of accuracy: calibrate on more images")
    assert scene.status.exports is not None and scene.status.exports[0]["gate"] == "failed"


# What is not finite doesn't get this far: tests/unit/coordinator/test_documents.py.
@pytest.mark.parametrize("odd", [None, "", {"deep": [None, 1e308, -0.0, 2**53]}, {"1": True}])
def test_what_a_program_says_of_itself_is_written_once_whatever_it_is(odd: Any) -> None:
    scene = Scene(workers=1).running()
    scene.says(0, progress=make_progress(1, performance={"x": odd}, evaluation={"accuracy": 0.5, "y": odd}))
    scene.settle()
    assert scene.decide().status is None


def test_ready_workers_are_those_that_are_heard() -> None:
    scene = Scene(workers=6).accepted().up().dies(1, 137).changes(2, terminating=True).changes(3, owned=False)
    scene.launchers.pop("pod-4")
    scene.settle()
    assert scene.status.workers == WorkersStatus(desired=6, ready=2)
    assert scene.status.ready_workers == 2
    assert scene.status.summary is not None
    assert scene.status.summary.workers == "2/6"
    scene.later(15, heard=False).settle()
    assert scene.status.ready_workers == 0
    assert scene.status.selector == (
        "app.kubernetes.io/managed-by=edgecloud,edgecloud.io/job=digits,app.kubernetes.io/component=worker"
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"workers": "0/0"}),
        ({"workers": WorkersStatus(desired=4, ready=3)}, {"workers": "3/4"}),
        ({"progress": ProgressStatus(percent=41.4)}, {"progress": "41%"}),
        ({"progress": ProgressStatus(eta_seconds=192), "phase": "Running"}, {"eta": "3m12s"}),
        *(
            (
                {"progress": ProgressStatus(eta_seconds=192, samples_per_second=9), "phase": phase},
                {"eta": "", "samples_per_second": ""},
            )
            for phase in ("Pending", "Starting", "Recovering", "Suspended")
        ),
        ({"progress": ProgressStatus(eta_seconds=192), "phase": "Failed"}, {"eta": ""}),
        ({"progress": ProgressStatus(loss=0.123456)}, {"loss": "0.1235"}),
        ({"progress": ProgressStatus(loss=1e-9)}, {"loss": "1e-09"}),
        ({"progress": ProgressStatus(accuracy=0.9776)}, {"accuracy": "97.8%"}),
        *(
            ({"progress": ProgressStatus(samples_per_second=12345.6), "phase": phase}, {"samples_per_second": "12,346"})
            for phase in ("Running", "Succeeded")
        ),
    ],
)
def test_summary(fields: dict[str, Any], expected: dict[str, str]) -> None:
    summary = with_summary(TrainingJobStatus(**fields)).summary
    assert summary is not None
    for name, text in expected.items():
        assert getattr(summary, name) == text


def test_gpu_time_is_that_of_the_rounds_that_have_ended() -> None:
    gpus = {"limits": {"nvidia.com/gpu": 2}}
    scene = Scene(workers=2, resources=gpus, storage={"claimName": "c"}).running().later(100)
    scene.settle()
    assert scene.status.gpu_seconds is None, "the round goes on"
    scene.dies(1, 137).settle()
    assert (scene.members, scene.status.gpu_seconds) == ((), 400)
    scene.vanishes(1).later(50).up(1).settle()
    scene.running().later(10).fails(0, signal="SIGKILL").settle()
    scene.later(1).settle()
    assert (scene.rendezvous.round, scene.status.gpu_seconds) == (3, 440)
    scene.running().later(10).spec(suspend=True).settle()
    scene.all_say(state="preempted").later(5).settle()
    assert (scene.status.phase, scene.status.gpu_seconds) == ("Suspended", 500)
    scene.later(1000).spec(suspend=False).settle()
    scene.running().later(10).trained().later(1000).settle()
    assert (scene.status.phase, scene.status.gpu_seconds) == ("Succeeded", 540)


def test_gpu_time_of_a_job_that_is_measured_ends_with_its_training() -> None:
    scene = Scene(workers=1, resources={"limits": {"nvidia.com/gpu": 1}}, **MEASURED).running().later(10).trained()
    assert (scene.status.measuring is not None, scene.status.gpu_seconds) == (True, 10)
    scene.later(100).measurer().settle()
    scene.measurer_ends(0, make_message()).settle()
    assert scene.status.gpu_seconds == 10


def test_the_time_to_the_end_is_that_of_a_training_that_goes_on() -> None:
    """It stood still for as long as the job was suspended, and into its next round."""
    scene = Scene(storage={"claimName": "c"}).running()

    def shown() -> tuple[str, str, str]:
        summary = scene.status.summary
        assert summary is not None
        return summary.progress, summary.eta, summary.samples_per_second

    def steps(number: int) -> None:
        at = scene.later(10).now.timestamp()
        report = make_progress(number, total_steps=100, samples_per_second=7.0, reported_at=at)
        scene.polls(0, progress=report).settle()

    steps(10)
    steps(50)
    assert shown() == ("50%", "12s", "7")
    scene.operator_restarts().settle()
    assert shown() == ("50%", "12s", "7"), "it is not known to have stopped"
    scene.all_say(state="running").spec(suspend=True).settle()
    scene.all_say(state="preempted").settle()
    scene.later(3600).settle()
    assert shown() == ("50%", "", "")
    scene.spec(suspend=False).settle()
    assert (scene.status.phase, shown()) == ("Starting", ("50%", "", ""))
    scene.all_say(state="running", progress=None).settle()
    assert (scene.status.phase, shown()) == ("Running", ("50%", "", ""))
    steps(60)
    assert shown() == ("60%", "", "7")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], ""),
        ([("Running", "False", "WaitingForWorkers")], "WaitingForWorkers"),
        ([("Running", "True", "WorkersRunning"), ("Blocked", "True", "Unschedulable")], "Unschedulable"),
        ([("Running", "True", "WorkersRunning"), ("Blocked", "False", "NotBlocked")], "WorkersRunning"),
        ([("Stalled", "True", "NoProgress"), ("Blocked", "True", "Unschedulable")], "Unschedulable"),
        ([("Suspended", "Unknown", "Stopping"), ("Running", "True", "WorkersRunning")], "WorkersRunning"),
        ([("Suspended", "True", "Suspended"), ("Running", "False", "RoundClosed")], "Suspended"),
        ([("Failed", "True", "BadConfiguration"), ("Running", "False", "Finished")], "BadConfiguration"),
    ],
)
def test_the_reason_is_that_of_what_matters_most(said: list[Any], expected: str) -> None:
    status = TrainingJobStatus()
    for kind, value, reason in said:
        status = conditions.put(status, kind, value, reason, now=NOW)
    summary = with_summary(status).summary
    assert summary is not None
    assert summary.reason == expected


def test_a_finished_job_without_a_known_end_is_at_100_percent() -> None:
    scene = Scene(workers=1).running().says(0, progress=make_progress(7))
    scene.settle()
    scene.says(0, state="succeeded").settle()
    assert scene.status.progress is not None
    assert (scene.status.progress.percent, scene.status.progress.step) == (100.0, 7)


# Writing

RUNNING = TrainingJobStatus(phase="Running", progress=ProgressStatus(step=1))


@pytest.mark.parametrize(
    ("change", "after", "delay"),
    [
        pytest.param({"progress": ProgressStatus(step=2)}, 3.0, 7.0, id="progress waits"),
        pytest.param({"progress": ProgressStatus(step=2)}, 12.0, 0.0, id="until it is due"),
        pytest.param({"ready_workers": 1, "workers": WorkersStatus(ready=1)}, 3.0, 7.0, id="so do the counts"),
        pytest.param(
            {"checkpoint": CheckpointStatus(step=2)}, 0.25, CHECKPOINT_SECONDS - 0.25, id="a checkpoint, briefly"
        ),
        pytest.param({"phase": "Recovering", "progress": ProgressStatus(step=2)}, 0.1, 0.0, id="a phase does not"),
        pytest.param({"restarts": 1}, 0.1, 0.0, id="nor do restarts"),
    ],
)
def test_write_delay(change: dict[str, Any], after: float, delay: float) -> None:
    new = RUNNING.model_copy(update=change)
    now = NOW + timedelta(seconds=after)
    assert write_delay(RUNNING, new, last_write=NOW, now=now, progress_seconds=10.0) == pytest.approx(delay)


def test_the_last_evaluation_is_written_with_the_end() -> None:
    """Mere progress waits for its turn; what came with the last report must not be waiting when the job is over."""
    scene = Scene().running().all_say(progress=make_progress(1, evaluation={"accuracy": 0.5}))
    scene.settle()
    last = make_progress(2, evaluation={"accuracy": 0.75}, performance={"stepSeconds": 0.5})
    plan = scene.all_say(state="succeeded", progress=last).decide()
    assert plan.status is not None
    assert plan.status_first
    assert (plan.status.phase, plan.status.performance) == ("Succeeded", {"stepSeconds": 0.5})
    assert plan.status.evaluation is not None
    assert plan.status.evaluation.accuracy == 0.75
    assert write_delay(scene.status, plan.status, last_write=NOW, now=NOW, progress_seconds=10.0) == 0.0


def test_the_first_write_is_made_at_once() -> None:
    for old, last in ((None, NOW), (RUNNING, None)):
        assert write_delay(old, RUNNING, last_write=last, now=NOW, progress_seconds=10.0) == 0.0
