"""What the reading of a data set tells whoever watches it."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Stage(NamedTuple):
    """How far it is."""

    name: Literal["waiting", "listing", "downloading", "decoding", "writing", "checking"]
    """waiting: another process is at the same work."""
    done: int = 0
    total: int = 0
    """0 if nobody knows yet."""
    unit: Literal["images", "bytes"] = "images"
    """Of done and total."""
    images: int = 0
    """Handled in this stage by this process."""


class Observer:
    """Is told, and says nothing. Displays derive from it."""

    def stage(self, stage: Stage) -> None:
        """How far it is; called often."""

    def note(self, text: str) -> None:
        """A sentence for people: work of an earlier run is taken over, a transfer is tried again."""
