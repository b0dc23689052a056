"""A user's Pod template laid over ours, the way kubectl's strategic merge does for Pods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_KEYS: Final = ("mountPath", "name")
"""What tells the items of the lists apart that we make: containers, env and volumes by name, mounts by path.

What else a Pod has lists of comes from one side alone, and then nothing is merged: a template's own items may well
share a key that kubectl merges by, such as two ports of one number, or two spread constraints over one topology.
"""


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """ours with theirs over it: mappings are merged, lists of keyed items are merged by key, tolerations are added.

    All else is replaced. A null takes a field away. Neither argument is changed.
    """
    result = dict(ours)
    for key, value in theirs.items():
        old = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            result[key] = merged(old, value)
        elif key == "tolerations" and isinstance(old, list) and isinstance(value, list) and value:
            # Nothing tells them apart but the whole: one taint's key may have an effect each, and a value each.
            result[key] = old + [item for item in value if item not in old]
        elif isinstance(old, list) and _keyed(value) and _keyed(old):
            result[key] = _merged_lists(old, value, _BOTH.get(key, merged))
        else:
            result[key] = value
    return result


def is_called(item: Any, name: str) -> bool:
    """Whether an entry of a merged list, which nobody has checked, is an object of that name."""
    return isinstance(item, Mapping) and item.get("name") == name


def _merged_lists(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], both: _Both
) -> list[Mapping[str, Any]]:
    """both: what becomes of an item that both have. Two of theirs are never taken for one: the server judges them.

    In time that grows with the number of items: a template may have thousands, and a job a thousand Pods.
    """
    result = list(ours)
    left: dict[tuple[str, str], list[int]] = {}
    for place in reversed(range(len(ours))):
        if (what := _identity(ours[place])) is not None:
            left.setdefault(what, []).append(place)
    for item in theirs:
        what = _identity(item)
        places = left.get(what) if what is not None else None
        if places:
            place = places.pop()
            result[place] = both(ours[place], item)
        else:
            result.append(item)
    return result


def _volume(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Only the fields that the new one names stay: a volume has but one source."""
    return {key: value for key, value in merged(old, new).items() if key in new}


def _variable(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new one: a variable has a value or a source of it, and one source."""
    return {key: value for key, value in new.items() if value is not None}


_Both = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
_BOTH: Final[Mapping[str, _Both]] = {"volumes": _volume, "env": _variable}


def _keyed(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and _key(item) for item in value)


def _key(item: Mapping[str, Any]) -> str | None:
    # A mount's name is that of its volume, and may stand there twice; its path may not.
    for key in _KEYS:
        if key in item:
            return key
    return None


def _identity(item: Mapping[str, Any]) -> tuple[str, str] | None:
    """What tells an item from the others of its list; None for one that no server takes."""
    key = _key(item)
    return (key, value) if key is not None and isinstance(value := item[key], str) else None
