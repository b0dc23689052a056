"""The launcher's plain dicts and the protocol's models say the same."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud import protocol
from edgecloud.api.base import Model
from edgecloud.launcher import failure, messages, progress
from edgecloud.launcher.messages import parse_directive, termination
from edgecloud.launcher.standing import Standing


def make(model: type[Model], **fields: Any) -> Any:
    """Hypothesis takes a model's signature for the truth, which has the fields' names on the wire."""
    return model(**fields)


ORDERS = st.builds(
    make,
    st.just(protocol.RunOrder),
    first_rank=st.integers(0, 1000),
    world_size=st.integers(1, 1000),
    processes=st.integers(1, 64),
    group_rank=st.integers(0, 1000),
    group_size=st.integers(1, 1000),
    master_address=st.sampled_from(["10.0.0.1", "::1", "worker-0.job"]),
    master_port=st.integers(1, 65535),
)
DIRECTIVES = st.builds(
    make,
    st.just(protocol.Directive),
    action=st.sampled_from(typing.get_args(protocol.Action)),
    round=st.integers(0, 10**9),
    run=ORDERS,
    grace_seconds=st.floats(0, 3600),
    exit_code=st.integers(0, 255),
    reason=st.text(max_size=200),
    report_seconds=st.floats(0.05, 60),
    asked=st.booleans(),
)


def test_the_constants_are_the_protocols() -> None:
    assert messages.PROTOCOL == protocol.VERSION
    assert set(messages.ACTIONS) == set(typing.get_args(protocol.Action))
    assert messages.HOLD_SECONDS <= protocol.MAX_HOLD_SECONDS
    assert progress.MAX_DEPTH == protocol.MAX_DOCUMENT_DEPTH
    assert failure.MAX_CHARACTERS <= protocol.MAX_MESSAGE
    assert set(failure.REASONS) == set(typing.get_args(protocol.FailureReason))


@given(DIRECTIVES)
@settings(deadline=None)
def test_a_directive_is_read_as_it_was_meant(directive: protocol.Directive) -> None:
    read = parse_directive(json.dumps(directive.dump()).encode())
    for name in ("action", "round", "grace_seconds", "exit_code", "reason", "report_seconds", "asked"):
        assert getattr(read, name) == getattr(directive, name)
    if directive.action == "run":
        assert read.run is not None and directive.run is not None
        assert vars(read.run) == directive.run.model_dump()
    else:
        assert read.run is None


def test_what_is_left_out_has_the_protocols_defaults() -> None:
    ours, theirs = parse_directive(b'{"action":"stop","round":1}'), protocol.Directive(action="stop", round=1)
    for name in ("grace_seconds", "exit_code", "reason", "report_seconds"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize("asked", ["", ',"asked":null', ',"asked":"yes"'])
def test_a_coordinator_that_does_not_know_the_word_is_told_apart(asked: str) -> None:
    assert parse_directive(f'{{"action":"wait","round":1{asked}}}'.encode()).asked is None


def test_a_round_whose_meeting_place_is_not_known_yet() -> None:
    assert parse_directive(b'{"action":"run","round":1}').run is None


def test_fields_of_a_newer_coordinator_are_passed_over() -> None:
    assert parse_directive(b'{"action":"wait","round":1,"mood":"good","protocol":2}').round == 1


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "Expecting value"),
        (b"[]", "not an object"),
        (b"[" * 60000, "depth"),
        (b'{"action":"dance","round":1}', "unknown action 'dance'"),
        (b'{"action":["run"],"round":1}', "unknown action"),
        (b'{"action":"wait"}', "round"),
        (b'{"action":"wait","round":true}', "round"),
        (b'{"action":"wait","round":-1}', "round"),
        (b'{"action":"stop","round":1,"graceSeconds":"soon"}', "graceSeconds"),
        (b'{"action":"stop","round":1,"graceSeconds":NaN}', "graceSeconds"),
        (b'{"action":"exit","round":1,"exitCode":256}', "exitCode"),
        (b'{"action":"run","round":1,"run":[]}', "run: missing"),
        (b'{"action":"run","round":1,"run":{"masterAddress":"a"}}', "firstRank"),
        (b'{"action":"run","round":1,"run":{}}', "masterAddress"),
    ],
)
def test_what_is_no_directive(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_directive(raw)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_a_directive_or_a_value_error(raw: bytes) -> None:
    try:
        parse_directive(raw)
    except ValueError:
        return


@pytest.mark.parametrize("state", typing.get_args(protocol.State))
def test_every_poll_is_valid(state: str) -> None:
    standing = Standing(job_uid="j", pod_uid="p", address="10.0.0.1", node="", next_port=1)
    standing.state = state
    parsed = protocol.PollRequest.parse({**standing.poll(10.0), "sequence": 1})
    assert (parsed.state, parsed.hold, parsed.port) == (state, 10.0, None)
    order = protocol.RunOrder(
        first_rank=0, world_size=2, processes=1, group_rank=0, group_size=2, master_address="a", master_port=7
    )
    run = protocol.Directive(action="run", round=2, run=order)
    standing.ack = parse_directive(json.dumps(run.dump()).encode())
    standing.begin(standing.ack)
    standing.progress = {"step": 1, "reportedAt": 1.0}
    parsed = protocol.PollRequest.parse({**standing.poll(0.0), "sequence": 2})
    assert (parsed.round, parsed.port, parsed.failure) == (2, 7, None)
    assert parsed.ack is not None and (parsed.ack.action, parsed.ack.round) == ("run", 2)


@given(st.text(max_size=3000), st.text(max_size=300), st.integers(0, 10**9))
@settings(deadline=None)
def test_the_last_message_is_short_and_valid_whatever_is_in_it(message: str, reason: str, round: int) -> None:
    failure = {"localRank": 0, "rank": 3, "reason": "ProgramError", "message": message * 3, "at": 1.0}
    data = termination(round=round, outcome="failed", exit_code=1, failure=failure, reason=reason)
    assert len(data) <= 3500
    read: dict[str, Any] = json.loads(data.decode())
    assert read["round"] == round
    assert (message * 3).encode("utf-8", "replace").decode().endswith(read["failure"]["message"])
    if len(message) < 300:
        assert read["failure"]["message"] == (message * 3).encode("utf-8", "replace").decode()


def test_the_end_of_a_long_message_is_kept() -> None:
    failure = {"reason": "ProgramError", "message": "\x00" * 9000 + "ValueError: at last"}
    data = termination(round=1, outcome="failed", exit_code=1, failure=failure, progress={"step": 7, "loss": 1.0})
    read = json.loads(data)
    assert read["failure"]["message"].endswith("ValueError: at last")
    assert read["step"] == 7
    assert 3300 < len(data) <= 3500
