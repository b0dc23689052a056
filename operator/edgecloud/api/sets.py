"""Image sets that have a name. What they are, the trainer knows (`edgecloud_trainer.data.named`)."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from edgecloud.api.trainer import SETS, TrainerSpec
from edgecloud.api.unmade import Unmade

_PLAIN: Final = {name.replace("-", ""): name for name in SETS}


def set_of(name: str) -> str | None:
    """The set of a name; case, - and _ don't matter. None: there is none."""
    return _PLAIN.get(_plain(name))


def meant(name: str) -> str | None:
    """The set that a wrong name comes nearest to, if any is near."""
    near = get_close_matches(_plain(name), _PLAIN, 1)
    return _PLAIN[near[0]] if near else None


def unknown_set(trainer: TrainerSpec | None) -> Iterator[Unmade]:
    """A name that no set has, told before there are Pods. Of a stored job the trainer says it, with exit code 2."""
    name = trainer.data.name if trainer else None
    if name is not None and set_of(name) is None:
        near = meant(name)
        remedy = f"did you mean {near}?" if near else f"write one of {', '.join(SETS)}; a path or URL goes into source"
        yield ("trainer", "data", "name"), f"no data set is named {name}", remedy


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
