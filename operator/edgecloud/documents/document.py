"""A YAML document as plain data that still knows where each value stood and how it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgecloud.problems import Path, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value and its place. An alias is the node of its anchor: one object at several places.

    value: plain data, of JSON's types; shared like the node.
    line: where the value begins.
    text: the content of a scalar as written, without quotes; None for a collection.
    children: by key or index, with the line of the key or item.
    nodes, characters, height: of the whole subtree, aliases followed; a scalar has 1 node and height 0.
    """

    value: Any
    line: int
    text: str | None = None
    children: Mapping[str | int, tuple[int, Node]] = field(default_factory=dict)
    nodes: int = 1
    characters: int = 0
    height: int = 0


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document of a file.

    root: its value, with the places.
    index: its position among the file's documents that are not empty, from 0.
    problems: what is wrong with the YAML itself although a value could be read, in the order of the lines.
    tainted: the paths of these problems; what stands at or below them in `value` is not what the user wrote.
    disturbed: the collections that these paths are in; something may be missing there.
    """

    root: Node
    index: int
    problems: tuple[Problem, ...] = ()
    tainted: frozenset[Path] = frozenset()
    disturbed: frozenset[Path] = frozenset()

    @property
    def value(self) -> Any:
        """Plain data of JSON's types. Aliased parts are shared objects: do not change them."""
        return self.root.value

    def line_of(self, path: Path) -> int:
        """Line of a key, item or, with (), of the document; of the longest part of the path that is there."""
        node, line = self.root, self.root.line
        for step in path:
            if step not in node.children:
                break
            line, node = node.children[step]
        return line

    def text_of(self, path: Path) -> str | None:
        """How the scalar at `path` was written, without quotes; None where there is none."""
        node = self.root
        for step in path:
            if step not in node.children:
                return None
            _, node = node.children[step]
        return node.text
