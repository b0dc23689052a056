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

from edgecloud.launcher import progress
from edgecloud.protocol import ProgressReport


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
        ({"evaluation": deep(16)}, {}),
        ({"evaluation": deep(15)},) * 2,
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
    | st.dictionaries(
        st.sampled_from(["step", "reportedAt", *progress.DOCUMENTS]),
        st.integers() | st.recursive(st.integers() | st.text(), lambda inner: st.dictionaries(st.characters(), inner)),
    )
)
@settings(deadline=None)
def test_whatever_is_received_is_valid(raw: dict[str, Any]) -> None:
    report = progress.received(raw)
    if report is not None:
        ProgressReport.parse(report)


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
        ({"only": object()}, None),
        ({}, None),
    ],
)
def test_a_published_document_is_made_to_fit(value: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert progress.fitted(value) == expected
    assert expected is None or progress.document(expected) == expected
