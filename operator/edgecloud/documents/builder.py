"""Puts the events of one document together to nodes, on an explicit stack and within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from edgecloud.documents.document import Node
from edgecloud.documents.scalars import ScalarError, collection_tag, scalar
from edgecloud.documents.syntax import MAX_DEPTH
from edgecloud.documents.text import MAX_BYTES, Lines, UnreadableError
from edgecloud.problems import Path, Problem, clipped, path_text, quoted

MAX_NODES: Final = 100_000
"""Values and keys of one document, aliases followed: a few lines of aliases of aliases stand for billions of nodes."""

_QUOTE_KEY: Final = "put the key into quotes"
_REPEAT_LESS: Final = "repeat less, or bring large content with the image or a volume"


@dataclass(slots=True, kw_only=True)
class _Frame:
    """A collection that is being read. `refused`: the value of this key is read and dropped."""

    line: int
    values: dict[str, Any] | list[Any]
    anchor: str | None
    nodes_before: int
    characters_before: int
    children: dict[str | int, tuple[int, Node]] = field(default_factory=dict)
    height: int = 0
    key: str | None = None
    key_line: int = 0
    refused: bool = False

    @property
    def wants_key(self) -> bool:
        return isinstance(self.values, dict) and self.key is None


class Builder:
    """Builds the nodes of one document; problems are collected with the paths that they taint."""

    def __init__(self, lines: Lines, file: str) -> None:
        self.problems: list[tuple[Path, Problem]] = []
        self._lines = lines
        self._file = file
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0
        self._characters = 0
        self._root = Node(value=None, line=1)

    def build(self, events: Iterator[Any]) -> Node:
        """Take a document's events up to its end."""
        for event in events:
            match event:
                case yaml.ScalarEvent():
                    self._scalar(event)
                case yaml.AliasEvent():
                    self._alias(event)
                case yaml.MappingStartEvent():
                    self._open(event, {}, "map")
                case yaml.SequenceStartEvent():
                    self._open(event, [], "seq")
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._close()
                case _:
                    break
        return self._root

    def unreadable(self, event: Any, message: str, remedy: str) -> UnreadableError:
        """The end of the reading, at an event."""
        path = path_text(self._path())
        line = self._line(event)
        return UnreadableError(Problem(file=self._file, line=line, path=path, message=message, remedy=remedy))

    def _scalar(self, event: Any) -> None:
        text, plain = event.value, event.implicit[0]
        self._grow(event, nodes=1, characters=len(text), height=0)
        line = self._line(event)
        if self._wants_key() and plain and text == "<<":
            remedy = "write the fields out; an alias can stand for a whole value"
            self._refuse("<<", line, "merge keys are not part of YAML 1.2", remedy)
            return
        try:
            value = scalar(text, tag=event.tag, plain=plain)
        except ScalarError as error:
            value = None
            if not self._wants_key():
                self._complain(self._path(), line, error.message, error.remedy)
        node = Node(value=value, line=line, text=text, characters=len(text))
        self._name(event.anchor, node)
        self._attach(node)

    def _alias(self, event: Any) -> None:
        line = self._line(event)
        node = self._anchors.get(event.anchor)
        if node is None:
            if event.anchor in self._anchors:
                message, remedy = "stands within the value that it repeats", "write the value out"
            else:
                message, remedy = "repeats nothing that stands above", "put a text that begins with * into quotes"
            self._complain(self._path(), line, f"*{clipped(event.anchor)} {message}", remedy)
            node = Node(value=None, line=line, text="")
        self._grow(event, nodes=node.nodes, characters=node.characters, height=node.height)
        self._attach(node, line)

    def _open(self, event: Any, values: dict[str, Any] | list[Any], kind: str) -> None:
        line = self._line(event)
        if not collection_tag(event.tag, kind):
            self._complain(self._path(), line, "a tag that has no meaning here", "leave the tag out")
        before = (self._nodes, self._characters)
        self._grow(event, nodes=1, characters=0, height=1)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(
            _Frame(line=line, values=values, anchor=event.anchor, nodes_before=before[0], characters_before=before[1])
        )

    def _close(self) -> None:
        frame = self._stack.pop()
        node = Node(
            value=frame.values,
            line=frame.line,
            children=frame.children,
            nodes=self._nodes - frame.nodes_before,
            characters=self._characters - frame.characters_before,
            height=frame.height + 1,
        )
        self._name(frame.anchor, node)
        self._attach(node)

    def _name(self, anchor: str | None, node: Node) -> None:
        if anchor:
            self._anchors[anchor] = node

    def _attach(self, node: Node, line: int | None = None) -> None:
        """Put a finished node where it belongs. line: where it stands, if that is not where it begins (an alias)."""
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        frame.height = max(frame.height, node.height)
        line = node.line if line is None else line
        if isinstance(frame.values, list):
            frame.children[len(frame.values)] = (line, node)
            frame.values.append(node.value)
        elif frame.key is None:
            self._key(frame, node, line)
        else:
            if not frame.refused:
                frame.children[frame.key] = (frame.key_line, node)
                frame.values[frame.key] = node.value
            frame.key, frame.refused = None, False

    def _key(self, frame: _Frame, node: Node, line: int) -> None:
        if isinstance(node.value, str):
            if node.value in frame.children:
                first, _ = frame.children[node.value]
                message = f"a second {quoted(node.value)} in this mapping; the first is in line {first}"
                self._refuse(node.value, line, message, "keep one of the two")
            else:
                frame.key, frame.key_line = node.value, line
        elif node.text is None:
            self._collection_as_key(line)
        elif node.text:
            what = "a boolean" if isinstance(node.value, bool) else "a number" if node.value is not None else "no text"
            self._refuse(node.text, line, f"a key must be text, and {quoted(node.text)} is {what} in YAML", _QUOTE_KEY)
        else:
            self._refuse("", line, "a key is empty", "write a key before the colon")

    def _collection_as_key(self, line: int) -> None:
        """`{a: 1}: x`; above all the braces of a Helm template."""
        if "{{" in self._lines.content(line):
            message = "this is a template, and not YAML yet"
            self._refuse(None, line, message, "render it first: helm template ... | edgecloud validate -")
        else:
            self._refuse(None, line, "a key must be text, and this one is a list or mapping", _QUOTE_KEY)

    def _refuse(self, key: str | None, line: int, message: str, remedy: str) -> None:
        """Read the value of this key and drop it. None: a key that cannot even be named."""
        self._complain((*self._path(), key) if key else self._path(), line, message, remedy)
        frame = self._stack[-1]
        frame.key, frame.key_line, frame.refused = key or "", line, True

    def _complain(self, path: Path, line: int, message: str, remedy: str) -> None:
        problem = Problem(file=self._file, line=line, path=path_text(path), message=message, remedy=remedy)
        self.problems.append((path, problem))

    def _grow(self, event: Any, *, nodes: int, characters: int, height: int) -> None:
        self._nodes += nodes
        self._characters += characters
        if len(self._stack) + height > MAX_DEPTH:
            raise self.unreadable(
                event, f"more than {MAX_DEPTH} collections within each other", "write a flatter document"
            )
        if self._nodes > MAX_NODES:
            message = f"the document has more than {MAX_NODES} values, those that aliases repeat counted"
            raise self.unreadable(event, message, _REPEAT_LESS)
        if self._characters > MAX_BYTES:
            message = f"the document's text is larger than {MAX_BYTES // 1024} KiB, what aliases repeat counted"
            raise self.unreadable(event, message, _REPEAT_LESS)

    def _wants_key(self) -> bool:
        return bool(self._stack) and self._stack[-1].wants_key

    def _path(self) -> Path:
        steps = (len(f.values) if isinstance(f.values, list) else f.key for f in self._stack)
        return tuple(step for step in steps if step is not None)

    def _line(self, event: Any) -> int:
        return self._lines.number(event.start_mark.index)
