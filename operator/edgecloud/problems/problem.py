"""A problem of a file as a value, and its one line of text, which is safe to print whatever the file holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_SHOWN: Final = 60
"""Characters of a value that are repeated in a message."""
MAX_PATH: Final = 240
"""Characters of a path; a longer one loses its middle."""
MAX_PROBLEMS: Final = 50
"""Problems of one document that are told; the rest are counted."""

Path = tuple[str | int, ...]
"""Keys and indices from the top of a document down: ("spec", "pools", 1, "name")."""

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong at one place, and what to write instead.

    file: the name as the user gave it.
    line: counted from 1; None where the whole file is meant.
    path: such as `spec.pools[1].name`; "" for the document or the file as a whole.
    message: what is wrong.
    remedy: what to write or do instead; "" where message says it all.
    """

    file: str
    line: int | None
    path: str
    message: str
    remedy: str

    def __str__(self) -> str:
        """`job.yaml:12: spec.minWorkers: 5 is above workers (4): write a value of at most 4`: one line, printable."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(printable(part) for part in (place, self.path, self.message, self.remedy) if part)


def bounded(problems: Sequence[Problem], *, hidden: int = 0) -> tuple[Problem, ...]:
    """The first MAX_PROBLEMS problems of a document, and one that counts the others and `hidden` further ones."""
    rest = len(problems) - MAX_PROBLEMS if len(problems) > MAX_PROBLEMS else 0
    told = tuple(problems[:MAX_PROBLEMS])
    if not told or not rest + hidden:
        return told
    more = rest + hidden
    message = f"and {more} more problem{'s' if more > 1 else ''} in this document"
    return (*told, Problem(file=told[-1].file, line=None, path="", message=message, remedy=""))


def printable(text: str) -> str:
    """The text with line breaks, control characters, bidirectional marks and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def clipped(text: str, limit: int = MAX_SHOWN) -> str:
    """The text, printable, cut to `limit` characters."""
    text = printable(text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def quoted(text: str) -> str:
    """A text in double quotes, printable and cut."""
    return f'"{clipped(text)}"'


def path_text(path: Path) -> str:
    """A path as the user reads it: `spec.pools[1].name`; unusual keys as `["a.b"]`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.fullmatch(step) and len(step) <= MAX_SHOWN:
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{quoted(step)}]")
    text = "".join(parts)
    if len(text) <= MAX_PATH:
        return text
    half = (MAX_PATH - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
