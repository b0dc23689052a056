"""Values, lists and near misses in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Final

from edgecloud.problems.problem import clipped, quoted

MAX_LISTED: Final = 12
"""Choices or fields that are listed."""


def described(value: Any, text: str | None) -> str:
    """A value in words: the number 1.5, the boolean yes, the text "3", a list."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {literal(value, text)}"
    if isinstance(value, int | float):
        return f"the number {literal(value, text)}"
    if isinstance(value, str):
        return f"the text {quoted(value)}" if value else "an empty text"
    return "a list" if isinstance(value, list) else "a mapping"


def near(word: str, words: Sequence[str], cutoff: float = 0.7) -> str | None:
    """The one of `words` that was probably meant; case counts little."""
    folded = {candidate.casefold(): candidate for candidate in words}
    found = get_close_matches(word[:80].casefold(), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


def listed(words: Sequence[str]) -> str:
    """`a, b, c`; many are cut."""
    rest = len(words) - MAX_LISTED
    return ", ".join(words[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def literal(value: Any, text: str | None) -> str:
    """A scalar as it was written."""
    return clipped(text if text else json.dumps(value))


def counted(number: Any, unit: str) -> str:
    plural = "entries" if unit == "entry" else unit + "s"
    return f"{number} {unit if number == 1 else plural}"


def is_or_are(number: Any) -> str:
    return "is" if number == 1 else "are"
