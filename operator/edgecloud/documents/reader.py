"""From a file's bytes to its documents: libyaml's events put together on an explicit stack.

PyYAML's own constructor recurses, overwrites duplicate keys, expands aliases without a bound and forgets the lines.
Here nothing recurses, and what a document may grow to is counted with its aliases followed, before it is built.

Stricter than kubectl in three things, because the file would not mean what it seems to:
- a key occurs twice: kubectl takes the last one;
- a key is no text (`on:`, `80:`): kubectl makes it "true" and "80";
- `<<` merges another mapping: gone from YAML since 1.2, and its readers disagree on which of two values wins. Anchors
  and aliases of whole values are fine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import yaml

from edgecloud.documents.builder import Builder
from edgecloud.documents.document import Document
from edgecloud.documents.syntax import syntax_problem
from edgecloud.documents.text import Lines, UnreadableError, decode
from edgecloud.problems import Problem

MAX_DOCUMENTS: Final = 1_000

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser, in every wheel of PyYAML; the one in Python, some 50 times slower, where it was built without."""


def read_documents(data: bytes, file: str) -> tuple[tuple[Document, ...], tuple[Problem, ...]]:
    """The documents of a file that are not empty, and what kept the rest of it from being read (one problem at most).

    file: its name, for the problems. A document after the first unreadable place is not looked at.
    """
    documents: list[Document] = []
    try:
        text = decode(data, file)
        for document in _Reader(text, file).documents():
            documents.append(document)  # noqa: PERF402 - those before an unreadable place are kept
    except UnreadableError as unreadable:
        return tuple(documents), (unreadable.problem,)
    if not documents:
        remedy = "write a TrainingJob, beginning with apiVersion and kind"
        empty = Problem(file=file, line=None, path="", message="there is no document in the file", remedy=remedy)
        return (), (empty,)
    return tuple(documents), ()


class _Reader:
    """Turns the events of one text into documents."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._lines = Lines(text)

    def documents(self) -> Iterator[Document]:
        """The documents that are not empty, one after the other.

        Raises:
            UnreadableError: the text is no YAML, or a document exceeds a bound.
        """
        events = iter(yaml.parse(self._text, Loader=_LOADER))
        started = index = 0
        try:
            for event in events:
                if not isinstance(event, yaml.DocumentStartEvent):
                    continue
                started += 1
                builder = Builder(self._lines, self._file)
                if started > MAX_DOCUMENTS:
                    raise builder.unreadable(event, f"more than {MAX_DOCUMENTS} documents", "cut the file into several")
                root = builder.build(events)
                if root.value is None and not builder.problems:
                    continue
                tainted = frozenset(path for path, _ in builder.problems)
                problems = tuple(problem for _, problem in builder.problems)
                disturbed = frozenset(path[:-1] for path in tainted)
                yield Document(root=root, index=index, problems=problems, tainted=tainted, disturbed=disturbed)
                index += 1
        except yaml.YAMLError as error:
            raise UnreadableError(syntax_problem(error, lines=self._lines, text=self._text, file=self._file)) from None
