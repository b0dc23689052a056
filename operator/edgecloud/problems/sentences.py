"""One sentence and one remedy for each way in which a value can fail to fit its model."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgecloud.problems.places import Place
from edgecloud.problems.problem import MAX_SHOWN, clipped, quoted
from edgecloud.problems.words import counted, described, is_or_are, listed, literal, near

_EXACT: Final = 2.0**53

_WANTED: Final[tuple[tuple[str, str], ...]] = (
    ("string", "text"),
    ("bytes", "text"),
    ("int", "a whole number"),
    ("float", "a number"),
    ("decimal", "a number"),
    ("bool", "true or false"),
    ("list", "a list"),
    ("tuple", "a list"),
    ("set", "a list"),
    ("frozen_set", "a list"),
    ("dict", "a mapping"),
    ("mapping", "a mapping"),
    ("model", "a mapping"),
    ("dataclass", "a mapping"),
    ("datetime", "a time"),
    ("timezone", "a time"),
    ("date", "a date"),
    ("time_delta", "a duration"),
    ("time", "a time of day"),
    ("url", "a URL"),
    ("uuid", "a UUID"),
)
"""How pydantic's error types begin, and the noun for what they ask for; the first that fits."""
_EXAMPLES: Final = {
    "a time": "write a time such as 2026-01-31T12:00:00Z",
    "a date": "write a date such as 2026-01-31",
    "a time of day": "write a time such as 12:00:00",
    "a duration": "write a duration such as PT30S",
    "a URL": "write a URL such as https://example.org/path",
    "a UUID": "write a UUID such as 123e4567-e89b-12d3-a456-426614174000",
}

_EMPTY: Final = {
    "a mapping": "write its fields below it, indented",
    "a list": "write its items below it, each behind `- `",
}
_FEW: Final = 2
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,15}")
_NUMBER: Final = re.compile(r"[-+]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})([eE][-+]?[0-9]{1,2})?")

Said = tuple[str, str]
"""Message and remedy."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A value that does not fit.

    kind, context, words: pydantic's error type, its context and its own message.
    name: the last key of the path, or "" for an item or the document.
    value: what stands there (None too where nothing does). text: how it was written, if it is a scalar.
    wanted: nouns for what would fit, where there are several.
    """

    kind: str
    context: Mapping[str, Any]
    words: str
    name: str
    value: Any
    text: str | None
    place: Place
    wanted: tuple[str, ...] = ()


def wanted_by(kind: str) -> str:
    """The noun for what an error asks for: `int_type` -> a whole number."""
    return next((noun for beginning, noun in _WANTED if kind.startswith(beginning)), "another type")


def is_type_error(kind: str) -> bool:
    """Whether the value is of the wrong type altogether, rather than out of bounds."""
    return kind.endswith(("_type", "_parsing", "_from_float")) or kind in ("none_required", "is_instance_of")


def sentence(failure: Failure) -> Said:
    """What is wrong, and what to write."""
    if failure.wanted:
        return _type(failure, failure.wanted)
    if said := _SENTENCES.get(failure.kind):
        return said(failure)
    wanted = wanted_by(failure.kind)
    if wanted in _EXAMPLES or is_type_error(failure.kind):
        return _type(failure, (wanted,))
    return _other(failure)


def _type(failure: Failure, wanted: tuple[str, ...]) -> Said:
    message = f"{described(failure.value, failure.text)} where {' or '.join(wanted)} is needed"
    return message, _type_remedy(failure, wanted[0])


def _type_remedy(failure: Failure, wanted: str) -> str:
    if failure.value is None:
        what = _EMPTY.get(wanted) or _EXAMPLES.get(wanted, f"write {wanted}")
        return what if failure.place.required else f"{what}, or leave {failure.name or 'it'} out"
    if isinstance(failure.value, dict | list) and wanted in ("text", "a whole number", "a number", "true or false"):
        return failure.place.remedy or f"write {wanted}"
    if wanted == "text":
        written = literal(failure.value, failure.text)
        if failure.place.takes(written):
            return "put it in quotes" + (f": {quoted(written)}" if len(written) < MAX_SHOWN else "")
        return failure.place.remedy or _form(failure.place.pattern)
    if wanted in ("a whole number", "a number"):
        return failure.place.remedy or _number_remedy(failure.value, wanted)
    if wanted == "a list":
        return _list_remedy(failure.value, named={"name", "value"} <= failure.place.item_fields.keys())
    if wanted == "a mapping":
        found_list = isinstance(failure.value, list)
        return "write `key: value` lines" + (
            " without `- `" if found_list else " below it, indented" if failure.name else ""
        )
    return failure.place.remedy or _EXAMPLES.get(wanted, f"write {wanted}")


def _number_remedy(value: Any, wanted: str) -> str:
    form = _WHOLE if wanted == "a whole number" else _NUMBER
    if isinstance(value, str) and form.fullmatch(value):
        return f"write {value} without quotes"
    if isinstance(value, float) and abs(value) < _EXACT:
        return f"write a whole number, such as {math.ceil(value)}"
    return f"write {wanted}"


def _list_remedy(value: Any, *, named: bool = False) -> str:
    """named: whether the items have a name and a value, as environment variables do."""
    if named and isinstance(value, dict) and value:
        shown = [_named(*entry) for entry in itertools.islice(value.items(), _FEW)]
        return f"write [{', '.join([*shown, '...'] if len(value) > _FEW else shown)}]"
    words = value.split() if isinstance(value, str) else []
    if 0 < len(words) <= 5 and all(re.fullmatch(r"[A-Za-z0-9._/=-]{1,40}", word) for word in words):
        return f"write it as a list: [{', '.join(words)}]"
    return "begin each item with `- `, or write [a, b]"


