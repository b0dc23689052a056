"""Whatever the bytes: no exception, every problem on one printable line, and in a bounded time."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.validation import Result
from tests.unit.validation.files import check, good, program, trainer

fuzz = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

JOBS = [
    good(),
    good("minWorkers: 2", "pools: [{name: a, workers: 1}]"),
    program("env: [{name: A, value: b}]"),
    trainer(),
]
WORDS = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "labels",
    "spec",
    "workers",
    "program",
    "command",
    "env",
    "files",
    "trainer",
    "items",
    "edgecloud.io/v1alpha1",
    "TrainingJob",
    "List",
    "<<",
    "&a",
    "*a",
    "!!int",
    "!t",
    "---",
    "...",
    "'",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "yes",
    "1.5",
    "-1",
    "1e400",
    ".nan",
    "0x1F",
    "~",
    "{{",
    "}}",
    "%TAG ! a",
    "- ",
    ": ",
    "? ",
    "| ",
    "> ",
    '"',
    "\n",
    "\n  ",
    "\n    ",
    "\t",
    "\r\n",
    "\u0000",
    "\u0085",
    "\u2028",
    "\ufeff",
    "\u00e9",
    "\\u0041",
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def checked(content: str | bytes) -> Result[Any]:
    """The result, after what holds of every result was looked at."""
    started = time.process_time()
    result = check(content)
    assert time.process_time() - started < 2
    assert result.problems or result.jobs
    for problem in result.problems:
        text = str(problem)
        assert text.isprintable()
        assert len(text) < 1200
        assert text.startswith("job.yaml")
        assert problem.message
        assert problem.line is None or problem.line >= 1
    return result


@fuzz
@given(st.binary(max_size=200))
def test_bytes(data: bytes) -> None:
    checked(data)


@fuzz
@given(st.text(max_size=200))
def test_text(text: str) -> None:
    checked(text.encode("utf-8", "surrogatepass"))


@fuzz
@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join))
def test_what_looks_like_yaml(text: str) -> None:
    checked(text)


@fuzz
@given(st.sampled_from(JOBS), st.integers(0, 300), st.integers(0, 12), st.sampled_from(WORDS) | st.text(max_size=4))
def test_a_job_with_one_place_changed(content: str, at: int, length: int, new: str) -> None:
    result = checked((content[:at] + new + content[at + length :]).encode("utf-8", "surrogatepass"))
    lines = content.count("\n") + new.count("\n") + new.count("\r") + 1
    assert all(problem.line is None or problem.line <= lines for problem in result.problems)


@fuzz
@given(values)
def test_data_of_any_shape(value: Any) -> None:
    checked(json.dumps(value))


@fuzz
@given(
    st.dictionaries(st.sampled_from(["workers", "program", "trainer", "pools", "export", "storage", "image"]), values)
)
def test_specs_of_any_shape(spec: Any) -> None:
    head = {"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "a"}}
    checked(json.dumps({**head, "spec": spec}))


@fuzz
@given(st.lists(st.sampled_from(JOBS) | st.lists(st.sampled_from(WORDS), max_size=10).map("".join), max_size=4))
def test_several_documents(parts: list[str]) -> None:
    checked("\n---\n".join(parts))
