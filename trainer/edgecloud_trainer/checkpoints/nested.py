"""Nested state (an optimizer's, an average's) as flat tensors plus JSON, and back exactly.

    tensors, tree = flatten("optimizer", optimizer.state_dict())
    optimizer.load_state_dict(unflatten("optimizer", tensors, tree))

The tree is JSON. Scalars stand for themselves (an int stays an int, True is not 1, infinity and NaN are in Python's own
notation), a list is a list, and all else is an object with one key that says what it is:

    {"dict": [[key, value], ...]}    in order, keys being strings or ints: an optimizer numbers its parameters
    {"tuple": [...]}
    {"tensor": "optimizer.state.0.momentum_buffer"}    the name among the tensors

A value of a subclass (OrderedDict, torch.Size, an IntEnum) comes back as the plain type, and a tensor that stood in two
places comes back as two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

MAX_DEPTH: Final = 64
"""Levels of nesting; more is a structure that contains itself."""


def flatten(prefix: str, nested: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """The tensors in `nested` by names that begin with `prefix`, and its structure as JSON.

    The tensors are the very same, not copies. TypeError, naming the place, for anything but dict, list, tuple, str,
    int, float, bool, None and tensors; ValueError for an empty prefix and for more than 64 levels.
    """
    if not prefix:
        raise ValueError("the prefix keeps the names of one state apart from another's: it can't be empty")
    tensors: dict[str, torch.Tensor] = {}
    return tensors, _taken(nested, prefix, tensors, 0)


def unflatten(prefix: str, tensors: Mapping[str, torch.Tensor], tree: Any) -> Any:
    """What `flatten` was given with this prefix, from its two results (the tensors may be among others).

    ValueError if the tree is none of `flatten`'s, or names a tensor that isn't there or has another prefix.
    """
    return _built({name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}, tree, 0)


def _taken(value: Any, path: str, tensors: dict[str, torch.Tensor], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"{path[:80]}... is nested more than {MAX_DEPTH} levels deep")
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str(value)
        case torch.Tensor():
            name = _unused(path, tensors)
            tensors[name] = value
            return {"tensor": name}
        case dict():
            pairs = [
                [_key(key, path), _taken(item, f"{path}.{key}", tensors, depth + 1)] for key, item in value.items()
            ]
            return {"dict": pairs}
        case tuple() | list():
            items = [_taken(item, f"{path}.{index}", tensors, depth + 1) for index, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
    raise TypeError(f"{path} is a {type(value).__name__}, which a checkpoint can't hold")


def _key(key: Any, path: str) -> str | int:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return int(key)
    raise TypeError(f"{path} has the key {key!r}: only strings and ints can be keys in a checkpoint")


def _unused(path: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Keys such as "a.b", or 0 beside "0", may lead to a name twice; readers go by the tree, so any other will do."""
    path = path.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    name, number = path, 1
    while name in tensors:
        name, number = f"{path}~{number}", number + 1
    return name


def _built(tensors: Mapping[str, torch.Tensor], tree: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"a state is nested more than {MAX_DEPTH} levels deep")
    match tree:
        case None | bool() | int() | float() | str():
            return tree
        case list():
            return [_built(tensors, item, depth + 1) for item in tree]
        case {"tuple": list() as items, **rest} if not rest:
            return tuple(_built(tensors, item, depth + 1) for item in items)
        case {"dict": list() as pairs, **rest} if not rest and all(_is_pair(pair) for pair in pairs):
            return {key: _built(tensors, item, depth + 1) for key, item in pairs}
        case {"tensor": str() as name, **rest} if not rest and name in tensors:
            return tensors[name]
        case {"tensor": str() as name, **rest} if not rest:
            raise ValueError(f"the state names tensor {name!r}, which the checkpoint doesn't hold")
    raise ValueError("a state in the checkpoint has not the form that flatten gives")


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str | int)
