"""Names of files and classes, which may be anything, as texts in a diagram."""

from __future__ import annotations

from typing import Final

MAX_LABEL: Final = 28


def caption(name: str, most: int = MAX_LABEL) -> str:
    """A name as matplotlib shows it: not as a formula, which it might not be, in one line, and not too long."""
    shown = "".join(character if character.isprintable() else "?" for character in name)
    return (shown if len(shown) <= most else shown[: most - 1] + "…").replace("$", r"\$")
