"""What a server has dropped of a status without a word, because its TrainingJob resource does not know it. Pure."""

from __future__ import annotations

from typing import Any


def whole(sent: Any, kept: Any, path: str = "status") -> tuple[Any, list[str]]:
    """What a server kept, with what it dropped of what it was sent; and the paths of that.

    Only what is missing is looked at: values may come back in other words (times, numbers), and a newer server adds
    fields of its own. That a null is not kept says nothing.
    """
    if isinstance(sent, dict) and isinstance(kept, dict):
        mended, dropped = dict(kept), []
        for name, value in sent.items():
            if name in kept:
                mended[name], below = whole(value, kept[name], f"{path}.{name}")
                dropped += below
            elif value is not None:
                mended[name] = value
                dropped.append(f"{path}.{name}")
        return mended, dropped
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        entries = [
            whole(one, other, f"{path}[{place}]") for place, (one, other) in enumerate(zip(sent, kept, strict=True))
        ]
        return [entry for entry, _ in entries], [name for _, below in entries for name in below]
    return kept, []
