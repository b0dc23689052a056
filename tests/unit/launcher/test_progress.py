"""Values of any kind go in, valid fields come out."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecloud.launcher import failure, progress
from edgecloud.launcher.messages import compact
from edgecloud.launcher.standing import Standing
from edgecloud.launcher.verdict import End
from edgecloud.protocol import MAX_BODY_BYTES, PollRequest, ProgressReport


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


class Odd:
    def __float__(self) -> float:
        raise RuntimeError("a tensor with more than one element")

    __index__ = __int__ = __float__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (True, 1.0),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (math.nan, None),
        (-math.inf, None),
        (10**400, None),
        ("1.5", None),
        (b"1", None),
        (None, None),
        (1j, None),
        ([1.0], None),
        (Odd(), None),
    ],
)
def test_number(value: Any, expected: float | None) -> None:
    assert progress.number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (np.int32(7), 7),
        (7.0, 7),
        (7.9, 7),
        (2**53, 2**53),
        (2**53 + 1, None),
        (-1, None),
        (math.nan, None),
        ("7", None),
        (10**400, None),
        (Odd(), None),
    ],
)
def test_count(value: Any, expected: int | None) -> None:
    assert progress.count(value) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"accuracy": 1.0000001}, {"accuracy": 1.0}),
        ({"accuracy": 93.5}, {}),
        ({"accuracy": -0.1}, {}),
        ({"epoch": -1, "samplesPerSecond": 1e13}, {}),
        ({"loss": -1e300}, {"loss": -1e300}),
        ({"metrics": {"a" * 70: 1, "": 2, "b\n\ud800": 3}}, {"metrics": {"a" * 63: 1.0, "b": 3.0}}),
        ({"metrics": {"bad": "x"}}, {}),
        ({"metrics": {str(index): index for index in range(50)}}, {"metrics": {str(i): float(i) for i in range(32)}}),
        ({"metrics": [1]}, {}),
        ({"evaluation": {"accuracy": 0.5, "classes": ["a", {"b": None}]}},) * 2,
        ({"evaluation": "good", "performance": [], "checkpoint": None}, {}),
        ({"evaluation": {"text": "x" * 2400}}, {}),
        ({"evaluation": {"text": "\ud800"}}, {}),
        ({"evaluation": {"\udfff": 1}}, {}),
        ({"evaluation": {"count": 10**20}}, {}),
        ({"evaluation": {"value": math.inf}}, {}),
        ({"evaluation": {str(index): 0 for index in range(65)}}, {}),
        ({"evaluation": deep(9)}, {}),
        ({"evaluation": deep(8)},) * 2,
        ({"evaluation": deep(2000)}, {}),
        ([], {}),
        (None, {}),
    ],
)
def test_clean(raw: Any, expected: dict[str, Any]) -> None:
    assert progress.clean(raw) == expected


@given(
    st.dictionaries(
        st.sampled_from([*progress.COUNTS, *progress.RANGES, "reportedAt", "metrics", "other"]),
        st.integers() | st.floats() | st.text() | st.none() | st.dictionaries(st.text(), st.floats() | st.integers()),
    )
)
@settings(deadline=None)
def test_whatever_is_received_is_valid(raw: dict[str, Any]) -> None:
    report = progress.received(raw)
    if report is not None:
        ProgressReport.parse(report)


NEAR = st.sampled_from([2**53, 2**53 + 1, -(2**53), -(2**53) - 1, math.inf, math.nan, 1e308, True, None])
VALUES = st.recursive(
    NEAR | st.integers() | st.floats() | st.text(max_size=3) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def nested(draw: st.DrawFn) -> Any:
    """A value about as deep within lists and objects as is allowed."""
    value = draw(VALUES)
    for _ in range(draw(st.integers(0, 10))):
        value = {"a": value} if draw(st.booleans()) else [value]
    return value


DOCUMENTS = st.dictionaries(st.text(max_size=2), nested(), max_size=3) | st.integers(63, 66).map(
    lambda size: {str(number): number for number in range(size)}
)


@given(DOCUMENTS)
@settings(deadline=None, max_examples=150)
def test_the_launcher_takes_the_documents_that_the_protocol_takes(value: dict[str, Any]) -> None:
    """No others, or a coordinator would refuse every poll of that worker; and no fewer, or the bounds are two."""

    def takes(document: Any) -> bool:
        try:
            ProgressReport.parse({"step": 1, "reportedAt": 1.0, "evaluation": document})
        except ValidationError:
            return False
        return True

    assert (progress.document(value) is not None) == takes(value)
    made = progress.fitted(value)
    assert made is None or (progress.document(made) == made and takes(made))
    good = {key: entry for key, entry in value.items() if takes({"x": entry}) and key.isprintable() and key}
    assert len(value) > 64 or set(progress.left_out(value, made)).isdisjoint(good), "what is good is not left out"


def test_the_largest_poll_is_one_that_the_coordinator_reads() -> None:
    """Of every part the most, in characters that take the most bytes."""
    wide = "\U0001f600"
    document = {"a": [1] * 1190}
    metrics = {wide * 60 + f"{number:03}": -1.2345678901234567e-300 for number in range(progress.MAX_METRICS)}
    said = progress.received(
        {"step": 1, "reportedAt": 1.0, "metrics": metrics} | dict.fromkeys(progress.DOCUMENTS, document)
    )
    assert said is not None and {*progress.DOCUMENTS, "metrics"} <= said.keys()
    standing = Standing(job_uid="j" * 64, pod_uid="p" * 64, address="a" * 253, node=wide * 253, next_port=65535)
    standing.progress = said
    standing.failure = failure.report(
        local_rank=1023, rank=10**6, reason="ProgramError", message=wide * 5000, at=1.0, end=End(code=1)
    )
    body = compact({**standing.poll(10.0), "sequence": 2**53})
    assert len(body) < MAX_BODY_BYTES / 2
    PollRequest.model_validate_json(body, by_alias=True, by_name=False)


def test_merging_takes_the_newest_of_each() -> None:
    older = {"step": 5, "loss": 1.0, "accuracy": 0.5, "metrics": {"a": 1.0, "b": 1.0}, "reportedAt": 1.0}
    newer = {"step": 4, "loss": 2.0, "metrics": {"b": 2.0}, "reportedAt": 2.0}
    merged = progress.merge([newer, older])
    assert merged == {
        "step": 4,
        "loss": 2.0,
        "accuracy": 0.5,
        "metrics": {"a": 1.0, "b": 2.0},
        "reportedAt": 2.0,
    }
    assert progress.merge([]) is None
    many = [{"step": 1, "reportedAt": 1.0, "metrics": {f"{i}-{j}": 0.0 for j in range(32)}} for i in range(3)]
    ProgressReport.parse(progress.merge(many))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1, "b": (1, 2)}, {"a": 1, "b": [1, 2]}),
        ({"a": math.nan, "b": object(), "c": "\ud800", "d": 1}, {"d": 1}),
        ({"large": "x" * 3000, "small": 1}, {"small": 1}),
        ({"large": "x" * 2000, "deep": deep(8), "small": deep(7)}, {"large": "x" * 2000, "small": deep(7)}),
        (0.5, None),
        ({"only": object()}, None),
        ({}, None),
    ],
)
def test_a_published_document_is_made_to_fit(value: Any, expected: dict[str, Any] | None) -> None:
    assert progress.fitted(value) == expected
    assert expected is None or progress.document(expected) == expected
