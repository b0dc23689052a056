"""How each member of a round is doing, from its Pod and its launcher's last word."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgecloud.api.status import Rendezvous
from edgecloud_operator.core.members import (
    SILENT_SECONDS,
    MemberState,
    called_away,
    death,
    heard,
    member_states,
    sent_away,
    silent,
)
from edgecloud_operator.core.observed import Launcher, Pod, Termination
from tests.unit.core.build import NOW, died, make_failure, make_job, make_launcher, make_observed, make_pod, member

ROUND = 3
ALIVE = make_pod(0)
GOING = make_pod(0, terminating=True)


def says(state: str, number: int = ROUND, **report: Any) -> Launcher:
    if state == "failed":
        report = {"failure": make_failure()} | report
    return make_launcher("pod-0", state=state, round=number, **report)


def state_of(pod: Pod | None, launcher: Launcher | None) -> MemberState:
    observed = make_observed([pod] if pod else [], [launcher] if launcher else [])
    [state] = member_states(make_job().spec, Rendezvous(round=ROUND, members=(member(0),)), observed, NOW)
    return state


@pytest.mark.parametrize(
    ("pod", "launcher", "doing", "leaving", "reason"),
    [
        # A living Pod
        pytest.param(ALIVE, None, "unknown", False, None, id="not heard by this operator"),
        pytest.param(GOING, None, "unknown", True, None, id="not heard, and on its way out"),
        pytest.param(ALIVE, says("idle", 0), "starting", False, None, id="new, and not told yet"),
        pytest.param(ALIVE, says("running", 2), "starting", False, None, id="still in the round before"),
        pytest.param(ALIVE, says("failed", 2), "starting", False, None, id="a failure of an older round is paid"),
        pytest.param(ALIVE, says("running", 4), "unknown", False, None, id="in a round that status knows nothing of"),
        pytest.param(ALIVE, says("running"), "running", False, None, id="running"),
        pytest.param(ALIVE, says("stopping"), "stopping", False, None, id="stopping"),
        pytest.param(ALIVE, says("succeeded"), "succeeded", False, None, id="done"),
        pytest.param(ALIVE, says("preempted"), "preempted", False, None, id="left with 143, unasked"),
        pytest.param(ALIVE, says("idle"), "preempted", False, None, id="was told to wait within the round"),
        pytest.param(ALIVE, says("running", draining=True), "running", True, None, id="asked to leave by SIGTERM"),
        pytest.param(GOING, says("running"), "running", True, None, id="asked to leave by the API server"),
        pytest.param(ALIVE, says("failed"), "failed", False, "ProgramError", id="failed"),
        pytest.param(ALIVE, says("failed", failure=None), "failed", False, "ProgramError", id="failed without a word"),
        pytest.param(ALIVE, says("failed", draining=True), "failed", True, "ProgramError", id="failed on its way out"),
        # A dead Pod: what the launcher said of the round's end holds
        pytest.param(died(ALIVE, 0), says("succeeded"), "succeeded", False, None, id="done, then told to exit"),
        pytest.param(died(ALIVE, 137), says("succeeded"), "succeeded", False, None, id="done, then killed"),
        pytest.param(died(ALIVE, 137), says("failed"), "failed", False, "ProgramError", id="failed, then killed"),
        pytest.param(died(ALIVE, 143), says("preempted"), "preempted", False, None, id="left, then ended"),
        # A dead Pod: else its end tells
        pytest.param(
            died(ALIVE, 0, round=ROUND, outcome="succeeded"), says("running"), "succeeded", False, None, id="last words"
        ),
        pytest.param(died(ALIVE, 0, round=ROUND, outcome="succeeded"), None, "succeeded", False, None, id="unheard"),
        pytest.param(died(ALIVE, 0), says("running"), "lost", False, "PodLost", id="0 without having finished"),
        pytest.param(
            died(ALIVE, 0, round=2, outcome="succeeded"), None, "lost", False, "PodLost", id="done with another round"
        ),
        pytest.param(died(ALIVE, 143), says("running"), "preempted", True, None, id="143 after a checkpoint"),
        pytest.param(died(ALIVE, 143), None, "preempted", True, None, id="143, unheard"),
        pytest.param(died(ALIVE, 137), says("running"), "lost", False, "PodLost", id="killed"),
        pytest.param(
            died(ALIVE, 137, out_of_memory=True), says("running"), "lost", False, "OutOfMemory", id="out of memory"
        ),
        pytest.param(
            died(ALIVE, 2), None, "lost", False, "BadConfiguration", id="the launcher's own bad configuration"
        ),
        pytest.param(died(ALIVE, 75), None, "lost", False, "Transient", id="the launcher's own transient trouble"),
        pytest.param(died(ALIVE, None), says("running"), "lost", False, "PodLost", id="evicted, no container status"),
        pytest.param(died(ALIVE, 137), says("running", draining=True), "preempted", True, None, id="its grace ran out"),
        pytest.param(died(GOING, 137), says("running"), "preempted", True, None, id="its grace ran out, unheard"),
        pytest.param(
            died(ALIVE, 1, round=ROUND, outcome="failed", failure=make_failure(reason="NonFinite")),
            says("running"),
            "failed",
            False,
            "NonFinite",
            id="its last words name the cause",
        ),
        pytest.param(
            died(ALIVE, 1, round=2, outcome="failed", failure=make_failure(reason="NonFinite")),
            None,
            "lost",
            False,
            "PodLost",
            id="its last words are of another round",
        ),
        # No Pod
        pytest.param(None, None, "lost", False, "PodLost", id="vanished, unheard"),
        pytest.param(None, says("running"), "lost", False, "PodLost", id="vanished"),
        pytest.param(None, says("running", draining=True), "preempted", True, None, id="left, then removed"),
        pytest.param(None, says("succeeded"), "succeeded", False, None, id="done, then removed"),
        pytest.param(None, says("failed"), "failed", False, "ProgramError", id="failed, then removed"),
        pytest.param(replace(ALIVE, owned=False), None, "lost", False, "PodLost", id="a foreign Pod is nobody's"),
        pytest.param(
            replace(ALIVE, uid="another"), None, "lost", False, "PodLost", id="its replacement is another one"
        ),
    ],
)
def test_member_state(
    pod: Pod | None, launcher: Launcher | None, doing: str, leaving: bool, reason: str | None
) -> None:
    state = state_of(pod, launcher)
    assert (state.doing, state.leaving) == (doing, leaving)
    assert (state.failure.report.reason if state.failure else None) == reason


@pytest.mark.parametrize(
    ("pod", "launcher", "aftermath"),
    [
        pytest.param(died(ALIVE, 137), says("running"), False, id="it was in the round"),
        pytest.param(died(ALIVE, 137), says("running", 2), True, id="it was in the one before"),
        pytest.param(died(ALIVE, 137), says("idle", 0), False, id="it was in none"),
        pytest.param(died(ALIVE, 137), None, False, id="nothing is known of it"),
        pytest.param(died(ALIVE, 1, round=2), None, True, id="its last words are of the one before"),
    ],
)
def test_what_is_left_of_the_round_before(pod: Pod, launcher: Launcher | None, aftermath: bool) -> None:
    failure = state_of(pod, launcher).failure
    assert failure is not None
    assert failure.aftermath is aftermath


def test_ranks_and_nodes_of_failures() -> None:
    job = make_job(workers=3, processesPerWorker=2)
    rendezvous = Rendezvous(round=ROUND, members=(member(0), member(2)))
    observed = make_observed(
        [make_pod(0), died(make_pod(2), 137)],
        [
            make_launcher("pod-0", round=ROUND, state="failed", failure=make_failure(rank=1, local_rank=1)),
            make_launcher("pod-2", round=ROUND, state="running", node="said-node"),
        ],
    )
    first, second = member_states(job.spec, rendezvous, observed, NOW)
    assert first.failure is not None
    assert second.failure is not None
    assert (first.failure.worker, first.failure.rank, first.failure.node) == (0, 1, "node-0")
    assert (second.failure.worker, second.failure.rank, second.failure.node) == (2, 2, "node-2")
    assert second.failure.round == ROUND
    [_, vanished] = member_states(job.spec, rendezvous, replace(observed, pods=(make_pod(0),)), NOW)
    assert vanished.failure is not None
    assert vanished.failure.node == "said-node"


@pytest.mark.parametrize(
    ("end", "signal", "exit_code", "words"),
    [
        (None, None, None, "the worker's Pod is gone"),
        (Termination(exit_code=1), None, 1, "ended with exit code 1"),
        (Termination(exit_code=137), "SIGKILL", None, "killed by SIGKILL"),
        (Termination(exit_code=139), "SIGSEGV", None, "killed by SIGSEGV"),
        (Termination(exit_code=255), None, 255, "ended with exit code 255"),
        (Termination(exit_code=128), None, 128, "ended with exit code 128"),
        (Termination(exit_code=137, out_of_memory=True), "SIGKILL", None, "out of memory"),
    ],
)
def test_death(end: Termination | None, signal: str | None, exit_code: int | None, words: str) -> None:
    report = death(end, rank=4, at=NOW)
    assert (report.signal, report.exit_code, report.rank, report.at) == (signal, exit_code, 4, NOW.timestamp())
    assert words in report.message


def test_the_clusters_own_words_on_a_death_are_kept() -> None:
    evicted = "Evicted: The node was low on resource: memory."
    assert death(None, why=evicted, rank=0, at=NOW).message == evicted
    assert evicted in death(Termination(exit_code=137), why=evicted, rank=0, at=NOW).message
    failure = state_of(replace(died(ALIVE, None), why=evicted), says("running")).failure
    assert failure is not None
    assert failure.report.message == evicted


@pytest.mark.parametrize(
    ("pod", "free"),
    [
        (died(ALIVE, 143), True),
        (died(GOING, 137), True),
        (died(GOING, None), True),
        (died(ALIVE, 137), False),
        (died(ALIVE, 0), False),
        (died(ALIVE, None), False),
    ],
)
def test_called_away(pod: Pod, free: bool) -> None:
    assert called_away(pod) is free


@pytest.mark.parametrize(
    ("pod", "sent"),
    [
        (died(ALIVE, 143), True),
        (replace(died(ALIVE, 143), why="Evicted: The node was low on resource: memory."), True),
        (replace(died(ALIVE, 143), why="DeadlineExceeded: Pod was active on the node longer than allowed"), True),
        (replace(died(ALIVE, 143), why="Terminated: Pod was terminated in response to imminent node shutdown."), False),
        (died(GOING, 143), False),
        (died(ALIVE, 137), False),
    ],
)
def test_sent_away(pod: Pod, sent: bool) -> None:
    assert sent_away(pod) is sent


def test_silence() -> None:
    launcher = make_launcher()
    long_ago = make_observed()
    edge = NOW + timedelta(seconds=SILENT_SECONDS)
    before = edge - timedelta(milliseconds=1)
    assert heard(launcher, before)
    assert not silent(launcher, long_ago, before)
    assert not heard(launcher, edge)
    assert silent(launcher, long_ago, edge)
    assert not heard(None, NOW)
    assert silent(None, long_ago, NOW)


def test_an_operator_that_has_just_come_up_calls_nobody_silent() -> None:
    late = NOW + timedelta(seconds=100)
    for launcher in (None, make_launcher()):
        assert not silent(launcher, make_observed(listening_since=late), late + timedelta(seconds=14))
        assert silent(launcher, make_observed(listening_since=late), late + timedelta(seconds=15))