def _named(name: Any, value: Any) -> str:
    text = "..."
    if isinstance(value, str | int | float):
        text = quoted(value if isinstance(value, str) else literal(value, None))
    return f"{{name: {clipped(str(name))}, value: {text}}}"


def _missing(failure: Failure) -> Said:
    if not failure.name:
        return "this item is missing", "write one more item"
    choices = failure.place.choices
    if len(choices) == 1:
        return "this field is missing", f"write {failure.name}: {choices[0]}"
    what = failure.place.description.split("; ")[0].rstrip(".")
    return "this field is missing", f"write {failure.name}:" + (f" ({what[:1].lower()}{what[1:]})" if what else "")


def _bound(failure: Failure) -> Said:
    key, beyond, remedy = {
        "greater_than_equal": ("ge", "below the least value ({})", "write a value of at least {}"),
        "greater_than": ("gt", "not above {}", "write a value above {}"),
        "less_than_equal": ("le", "above the greatest value ({})", "write a value of at most {}"),
        "less_than": ("lt", "not below {}", "write a value below {}"),
        "multiple_of": ("multiple_of", "no multiple of {}", "write a multiple of {}"),
    }[failure.kind]
    bound = failure.context.get(key)
    limit = f"{bound:g}" if isinstance(bound, float) else str(bound)
    return f"{literal(failure.value, failure.text)} is {beyond.format(limit)}", remedy.format(limit)


def _length(failure: Failure) -> Said:
    """Texts and collections that are too short or too long."""
    is_text = isinstance(failure.value, str)
    unit = "character" if is_text else "entry" if isinstance(failure.value, dict) else "item"
    least, most = failure.context.get("min_length"), failure.context.get("max_length")
    size = len(failure.value) if isinstance(failure.value, str | list | dict) else failure.context.get("actual_length")
    found = "text" if is_text else described(failure.value, None)
    if least is not None:
        remedy = f"write at least {counted(least, unit)}"
        message = (
            f"{found} of {counted(size, unit)}, and at least {least} {is_or_are(least)} needed"
            if size
            else f"empty, and at least {counted(least, unit)} {is_or_are(least)} needed"
        )
    else:
        remedy = f"write at most {counted(most, unit)}"
        message = f"{found} of {counted(size, unit)}, and at most {most} {'fits' if most == 1 else 'fit'}"
    return message, failure.place.remedy or remedy


def _pattern(failure: Failure) -> Said:
    return (
        f"{quoted(str(failure.value))} does not have the form that is needed",
        failure.place.remedy or _form(failure.context.get("pattern")),
    )


def _form(pattern: str | None) -> str:
    return f"write a text that matches {clipped(pattern, 120)}" if pattern else "write text"


def _choice(failure: Failure) -> Said:
    choices = failure.place.choices or tuple(re.findall(r"'([^']*)'", str(failure.context.get("expected", ""))))
    found = described(failure.value, failure.text)
    if not isinstance(failure.value, str) and failure.text in choices:
        return f"{found} where text is needed", f"put it in quotes: {quoted(failure.text)}"
    meant = near(failure.value, list(choices)) if isinstance(failure.value, str) else None
    if meant:
        return f"{found} is not one of {listed(choices)}", f"write {meant}"
    many = len(choices) > 1
    return (
        f"{found} is not {'one of the choices' if many else 'what is needed'}",
        f"write {'one of ' if many else ''}{listed(choices)}",
    )


def _finite(failure: Failure) -> Said:
    return f"{literal(failure.value, failure.text)} is too large or not finite", "write a finite number"


def _rule(failure: Failure) -> Said:
    return str(failure.context.get("message", failure.words)), str(failure.context.get("remedy", ""))


def _value_error(failure: Failure) -> Said:
    message = re.sub(r"^(Value error|Assertion failed), ", "", failure.words)
    return message or "this value does not fit", failure.place.remedy


def _tag(failure: Failure) -> Said:
    field = str(failure.context.get("discriminator", "")).strip("'")
    expected = str(failure.context.get("expected_tags", "")).replace("'", "")
    if failure.kind == "union_tag_not_found":
        return f"the field {field} is missing, which says what this is", f"write {field}:"
    return (
        f"{quoted(str(failure.context.get('tag', '')))} is not one of the choices for {field}",
        f"write one of {expected}",
    )


def _other(failure: Failure) -> Said:
    """Anything that none of our models asks for today."""
    remedy = failure.place.remedy or failure.place.description or "leave it out, or write a value that fits"
    return f"{described(failure.value, failure.text)} does not fit here ({clipped(failure.words, 200)})", remedy


_SENTENCES: Final[Mapping[str, Callable[[Failure], Said]]] = {
    "missing": _missing,
    **dict.fromkeys(("greater_than_equal", "greater_than", "less_than_equal", "less_than", "multiple_of"), _bound),
    **dict.fromkeys(("string_too_short", "string_too_long", "bytes_too_short", "bytes_too_long"), _length),
    **dict.fromkeys(("too_short", "too_long"), _length),
    "string_pattern_mismatch": _pattern,
    **dict.fromkeys(("literal_error", "enum"), _choice),
    "finite_number": _finite,
    "rule": _rule,
    **dict.fromkeys(("value_error", "assertion_error"), _value_error),
    **dict.fromkeys(("union_tag_invalid", "union_tag_not_found"), _tag),
}
