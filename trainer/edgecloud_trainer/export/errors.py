"""What can go wrong with an export, in sentences."""

from __future__ import annotations

from typing import Final

from edgecloud.urls import without_secrets

DONE: Final = 0
"""Exit codes of `python -m edgecloud_trainer.export`."""
UNUSABLE: Final = 2
GATE_FAILED: Final = 3
TRANSIENT: Final = 75
SAID: Final = "export: "
"""What a line begins with that it means for others; libraries print lines of their own."""


class ExportError(ValueError):
    """There is nothing that can be exported, or not with these images. The message says what to do instead."""


class ConversionError(Exception):
    """One format can't be made of this network; the others may. The message says why, and what to do."""


def first_line(error: BaseException, *, url: str = "") -> str:
    """Of what another library says, the line that tells most. url: that it is about, whose secrets are left out."""
    text = without_secrets(str(error), url) if url else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__
