"""Scalars, lines and paths of documents."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from edgecloud.documents import read_documents, reader
from edgecloud.documents.scalars import scalar
from edgecloud.problems import path_text, printable

KUBECTL: list[tuple[str, Any]] = [
    # As sigs.k8s.io/yaml 1.6.0 (go.yaml.in/yaml/v2 2.4.2) turns them into JSON.
    *((word, True) for word in ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")),
    *((word, False) for word in ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")),
    *((word, None) for word in ("", "~", "null", "Null", "NULL")),
    *(
        (word, word)
        for word in ("nUll", "tRUE", "oN", "NaN", "inf", "nan", "Infinity", "None", "-", "+", ".", "..", "=")
    ),
    *((word, word) for word in ("1:30", "1:30:00", "2001-01-01", "2001-01-01T00:00:00Z", "1.2.3", "1e", "e1", "_1")),
    *((word, word) for word in ("0x", "0b", "0o", "0b2", "0xg", "1e400", "-1e400", "83e05196", "._5", "1.5.", "- 1")),
    ("0", 0),
    ("-0", 0),
    ("00", 0),
    ("12", 12),
    ("+12", 12),
    ("-12", -12),
    ("1_000", 1000),
    ("1_", 1),
    ("0x1F", 31),
    ("-0X1f", -31),
    ("0o17", 15),
    ("017", 15),
    ("0_7", 7),
    ("08", 8),
    ("0899", 899),
    ("0b11", 3),
    ("-0b11", -3),
    ("1.0", 1),
    ("5.", 5),
    ("-0.0", 0),
    ("1e3", 1000),
    ("1E+3", 1000),
    ("1e20", 10**20),
    ("1e21", 1e21),
    ("1e-3", 0.001),
    ("1e-400", 0),
    (".5", 0.5),
    ("-.5", -0.5),
    (".5e1", 5),
    ("0.1", 0.1),
    ("9223372036854775807", 2**63 - 1),
    ("18446744073709551615", 2**64 - 1),
]


@pytest.mark.parametrize(("text", "value"), KUBECTL)
def test_scalars_mean_what_they_mean_to_kubectl(text: str, value: Any) -> None:
    read = scalar(text, tag=None, plain=True)
    assert (type(read), read) == (type(value), value)
    assert scalar(text, tag=None, plain=False) == text
    assert scalar(text, tag="tag:yaml.org,2002:str", plain=False) == text


PLACES = """\
a: 1
b:
  - x
  - k: &a
      z: 017
c: *a
'd e':

  "f": >-
    folded
    text
"""


@pytest.mark.parametrize(
    ("path", "line", "text"),
    [
        ((), 1, None),
        (("a",), 1, "1"),
        (("a", "further", 3), 1, None),
        (("b",), 2, None),
        (("b", 0), 3, "x"),
        (("b", 1), 4, None),
        (("b", 1, "k"), 4, None),
        (("b", 1, "k", "z"), 5, "017"),
        (("b", 2), 2, None),
        (("b", "0"), 2, None),
        (("c",), 6, None),
        (("c", "z"), 5, "017"),
        (("d e",), 7, None),
        (("d e", "f"), 9, "folded text"),
        (("nowhere",), 1, None),
    ],
)
def test_lines_and_texts(path: tuple[str | int, ...], line: int, text: str | None) -> None:
    [document], _ = read_documents(PLACES.encode(), "job.yaml")
    assert document.line_of(path) == line
    assert document.text_of(path) == text


def test_the_value_is_plain_data() -> None:
    [document], problems = read_documents(PLACES.encode(), "job.yaml")
    assert document.value == {"a": 1, "b": ["x", {"k": {"z": 15}}], "c": {"z": 15}, "d e": {"f": "folded text"}}
    assert (document.index, document.problems, problems) == (0, (), ())


@pytest.mark.parametrize(
    "content",
    [
        PLACES,
        "a: [1\nb: 2",
        "a:\n\tb: 1",
        "'",
        "a: &x [*x]",
        "é: {b: !t 1, b: 2}\n---\n]",
        "a: b: c",
        "[" * 1000,
        "%X\n",
    ],
)
def test_the_parser_in_python_reads_the_same(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML was built without libyaml: the same values and lines; the words for wrong syntax may differ."""
    documents, problems = read_documents(content.encode(), "job.yaml")
    monkeypatch.setattr(reader, "_LOADER", yaml.SafeLoader)
    same_documents, same_problems = read_documents(content.encode(), "job.yaml")
    assert [(d.value, d.root.line, d.problems) for d in same_documents] == [
        (d.value, d.root.line, d.problems) for d in documents
    ]
    assert len(same_problems) == len(problems)
    assert all(str(problem).isprintable() for problem in same_problems)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("spec", "pools", 1, "name"), "spec.pools[1].name"),
        (("items", 0, "spec"), "items[0].spec"),
        (("a.b/c", "d"), '["a.b/c"].d'),
        (("a", "\x1b[31m"), 'a["\\x1b[31m"]'),
        (("k" * 100,), '["' + "k" * 57 + '..."]'),
    ],
)
def test_paths(path: tuple[str | int, ...], text: str) -> None:
    assert path_text(path) == text


def test_long_paths_lose_their_middle() -> None:
    text = path_text(tuple(f"step{number}" for number in range(64)))
    assert len(text) <= 240
    assert text.startswith("step0.step1.")
    assert text.endswith(".step63")


def test_printable() -> None:
    assert printable("a\n\t\x1b[0m\u202e\ud800é") == "a\\n\\t\\x1b[0m\\u202e\\ud800é"
