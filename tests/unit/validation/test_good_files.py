"""Files that are right, however oddly they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud.validation import validate_files
from tests.unit.validation.files import PROGRAM, check, good, job, meta, trainer

EXAMPLES = sorted((Path(__file__).parents[3] / "manifests" / "examples").glob("*.yaml"))


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ").rstrip()


GOOD = {
    "plain": good(),
    "built-in trainer": trainer(),
    "CRLF": good().replace("\n", "\r\n"),
    "UTF-8 with a mark": "\ufeff" + good(),
    "no line end at the end": good().rstrip(),
    "comments": "# one\n" + good().replace("spec:", "spec:  # two"),
    "directive": "%YAML 1.2\n---\n" + good() + "...\n",
    "flow style": json.dumps(check(good()).jobs[0].dump()),
    "JSON with tabs": json.dumps(check(good()).jobs[0].dump(), indent="\t"),
    "alias of a mapping": job(
        "workers: 1", PROGRAM, "nodeSelector: &a {b: c}", "podTemplate: {spec: {nodeSelector: *a}}"
    ),
    "alias of a scalar": job("workers: &n 3", "minWorkers: *n", PROGRAM),
    "alias as a key": job("workers: 1", PROGRAM, "managedBy: &k me", "nodeSelector: {*k : a}"),
    "anchor named again": job("workers: &n 3", "minWorkers: &n 2", PROGRAM, "stopGraceSeconds: *n"),
    "tags of JSON's types": job(
        "workers: !!int 2", PROGRAM, "suspend: !!bool yes", "image: !!str 80", "nodeSelector: !!map {a: ! 5}"
    ),
    "quoted booleans": meta('labels: {"on": "yes", a: \'80\'}'),
    "a quoted merge key": meta('annotations: {"<<": a}'),
    "booleans of YAML 1.1": good("suspend: on"),
    "whole numbers with a fraction": job("workers: 2.0", PROGRAM, "activeDeadlineSeconds: 1e3"),
    "other bases": job("workers: 0x10", PROGRAM, "activeDeadlineSeconds: 0o17", "startDeadlineSeconds: 1_000"),
    "exponent without a point": trainer("optimizer: {learningRate: 1e-3, weightDecay: 5E-4}"),
    "a set's name written otherwise": trainer().replace("name: digits}", "name: Fashion_MNIST}"),
    "date stays text": meta("annotations: {date: 2026-01-31}"),
    "commit stays text": meta("labels: {commit: 83e05196}"),
    "time": meta("creationTimestamp: 2026-01-31T12:00:00Z"),
    "base 60 stays text": meta('annotations: {at: 12:30, "on": 1:30:00}'),
    "block of text": job(
        "workers: 1", "program:", "  command: [a]", "  files:", "    a.py: |", "      x = 1", "", "      y: 2"
    ),
    "a % in text": meta('annotations: {a: "50%\n    %TAG !a! b"}'),
    "emoji and NEL": good('managedBy: "\u0085 😀"'),
    "server's metadata": meta("resourceVersion: '5'", "managedFields: [{manager: kubectl}]"),
    "a List": f"apiVersion: v1\nkind: List\nitems:\n- {_indented(good())}\n",
    "a TrainingJobList": f"kind: TrainingJobList\nitems:\n- {_indented(good())}\n",
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD.keys())
def test_good_file(content: str) -> None:
    result = check(content)
    assert [str(problem) for problem in result.problems] == []
    assert result.ok
    assert [found.metadata.name for found in result.jobs] == ["digits"]


def test_values_are_kubectls() -> None:
    [found] = check(job("workers: 0x10", PROGRAM, "suspend: on", "activeDeadlineSeconds: 1e3", "image: !!str 010")).jobs
    assert (found.spec.workers, found.spec.suspend) == (16, True)
    assert (found.spec.active_deadline_seconds, found.spec.image) == (1000, "010")


def test_a_character_of_two_escapes_is_one_in_json_and_a_text_elsewhere() -> None:
    """As Python's json.dumps writes it, by itself and behind a backslash."""
    text = "print('\U0001f389 é \\\\ud83c\\\\udf89 \\\\\U0010ffff')"
    [found] = check(json.dumps(check(good()).jobs[0].dump() | {"spec": _with_script(text)}, indent=1)).jobs
    assert found.spec.program and found.spec.program.files == {"a.py": text}
    script = ("workers: 1", "program:", "  command: [a]", "  files:", "    a.py: |", "      {'\\ud83c\\udf89'}")
    [found] = check(job(*script)).jobs
    assert found.spec.program and found.spec.program.files == {"a.py": "{'\\ud83c\\udf89'}\n"}


def _with_script(text: str) -> dict[str, Any]:
    return {"workers": 1, "program": {"command": ["python", "a.py"], "files": {"a.py": text}}}


def test_documents_and_items_come_in_their_order() -> None:
    names = ["a", "b", "c", "d"]
    one, two, three, four = (good().replace("digits", name) for name in names)
    inner = f"kind: List\nitems:\n- {_indented(three)}"
    nested = (
        "apiVersion: v1\nkind: List\nitems:\n- "
        + two.replace("\n", "\n  ").rstrip()
        + "\n- "
        + inner.replace("\n", "\n  ")
    )
    result = check(f"{one}---\n---\n{nested}\n---\n{four}")
    assert result.ok, [str(problem) for problem in result.problems]
    assert [found.metadata.name for found in result.jobs] == names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_good(path: Path) -> None:
    [result] = validate_files([path], TrainingJob)
    assert [str(problem) for problem in result.problems] == []
