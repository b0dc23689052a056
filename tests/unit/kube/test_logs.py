"""What the log looks like: what it is about, and that nobody else can write into it."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kopf._cogs.clients import watching

from edgecloud_operator.kube.logs import JsonFormatter, TextFormatter, hush_kopf
from edgecloud_operator.subject import about, subject
from tests.unit.core.profile import tries

FORGED = "digits\n2026-11-24 12:00:00,000 INFO    edgecloud_operator.kube.operator: all is well"
HOSTILE = st.text(max_size=80) | st.sampled_from(
    [FORGED, "\r\x1b[2K\x1b[1A", "a\u2028b\u2029c\x85d\x0be", "\ud800", '"}\n{"level":"info"}', "\u202egnirts\u2066"]
)


def logged(formatter: logging.Formatter, *say: Any, error: BaseException | None = None, **more: Any) -> str:
    """What a line comes to in a file."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="utf-8", newline="") as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        logger = logging.Logger("edgecloud_operator.test")
        logger.addHandler(handler)
        logger.info(*say, exc_info=error, **more)
        stream.flush()
        return raw.getvalue().decode()


def failure(text: str) -> BaseException:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError(text) from error
    except ValueError as error:
        return error


# Text


def test_a_line_for_people() -> None:
    line = logged(TextFormatter(), "seen: %d jobs", 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ INFO    edgecloud_operator\.test: seen: 3 jobs\n", line)


def test_what_it_is_about_stands_before_the_message() -> None:
    with about(("team", "digits"), round=3):
        assert ": [team/digits round 3] hello\n" in logged(TextFormatter(), "hello")
        with about(("team", "digits"), round=3, worker=1):
            assert ": [team/digits round 3 worker 1] hello\n" in logged(TextFormatter(), "hello")
        assert ": [team/digits round 3] hello\n" in logged(TextFormatter(), "hello")
    assert subject() is None
    assert ": hello\n" in logged(TextFormatter(), "hello")


def test_an_error_is_set_off_line_by_line() -> None:
    lines = logged(TextFormatter(), "broken", error=failure(FORGED), stack_info=True).split("\n")
    assert lines[-1] == ""
    assert lines[0].endswith(": broken")
    assert len(lines) > 10
    assert all(line.startswith("    | ") for line in lines[1:-1])
    assert "    | ValueError: digits" in lines


@tries(200)
@given(HOSTILE, HOSTILE)
def test_nobody_forges_a_line(said: str, name: str) -> None:
    with about(("team", name)):
        for line in (logged(TextFormatter(), "said: %s", said), logged(TextFormatter(), "said: %r", said)):
            assert line.endswith("\n")
            assert line.removesuffix("\n").isprintable()
            assert len(line.splitlines()) == 1
        lines = logged(TextFormatter(), "said: %s", said, error=failure(said)).removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("    | ") for line in lines[1:])


# JSON


def test_an_object_on_a_line() -> None:
    said = json.loads(logged(JsonFormatter(), "seen: %d jobs", 3))
    assert re.fullmatch(r"[\d-]+T[\d:.]+\+00:00", said.pop("time"))
    assert said == {"level": "info", "logger": "edgecloud_operator.test", "message": "seen: 3 jobs"}


def test_what_it_is_about_has_fields_of_its_own() -> None:
    with about(("team", "digits"), round=3, worker=0):
        said = json.loads(logged(JsonFormatter(), "hello"))
    assert (said["job"], said["round"], said["worker"], said["message"]) == ("team/digits", 3, 0, "hello")
    with about(("team", "digits")):
        said = json.loads(logged(JsonFormatter(), "hello"))
    assert (said["job"], said["round"], "worker" in said) == ("team/digits", 0, False)


@tries(200)
@given(HOSTILE, HOSTILE)
def test_an_object_is_a_line_and_loses_nothing(said: str, name: str) -> None:
    with about(("team", name), round=2):
        line = logged(JsonFormatter(), "said: %s", said, error=failure(said), stack_info=True)
    assert line.endswith("\n")
    assert line.removesuffix("\n").isprintable()
    assert len(line.splitlines()) == 1
    found = json.loads(line)
    assert found["message"] == f"said: {said}"
    assert found["job"] == f"team/{name}"
    assert said in found["exception"]
    assert "test_logs" in found["stack"]


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_what_needs_no_escape_has_none(formatter: logging.Formatter) -> None:
    assert "Löss 0,5 für ∑ 学习" in logged(formatter, "Löss 0,5 für ∑ 学习")


# kopf's


def test_what_fails_for_ever_is_told_of_ever_more_rarely() -> None:
    hush_kopf("info")
    logger = watching.logger
    messages = [f"Request attempt #{number} failed; will retry: GET /x -> no" for number in range(1, 1001)]
    passed = [text for text in messages if logger.filter(logger.makeRecord("", logging.ERROR, "", 0, text, (), None))]
    assert [passed[0], passed[-1], len(passed)] == [messages[0], messages[511], 10]
    assert logger.filter(logger.makeRecord("", logging.ERROR, "", 0, "Something else", (), None))
