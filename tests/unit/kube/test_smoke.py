"""What `helm test` makes of a job's status."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud.api.status import TrainingJobStatus
from edgecloud_operator.kube.smoke import stands, verdict

AT = "2026-01-01T00:00:00Z"


def status(phase: str, *conditions: tuple[str, str, str, str], **more: Any) -> TrainingJobStatus:
    keys = ("type", "status", "reason", "message")
    said = [dict(zip(keys, one, strict=True)) | {"lastTransitionTime": AT} for one in conditions]
    return TrainingJobStatus.parse({"phase": phase, "conditions": said, **more})


@pytest.mark.parametrize("phase", ["Pending", "Starting", "Running", "Recovering", "Suspended"])
def test_a_job_that_goes_on_has_no_verdict(phase: str) -> None:
    assert verdict(status(phase)) is None


def test_a_success_has_nothing_to_say() -> None:
    assert verdict(status("Succeeded", ("Complete", "True", "AllWorkersSucceeded", ""))) == ""


def test_a_failure_names_its_reason_and_first_cause() -> None:
    failure = {"worker": 1, "reason": "ProgramError", "message": "no such file", "round": 1, "at": AT}
    said = verdict(status("Failed", ("Failed", "True", "RestartBudgetExceeded", "1 of 0"), lastFailure=failure))
    assert said == "RestartBudgetExceeded: 1 of 0\nworker 1: ProgramError: no such file"


def test_a_failure_without_a_word_is_one_all_the_same() -> None:
    assert verdict(status("Failed")) == "it failed"


def test_what_keeps_a_job() -> None:
    blocked = ("Blocked", "True", "Unschedulable", "0/2 nodes are available")
    assert stands(status("Pending", ("Stalled", "False", "Progressing", ""), blocked)) == (
        "Blocked, Unschedulable: 0/2 nodes are available"
    )
    assert stands(status("Starting", ("Stalled", "False", "Progressing", ""))) == "phase Starting"
    assert "no operator has taken it up" in stands(TrainingJobStatus())
