"""Which reports are taken: (round, sequence) never go back, and values last until they are replaced."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.protocol import Acknowledged, FailureReport, PollRequest, ProgressReport
from edgecloud_operator.coordinator.admission import (
    STATUS_CODES,
    Admitted,
    Identity,
    Refusal,
    RefusalReason,
    admit,
    belongs,
)
from edgecloud_operator.coordinator.desk import Desk
from edgecloud_operator.core.members import SILENT_SECONDS
from edgecloud_operator.core.observed import Launcher
from tests.unit.coordinator.served import identity

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
WHO = identity()
PROGRESS = ProgressReport(step=7, reported_at=100.0)
NEWER = ProgressReport(step=9, reported_at=101.0)
FAILURE = FailureReport(local_rank=0, rank=0, exit_code=1, reason="ProgramError", at=100.0)


def make_report(**fields: Any) -> PollRequest:
    default: dict[str, Any] = {
        "protocol": 1, "job_uid": WHO.job_uid, "pod_uid": WHO.pod_uid, "sequence": 10, "round": 2, "state": "running",
        "address": "10.0.0.1", "next_port": 20000,
    }  # fmt: skip
    return PollRequest(**(default | fields))


def taken(last: Launcher | None, report: PollRequest, *, current_round: int = 2) -> Admitted:
    result = admit(last, report, current_round=current_round, now=LATER)
    assert isinstance(result, Admitted), result
    return result


def refused(last: Launcher, report: PollRequest) -> Refusal:
    result = admit(last, report, current_round=2, now=LATER)
    assert isinstance(result, Refusal), result
    return result


LAST = Launcher(
    report=make_report(progress=PROGRESS), heard_at=NOW, since=NOW, first_step=(3, 90.0), progress_at=NOW.timestamp()
)


def test_the_first_word() -> None:
    launcher = taken(None, make_report(progress=PROGRESS)).launcher
    assert launcher == Launcher(
        report=make_report(progress=PROGRESS), heard_at=LATER, since=LATER, first_step=(7, 100.0), progress_at=100.0
    )


@pytest.mark.parametrize(
    ("sequence", "number", "reason"),
    [
        (10, 2, "stale-sequence"),
        (9, 2, "stale-sequence"),
        (1, 3, "stale-sequence"),
        (11, 1, "stale-round"),
        (11, 0, "stale-round"),
    ],
)
def test_what_is_old_is_refused(sequence: int, number: int, reason: str) -> None:
    assert refused(LAST, make_report(sequence=sequence, round=number)).reason == reason


@pytest.mark.parametrize(("sequence", "number"), [(11, 2), (11, 3), (10**9, 10**9)])
def test_what_is_newer_is_taken(sequence: int, number: int) -> None:
    launcher = taken(LAST, make_report(sequence=sequence, round=number)).launcher
    assert (launcher.report.sequence, launcher.report.round) == (sequence, number)
    assert launcher.heard_at == LATER


def test_values_last_until_they_are_replaced() -> None:
    silent = taken(LAST, make_report(sequence=11)).launcher
    assert silent.report.progress == PROGRESS
    assert taken(silent, make_report(sequence=12, progress=NEWER)).launcher.report.progress == NEWER


def test_values_are_those_of_their_round() -> None:
    launcher = taken(LAST, make_report(sequence=11, round=3, state="idle")).launcher
    assert launcher.report.progress is None
    assert launcher.first_step is None
    assert taken(launcher, make_report(sequence=12, round=3, progress=NEWER)).launcher.first_step == (9, 101.0)


def test_the_first_step_of_a_round_stays() -> None:
    assert taken(LAST, make_report(sequence=11, progress=NEWER)).launcher.first_step == (3, 90.0)
    silent = replace(LAST, first_step=None)
    assert taken(silent, make_report(sequence=11, progress=NEWER)).launcher.first_step == (9, 101.0)


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0])
def test_progress_is_as_old_as_the_operators_clock_says(skew: float) -> None:
    made = ProgressReport(step=7, reported_at=LATER.timestamp() + skew)
    quiet = replace(LAST, report=make_report(), progress_at=0.0)
    first = taken(quiet, make_report(sequence=11, progress=made)).launcher
    assert first.progress_at == LATER.timestamp()

    later = LATER + timedelta(seconds=30)
    for report in (make_report(sequence=12), make_report(sequence=12, progress=made)):
        again = admit(first, report, current_round=2, now=later)
        assert isinstance(again, Admitted)
        assert again.launcher.progress_at == LATER.timestamp(), "said again is not done again"
    for change in ({"step": 8}, {"reported_at": made.reported_at + 1}):
        report = make_report(sequence=12, progress=made.model_copy(update=change))
        newer = admit(first, report, current_round=2, now=later)
        assert isinstance(newer, Admitted)
        assert newer.launcher.progress_at == later.timestamp()
        assert newer.launcher.report.progress == report.progress, "for the speed, its own clock is good enough"


@pytest.mark.parametrize("age", [3600.0, -3600.0])
def test_an_operator_that_has_just_come_up_asks_the_worker_how_old_its_progress_is(age: float) -> None:
    made = ProgressReport(step=7, reported_at=LATER.timestamp() - age)
    assert taken(None, make_report(progress=made)).launcher.progress_at == LATER.timestamp() - max(0.0, age)
    assert taken(None, make_report()).launcher.progress_at == 0.0


@pytest.mark.parametrize("said", [{"progress": NEWER}, {"failure": FAILURE, "state": "failed"}])
def test_what_is_said_of_an_older_round_than_the_current_is_dropped(said: dict[str, Any]) -> None:
    admitted = taken(LAST, make_report(sequence=11, **said), current_round=3)
    assert admitted.dropped is not None and admitted.dropped.reason == "stale-round"
    assert admitted.launcher.report.progress is None and admitted.launcher.report.failure is None
    assert admitted.launcher.heard_at == LATER  # the launcher itself is heard: it is to be told of the new round
    assert admitted.launcher.report.sequence == 11


def test_an_older_round_without_values_is_nothing_to_drop() -> None:
    assert taken(LAST, make_report(sequence=11, state="stopping"), current_round=3).dropped is None


def test_since_is_when_the_state_was_first_heard() -> None:
    assert taken(LAST, make_report(sequence=11)).launcher.since == NOW
    assert taken(LAST, make_report(sequence=11, state="stopping")).launcher.since == LATER
    assert taken(LAST, make_report(sequence=11, round=3)).launcher.since == LATER


@pytest.mark.parametrize(
    ("said", "news"),
    [
        ({}, "none"),
        ({"next_port": 5555, "hold": 9.0}, "none"),
        ({"ack": Acknowledged(action="run", round=2)}, "none"),
        ({"progress": PROGRESS.model_copy(update={"step": 8})}, "progress"),
        ({"state": "stopping"}, "state"),
        ({"round": 3}, "state"),
        ({"draining": True}, "state"),
        ({"address": "10.0.0.9"}, "state"),
        ({"port": 1234}, "state"),
        ({"failure": FailureReport(local_rank=0, rank=0, reason="Killed", at=1.0)}, "state"),
    ],
)
def test_what_is_news(said: dict[str, Any], news: str) -> None:
    assert taken(LAST, make_report(sequence=11, **said)).news == news


def test_whoever_is_heard_for_the_first_time_or_again_is_news() -> None:
    assert taken(None, make_report()).news == "state"
    silent = replace(LAST, heard_at=LATER - timedelta(seconds=SILENT_SECONDS))
    assert taken(silent, make_report(sequence=11)).news == "state"


def test_every_reason_has_a_status_code() -> None:
    assert set(STATUS_CODES) == set(get_args(RefusalReason))
    assert all(400 <= code < 600 for code in STATUS_CODES.values())


# Any sequence of reports


def make_progress(step: int, at: float) -> ProgressReport:
    return ProgressReport(step=step, reported_at=at)


reports = st.builds(
    make_report,
    sequence=st.integers(1, 12),
    round=st.integers(0, 4),
    state=st.sampled_from(["idle", "running", "failed", "succeeded"]),
    progress=st.none() | st.builds(make_progress, st.integers(0, 50), st.floats(0, 1000)),
    failure=st.none() | st.just(FAILURE),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(reports, st.integers(0, 4)), max_size=12))
def test_nothing_goes_back(told: list[tuple[PollRequest, int]]) -> None:
    desk = Desk(lambda key: None)
    key = (WHO.namespace, WHO.job)
    rounds, dropped = 0, 0
    last: Launcher | None = None
    for report, current in told:
        rounds = max(rounds, current)
        desk.publish(key, {}, current_round=rounds, finished=False)
        refusal = desk.hear(WHO, report)
        launcher = desk.launchers(key).get(WHO.pod_uid)
        stale = report.round < rounds and (report.progress or report.failure)
        if refusal is None:
            assert launcher is not None
            assert last is None or report.sequence > last.report.sequence
            assert last is None or report.round >= last.report.round
            assert launcher.report.sequence == report.sequence
            kept = report.progress or (last.report.progress if last and last.report.round == report.round else None)
            assert launcher.report.progress == (None if stale else kept)
            assert launcher.report.failure == (None if stale else report.failure)
            dropped += bool(stale)
        else:
            assert launcher == last, "a refused report leaves no trace"
            assert last is not None
            assert report.sequence <= last.report.sequence or report.round < last.report.round
            dropped += 1
        last = launcher
    assert desk.refused.total() == dropped


# Who speaks of whom


@given(
    st.sampled_from(["team", "rival"]),
    st.sampled_from(["digits", "other"]),
    st.sampled_from(["0", "1", "00", "+0", " 0", "-0", "\N{ARABIC-INDIC DIGIT ZERO}"]),
    st.sampled_from(["uid-of-digits", "uid-of-other"]),
    st.sampled_from(["pod-digits-0", "pod-digits-1"]),
)
def test_only_the_tokens_own_worker_is_spoken_of(
    namespace: str, job: str, index: str, job_uid: str, pod_uid: str
) -> None:
    who: Identity = identity("digits", 0)
    refusal = belongs(
        who, namespace=namespace, job=job, index=index, report=make_report(job_uid=job_uid, pod_uid=pod_uid)
    )
    own = (namespace, job, index, job_uid, pod_uid) == ("team", "digits", "0", who.job_uid, who.pod_uid)
    assert (refusal is None) == own
    assert refusal is None or refusal.reason == "foreign"
