"""A user's Pod template laid over ours, the way kubectl's strategic merge does for Pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_KEYS: Final = ("name", "mountPath", "key", "topologyKey")
"""What tells the items of a Pod's lists apart: containers, env and volumes by name, mounts by path, and so on."""


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """ours with theirs over it: mappings are merged, lists of keyed items are merged by key, all else is replaced.

    A null takes a field away. Neither argument is changed.
    """
    result = dict(ours)
    for key, value in theirs.items():
        old = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            result[key] = merged(old, value)
        elif isinstance(old, list) and _keyed(value) and _keyed(old):
            result[key] = _merged_lists(old, value, retain=key == "volumes")
        else:
            result[key] = value
    return result


def _merged_lists(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], *, retain: bool
) -> list[dict[str, Any]]:
    """retain: of an item that both have, only the fields that theirs names stay; a volume has but one source."""
    result = [dict(item) for item in ours]
    for item in theirs:
        place = next((place for place, old in enumerate(result) if _same(old, item)), None)
        if place is None:
            result.append(dict(item))
        else:
            both = merged(result[place], item)
            result[place] = {key: value for key, value in both.items() if key in item} if retain else both
    return result


def _keyed(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) and _key(item) for item in value)


def _key(item: Mapping[str, Any]) -> str | None:
    # A mount's name is that of its volume, and may stand there twice; its path may not.
    return "mountPath" if "mountPath" in item else next((key for key in _KEYS if key in item), None)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    key = _key(one)
    return key is not None and key == _key(other) and one[key] == other[key]
