"""Failures: which one was the first cause, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud.api.spec import ExitCodeRule, RestartPolicy
from edgecloud.api.status import Budget
from edgecloud.protocol import ProgressReport
from edgecloud_operator.core.failures import MAX_FALLS, MAX_UNPAID, Failure, first_cause, judge, refreshed
from tests.unit.core.build import NOW, Scene, make_failure


def failure(worker: int = 0, *, at: float = 0.0, aftermath: bool = False, **report: Any) -> Failure:
    report = {"at": NOW.timestamp() + at} | report
    return Failure(worker=worker, rank=worker, node="", round=1, report=make_failure(**report), aftermath=aftermath)


LOST_PEER = "RuntimeError: [../gloo/transport/tcp/pair.cc:525] Read error: Connection reset by peer"
WATCHDOG = "what(): c10::DistBackendError: Process group watchdog thread terminated with exception: "


@pytest.mark.parametrize(
    ("cause", "others"),
    [
        pytest.param(failure(1, at=9, signal="SIGKILL"), [failure(0), failure(2)], id="a signal beats exit code 1"),
        pytest.param(
            failure(1, at=9, exit_code=None, reason="OutOfMemory"), [failure(0)], id="out of memory beats exit code 1"
        ),
        pytest.param(failure(1, at=9, reason="NonFinite"), [failure(0)], id="NaN beats exit code 1"),
        pytest.param(failure(1, at=9, exit_code=None, reason="PodLost"), [failure(0)], id="a lost Pod beats exit 1"),
        pytest.param(failure(1, at=9, exit_code=2, reason="BadConfiguration"), [failure(0)], id="exit 2 beats exit 1"),
        pytest.param(failure(1, at=9, message="boom"), [failure(0, message=LOST_PEER)], id="a victim's words lose"),
        pytest.param(
            failure(1, at=9, message="boom"),
            [failure(0, message="torch.distributed.DistBackendError: NCCL error, ncclRemoteError")],
            id="a victim's words in NCCL's voice lose",
        ),
        pytest.param(
            failure(1, at=9, message="boom"),
            [failure(0, message="DistNetworkError: failed to recv, got 0 bytes (TCPStore)")],
            id="a victim's words in the store's voice lose",
        ),
        pytest.param(
            failure(1, at=9, signal="SIGSEGV"),
            [failure(0, signal="SIGABRT", message=LOST_PEER)],
            id="an abort after a lost peer is a victim",
        ),
        pytest.param(failure(1, at=9, message="boom"), [failure(0, signal="SIGABRT", message=LOST_PEER)], id="even so"),
        pytest.param(
            failure(
                1, at=9, signal="SIGABRT", message=WATCHDOG + "CUDA error: an illegal memory access was encountered"
            ),
            [failure(0, signal="SIGABRT", message=WATCHDOG + "NCCL error: remote process exited")],
            id="what a watchdog says of its own GPU is a cause",
        ),
        pytest.param(failure(1, at=1), [failure(0, at=2), failure(2, at=3)], id="the earliest wins"),
        pytest.param(
            failure(1, at=1, signal="SIGKILL"), [failure(0, at=2, signal="SIGKILL")], id="the earliest signal wins"
        ),
        pytest.param(failure(0), [failure(1), failure(2)], id="at the same moment the lowest worker"),
        pytest.param(
            failure(1, at=9, signal="SIGKILL"),
            [failure(0, aftermath=True, exit_code=None, reason="PodLost")],
            id="this round's own beats what is left of the last one",
        ),
        pytest.param(
            failure(1, at=9, aftermath=True, exit_code=None, reason="PodLost"),
            [failure(0)],
            id="yet a Pod lost late beats those who waited for it",
        ),
        pytest.param(
            failure(1, at=9, signal="SIGKILL", message=LOST_PEER), [failure(0)], id="a killed process is no victim"
        ),
    ],
)
def test_first_cause(cause: Failure, others: list[Failure]) -> None:
    assert first_cause([cause, *others]) is cause
    assert first_cause([*others[::-1], cause]) is cause


def test_no_failure_has_no_cause() -> None:
    assert first_cause([]) is None


@pytest.mark.parametrize(
    ("reason", "signal", "strong"),
    [
        ("ProgramError", None, False),
        ("Transient", None, False),
        ("PortTaken", None, False),
        ("Killed", "SIGKILL", True),
        ("Killed", "SIGSEGV", True),
        ("Killed", "SIGTERM", True),
        ("Killed", "SIGABRT", False),
        ("OutOfMemory", "SIGKILL", True),
        ("NonFinite", None, True),
        ("BadConfiguration", None, True),
        ("StartFailed", None, True),
        ("GPUNotVisible", None, True),
        ("ExportFailed", None, True),
        ("Stalled", None, True),
        ("PodLost", None, True),
    ],
)
def test_strength(reason: str, signal: str | None, strong: bool) -> None:
    report = {"reason": reason} | ({"signal": signal} if signal else {"exit_code": 1})
    assert failure(**report).strong is strong


POLICY = RestartPolicy(max_restarts=3)
FULL = Budget(spent=3)
USED = Budget(unpaid=MAX_UNPAID)


@pytest.mark.parametrize(
    ("report", "budget", "paid", "failed", "spent", "unpaid"),
    [
        pytest.param({}, Budget(), True, None, 1, 0, id="an error costs one restart"),
        pytest.param({}, Budget(spent=2), True, None, 3, 0, id="up to the last one"),
        pytest.param({}, FULL, False, "RestartBudgetExceeded", 3, 0, id="then the job fails"),
        pytest.param({"exit_code": 2, "reason": "BadConfiguration"}, Budget(), False, "BadConfiguration", 0, 0),
        pytest.param({"exit_code": None, "reason": "StartFailed"}, Budget(), False, "BadConfiguration", 0, 0),
        pytest.param({"exit_code": 2, "reason": "ExportFailed"}, Budget(), False, "ExportFailed", 0, 0),
        pytest.param({"exit_code": 75, "reason": "Transient"}, Budget(), False, None, 0, 1, id="transient: unpaid"),
        pytest.param({"exit_code": None, "reason": "PortTaken"}, Budget(), False, None, 0, 1, id="port: unpaid"),
        pytest.param({"exit_code": 143}, Budget(), False, None, 0, 1, id="left after a checkpoint: unpaid"),
        pytest.param({"exit_code": 75, "reason": "Transient"}, FULL, False, None, 3, 1, id="unpaid is always free"),
        pytest.param({"exit_code": 75, "reason": "Transient"}, Budget(unpaid=4), False, None, 0, 5, id="the fifth"),
        pytest.param({"exit_code": 75, "reason": "Transient"}, USED, True, None, 1, 5, id="the sixth is paid"),
        pytest.param(
            {"exit_code": 75, "reason": "Transient"},
            Budget(spent=3, unpaid=MAX_UNPAID),
            False,
            "RestartBudgetExceeded",
            3,
            5,
            id="if there is something to pay with",
        ),
        pytest.param({"exit_code": None, "reason": "PodLost"}, Budget(), True, None, 1, 0, id="a lost Pod is paid"),
        pytest.param(
            {"signal": "SIGTERM"}, Budget(), True, None, 1, 0, id="SIGTERM from elsewhere is no exit code 143"
        ),
        pytest.param(
            {"exit_code": None, "reason": "PodLost", "aftermath": True}, Budget(), False, None, 0, 1, id="not once more"
        ),
    ],
)
def test_judge(report: dict[str, Any], budget: Budget, paid: bool, failed: str | None, spent: int, unpaid: int) -> None:
    verdict = judge(failure(**report), budget, 0, POLICY)
    assert (verdict.paid, verdict.failed) == (paid, failed)
    assert (verdict.budget.spent, verdict.budget.unpaid) == (spent, unpaid)


def test_no_restarts_at_all() -> None:
    assert judge(failure(), Budget(), 0, RestartPolicy(max_restarts=0)).failed == "RestartBudgetExceeded"


LATE = Budget(spent=3, unpaid=2, checkpoint_step=100, highest_step=100)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(99, {"checkpoint_step": 99, "falls": 1}, id="an older checkpoint gives nothing"),
        pytest.param(100, {}, id="nor does the same"),
        pytest.param(101, {"spent": 0, "unpaid": 0, "checkpoint_step": 101, "highest_step": 101}, id="a newer one all"),
    ],
)
def test_the_budget_comes_back_when_the_checkpoint_advanced(step: int, expected: dict[str, int]) -> None:
    assert refreshed(LATE, step) == LATE.model_copy(update=expected)


def test_the_budget_comes_back_where_checkpoints_were_lost_as_well() -> None:
    budget, policy = Budget(), RestartPolicy(max_restarts=2)
    for step, spent in ((900, 1), (50, 2), (100, 1), (150, 1)):
        verdict = judge(failure(), budget, step, policy)
        budget = verdict.budget
        assert (verdict.failed, budget.spent, budget.checkpoint_step) == (None, spent, step)
    assert (budget.highest_step, budget.falls) == (900, 1)
    assert refreshed(budget, 901).falls == 0


def test_steps_that_are_reported_to_and_fro_do_not_make_a_budget_without_end() -> None:
    budget, policy, failures = Budget(), RestartPolicy(max_restarts=3), 0
    while (verdict := judge(failure(), budget, 100 if failures % 2 == 0 else 0, policy)).failed is None:
        budget, failures = verdict.budget, failures + 1
    assert verdict.failed == "RestartBudgetExceeded"
    assert failures <= 2 * MAX_FALLS + policy.max_restarts


def test_a_budget_that_was_written_before_there_were_falls_is_one() -> None:
    budget = refreshed(Budget.parse({"spent": 3, "checkpointStep": 100}), 50)
    assert (budget.spent, budget.checkpoint_step, budget.highest_step, budget.falls) == (3, 50, 100, 1)
    budget = refreshed(Budget.parse({"spent": 3, "checkpointStep": 100}), 101)
    assert (budget.spent, budget.highest_step, budget.falls) == (0, 101, 0)


def test_paid_pods_stay_paid_when_the_budget_comes_back() -> None:
    assert refreshed(Budget(spent=3, paid_pods=("pod-1",)), 5).paid_pods == ("pod-1",)


def test_the_checkpoint_of_a_failure_is_remembered_so_that_it_counts_once() -> None:
    budget = judge(failure(), Budget(spent=3), 100, POLICY).budget
    assert (budget.spent, budget.checkpoint_step) == (1, 100)
    assert judge(failure(), budget, 100, POLICY).budget.spent == 2


RULES = (
    ExitCodeRule(exit_codes=(3, 4), action="Fail"),
    ExitCodeRule(exit_codes=(4, 5), action="RestartUnpaid"),
    ExitCodeRule(exit_codes=(2, 75), action="Restart"),
    ExitCodeRule(exit_codes=(137,), action="Fail"),
)


@pytest.mark.parametrize(
    ("report", "paid", "failed", "unpaid"),
    [
        pytest.param({"exit_code": 3}, False, "ExitCodeRule", 0, id="fail"),
        pytest.param({"exit_code": 4}, False, "ExitCodeRule", 0, id="the first rule that names it decides"),
        pytest.param({"exit_code": 5}, False, None, 1, id="unpaid"),
        pytest.param(
            {"exit_code": 2, "reason": "BadConfiguration"}, True, None, 0, id="a rule comes before the default"
        ),
        pytest.param({"exit_code": 75, "reason": "Transient"}, True, None, 0, id="here as well"),
        pytest.param({"exit_code": 1}, True, None, 0, id="a code that no rule names"),
        pytest.param({"signal": "SIGKILL"}, False, "ExitCodeRule", 0, id="137 names SIGKILL"),
        pytest.param({"signal": "SIGSEGV"}, True, None, 0, id="and not another signal"),
        pytest.param({"signal": "SIGRTMIN+3"}, True, None, 0, id="a signal without a number here"),
    ],
)
def test_exit_code_rules(report: dict[str, Any], paid: bool, failed: str | None, unpaid: int) -> None:
    verdict = judge(failure(**report), Budget(), 0, RestartPolicy(max_restarts=3, exit_code_rules=RULES))
    assert (verdict.paid, verdict.failed, verdict.budget.unpaid) == (paid, failed, unpaid)


def test_what_status_says_of_a_failure() -> None:
    said = Failure(
        worker=3, rank=7, node="node-3", round=5, report=make_failure(exit_code=1, message="boom", local_rank=1)
    ).to_status()
    assert said.dump() == {
        "worker": 3,
        "rank": 7,
        "exitCode": 1,
        "reason": "ProgramError",
        "message": "boom",
        "node": "node-3",
        "round": 5,
        "at": "2026-11-24T12:00:00Z",
    }


EVIL = "\x1b[2J\x1b]0;owned\x07 \u202eevil\x9b"


@pytest.mark.parametrize("reason", ["ExportFailed", "BadConfiguration", "PodLost", "ProgramError"])
def test_nothing_that_a_terminal_would_obey_comes_to_be_read(reason: str) -> None:
    """A worker says what it likes: `kubectl describe`, and who watches events, shows it."""
    scene = Scene(workers=1, restartPolicy={"maxRestarts": 0}).started()
    wire = {"step": 1, "reportedAt": 1.0, "metrics": {f"a{EVIL}": 1.0}}
    scene.polls(0, node=f"node{EVIL}", progress=ProgressReport.parse(wire)).changes(0, node="")
    scene.act()
    assert scene.status.progress is not None and scene.status.progress.metrics
    scene.polls(0, node=f"node{EVIL}", state="failed", failure=make_failure(1, reason=reason, message=f"a{EVIL}\nb"))
    failure, events = None, []
    while scene.status.phase != "Failed":
        events += scene.act().events
        failure = scene.status.last_failure
        scene.later(10)
    assert failure is not None and events
    assert (failure.node, failure.message) == ("node [2J ]0;owned   evil ", "a [2J ]0;owned   evil \nb")
    shown = [*(event.message for event in events), *(one.message for one in scene.status.conditions)]
    assert all(text.isprintable() for text in (*shown, *scene.status.progress.metrics))
