"""What the models say about a place in a document: the fields known there, choices, forms, remedies, descriptions."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgecloud.problems.problem import Path

_MAX_WALK: Final = 10
"""Levels of models that are searched for the home of a field."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One of the types that a value may have, without Annotated, Optional and Union."""

    type: Any
    remedy: str = ""
    pattern: str | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place: the types that fit there, and what its field is for. Without options nothing is known of it."""

    options: tuple[Option, ...] = ()
    description: str = ""
    required: bool = True

    @property
    def remedy(self) -> str:
        """The models' own words for what to write here (`json_schema_extra={"remedy": ...}`), or ""."""
        return next((option.remedy for option in self.options if option.remedy), "")

    @property
    def pattern(self) -> str | None:
        """The form of the texts that fit, where they have one."""
        return next((option.pattern for option in self.options if option.pattern), None)

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts of the Literal types that fit."""
        found = (get_args(option.type) for option in self.options if get_origin(option.type) is Literal)
        return tuple(choice for choices in found for choice in choices if isinstance(choice, str))

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """The known fields by the names they have in a document."""
        models = (option.type for option in self.options if _is_model(option.type))
        return {name: field for model in models for name, field in fields_of(model).items()}

    @property
    def item_fields(self) -> dict[str, FieldInfo]:
        """Those of the items, where a list of models fits."""
        lists = (option.type for option in self.options if _is_list(option.type))
        return Place(options=tuple(item for one in lists for item in _items(one, 0))).fields

    def takes(self, text: str) -> bool:
        """Whether a text fits here, as far as type and pattern tell."""
        return any(o.type is str and (o.pattern is None or re.search(o.pattern, text)) for o in self.options)


def place_of(model: type[BaseModel]) -> Place:
    """The place at the top."""
    return Place(options=(Option(type=model),))


def place_at(model: type[BaseModel], path: Path, *, key: bool = False) -> Place:
    """The place at a path from the top of `model`; with `key` that of the last key itself, which has a type too."""
    place = place_of(model)
    for position, step in enumerate(path):
        place = _key(place) if key and position == len(path) - 1 else _below(place, step)
    return place


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the names they have in a document."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


@lru_cache(maxsize=16)
def homes(model: type[BaseModel]) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Where every field of the models belongs: plain name -> (name, path of its mapping, such as `spec.pools[]`)."""
    found: dict[str, list[tuple[str, str]]] = {}
    level: list[tuple[Place, str]] = [(place_of(model), "")]
    for _ in range(_MAX_WALK):
        following: list[tuple[Place, str]] = []
        for place, where in level:
            for name, field in place.fields.items():
                found.setdefault(plain(name), []).append((name, where))
                following.extend(_containers(_of_field(field), f"{where}.{name}" if where else name))
        level = following
    return {name: tuple(places) for name, places in found.items()}


def plain(name: str) -> str:
    """A name without case, underscores and dashes: minWorkers, min_workers and min-workers are one."""
    return re.sub(r"[-_ ]", "", name).casefold()


def _containers(place: Place, where: str) -> Iterator[tuple[Place, str]]:
    """The place itself and, for lists, that of the items."""
    yield place, where
    items = tuple(i for option in place.options if _is_list(option.type) for i in _items(option.type, 0))
    if items:
        yield Place(options=items), where + "[]"


def _below(place: Place, step: str | int) -> Place:
    if isinstance(step, str) and step in place.fields:
        return _of_field(place.fields[step])
    options: list[Option] = []
    for option in place.options:
        arguments = get_args(option.type)
        if isinstance(step, str) and _is_mapping(option.type) and len(arguments) == 2:
            options.extend(_options(arguments[1]))
        elif isinstance(step, int) and _is_list(option.type):
            options.extend(_items(option.type, step))
    return Place(options=tuple(options))


def _key(place: Place) -> Place:
    mappings = (get_args(option.type) for option in place.options if _is_mapping(option.type))
    return Place(options=tuple(o for arguments in mappings if len(arguments) == 2 for o in _options(arguments[0])))


def _of_field(field: FieldInfo) -> Place:
    return Place(
        options=tuple(_options(field.annotation, field)),
        description=field.description or "",
        required=field.is_required(),
    )


def _options(annotation: Any, *metadata: Any) -> Iterator[Option]:
    """The types that an annotation stands for, None left out, each with the remedy and pattern nearest to it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *own = get_args(annotation)
        yield from _options(inner, *own, *metadata)
    elif origin is Union or origin is types.UnionType:
        for member in get_args(annotation):
            yield from _options(member, *metadata)
    elif hasattr(
        annotation, "__value__"
    ):  # `type X = ...`; a recursive one comes back to a list or mapping, not to itself
        yield from _options(annotation.__value__, *metadata)
    elif annotation is not type(None):
        yield Option(type=annotation, remedy=_remedy(metadata), pattern=_pattern(metadata))


def _remedy(metadata: Iterable[Any]) -> str:
    extras = (item.json_schema_extra for item in metadata if isinstance(item, FieldInfo))
    return next((str(extra["remedy"]) for extra in extras if isinstance(extra, dict) and "remedy" in extra), "")


def _pattern(metadata: Iterable[Any]) -> str | None:
    parts = (part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else (item,)))
    patterns = (getattr(part, "pattern", None) for part in parts)
    return next((pattern for pattern in patterns if isinstance(pattern, str)), None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple, set, frozenset)


def _items(annotation: Any, index: int) -> Iterator[Option]:
    arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    if arguments:
        yield from _options(arguments[min(index, len(arguments) - 1)])
