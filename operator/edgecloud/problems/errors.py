"""From pydantic's ValidationError to problems: each with its place, unions in one line, near misses named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from edgecloud.problems.places import homes, place_at, plain
from edgecloud.problems.problem import MAX_PROBLEMS, Path, Problem, path_text
from edgecloud.problems.sentences import Failure, Said, is_type_error, sentence, wanted_by
from edgecloud.problems.words import listed, near

_UNKNOWN: Final = "extra_forbidden"
_MAX_HOMES: Final = 3
_EVERYWHERE: Final = "name"
"""What almost anything has is at home nowhere in particular."""
_SHORT: Final = 5
_SHORT_CUTOFF: Final = 0.7
_CUTOFF: Final = 0.8
"""How alike an unknown field is to the one that is meant; of a short one a single letter is a good part."""
_MAX_PAIRED: Final = 4 * MAX_PROBLEMS
"""Missing fields that are looked for among the unknown ones; more would not be told anyway."""


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """One entry of a ValidationError.

    path: where, in the document's own keys.
    labels: pydantic's names for the members of unions on the way there, each with its position in path.
    key: the last key itself is to blame, not its value.
    wanted: nouns for what a union takes. meant: the missing field that an unknown one seems to be.
    """

    path: Path
    labels: tuple[tuple[int, str], ...]
    key: bool
    kind: str
    context: Mapping[str, Any]
    words: str
    wanted: tuple[str, ...] = ()
    meant: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the checked value came from.

    file: its name. line_of, text_of: see Document; asked with paths that begin with prefix.
    prefix: path of the value in its document, such as ("items", 2).
    tainted, disturbed: see Document; nothing is said that may come from what is wrong there.
    hint: what to write for an unknown field, by its path and the whole value, where another tool has one of that name.
    """

    file: str
    line_of: Callable[[Path], int | None]
    text_of: Callable[[Path], str | None]
    prefix: Path = ()
    tainted: frozenset[Path] = frozenset()
    disturbed: frozenset[Path] = frozenset()
    hint: Callable[[Path, Any], str | None] = lambda _path, _value: None


def explain(
    error: ValidationError, *, model: type[BaseModel], value: Any, source: Source
) -> tuple[tuple[Problem, ...], int]:
    """The problems of one value by line, MAX_PROBLEMS at most, and how many more there are.

    model: what the value was checked against. value: the plain data.
    """
    faults = [_fault(entry, value) for entry in error.errors(include_url=False, include_input=False)]
    faults = _without_consequences(_one_per_union(faults, value), value)
    faults = [fault for fault in faults if not _is_tainted(fault, source)]
    faults = _paired(faults, model, value)
    placed = sorted(((source.line_of((*source.prefix, *f.path)) or 0, f) for f in faults), key=lambda entry: entry[0])
    told = []
    for line, fault in placed[:MAX_PROBLEMS]:
        message, remedy = _say(fault, model=model, value=value, source=source)
        path = path_text((*source.prefix, *fault.path))
        told.append(Problem(file=source.file, line=line or None, path=path, message=message, remedy=remedy))
    return tuple(told), len(placed) - len(told)


def _fault(entry: Any, value: Any) -> _Fault:
    """Tell the document's keys in an entry's location from pydantic's labels."""
    kind, location = entry["type"], entry["loc"]
    path: list[str | int] = []
    labels: list[tuple[int, str]] = []
    key = False
    for position, step in enumerate(location):
        last = position == len(location) - 1
        if _holds(value, step):
            value = value[step]
            path.append(step)
        elif kind == "rule" or (last and kind == "missing"):
            value = None
            path.append(step)
        elif last and step == "[key]":
            key = True
        else:
            labels.append((len(path), str(step)))
    context = entry.get("ctx", {})
    if kind == "rule":
        path.extend(_relative(context.get("path")))
    return _Fault(path=tuple(path), labels=tuple(labels), key=key, kind=kind, context=context, words=entry["msg"])


def _relative(path: Any) -> Iterable[str | int]:
    """A rule's own path: a sequence of keys and indices, or text with dots."""
    if isinstance(path, str):
        return [int(step) if step.isdigit() else step for step in path.split(".") if step]
    return path if isinstance(path, list | tuple) else ()


def _holds(value: Any, step: str | int) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)


def _at(value: Any, path: Path) -> Any:
    """What stands at a path; None where nothing does."""
    for step in path:
        if not _holds(value, step):
            return None
        value = value[step]
    return value


def _one_per_union(faults: Sequence[_Fault], value: Any) -> list[_Fault]:
    """pydantic reports what every member of a union found wrong; keep the member that the value comes nearest to."""
    kept: list[_Fault] = []
    unions: dict[Path, dict[str, list[_Fault]]] = {}
    for fault in faults:
        if fault.labels:
            position, label = fault.labels[0]
            unions.setdefault(fault.path[:position], {}).setdefault(label, []).append(fault)
        else:
            kept.append(fault)
    for path, members in unions.items():
        near_ones = [member for member in members.values() if not any(_is_far(fault, path, value) for fault in member)]
        if near_ones or len(members) == 1:
            nearest = min(near_ones or members.values(), key=len)
            kept.extend(_one_per_union([replace(fault, labels=fault.labels[1:]) for fault in nearest], value))
        else:
            first, *_ = (fault for member in members.values() for fault in member)
            wanted = dict.fromkeys(wanted_by(f.kind) for member in members.values() for f in member if f.path == path)
            kept.append(replace(first, path=path, labels=(), wanted=tuple(wanted)))
    return kept


def _is_far(fault: _Fault, union: Path, value: Any) -> bool:
    """Whether a member of the union at this path wants another type altogether."""
    if fault.path != union:
        return False
    is_choice = fault.kind in ("literal_error", "enum")
    return is_type_error(fault.kind) or (is_choice and isinstance(_at(value, union), dict | list))


def _without_consequences(faults: Sequence[_Fault], value: Any) -> list[_Fault]:
    """pydantic counts the right items alone, and finds a list too short whose items are wrong."""
    above = {fault.path[:length] for fault in faults for length in range(len(fault.path))}
    return [fault for fault in faults if fault.path not in above or not _is_long_enough(fault, value)]


def _is_long_enough(fault: _Fault, value: Any) -> bool:
    found, least = _at(value, fault.path), fault.context.get("min_length")
    return fault.kind == "too_short" and isinstance(found, list) and least is not None and len(found) >= least


def _is_tainted(fault: _Fault, source: Source) -> bool:
    """Whether a fault may come from what is wrong with the YAML itself, such as a key that was dropped."""
    if not source.tainted:
        return False
    path = (*source.prefix, *fault.path)
    if fault.kind == "rule" or (fault.kind == "missing" and path[:-1] in source.disturbed):
        return True
    return any(path[:length] in source.tainted for length in range(len(path) + 1))


def _paired(faults: Sequence[_Fault], model: type[BaseModel], value: Any) -> list[_Fault]:
    """A misspelt required field is missing and unknown at once: one fault, at what was written, says both."""
    told: list[_Fault] = []
    written_for: set[Path] = set()
    left = _MAX_PAIRED
    for fault in faults:
        written = _misspelt(fault.path, model, value) if fault.kind == "missing" and left > 0 else None
        path = (*fault.path[:-1], written or "")
        if written is None or path in written_for:
            told.append(fault)
        else:
            left -= 1
            written_for.add(path)
            told.append(replace(fault, path=path, key=True, kind=_UNKNOWN, meant=str(fault.path[-1])))
    return [fault for fault in told if fault.meant or not (fault.kind == _UNKNOWN and fault.path in written_for)]


def _misspelt(path: Path, model: type[BaseModel], value: Any) -> str | None:
    """The unknown key that stands where a missing field should."""
    if not path or not isinstance(name := path[-1], str):
        return None
    parent = path[:-1]
    written = _at(value, parent)
    known = place_at(model, parent).fields
    unknown = [key for key in written if key not in known][:MAX_PROBLEMS] if isinstance(written, dict) else []
    return next((key for key in unknown if plain(key) == plain(name)), None) or near(name, unknown)


def _say(fault: _Fault, *, model: type[BaseModel], value: Any, source: Source) -> Said:
    if fault.meant:
        return f"unknown field, and {fault.meant} is missing", f"write {fault.meant} instead"
    if fault.kind == _UNKNOWN and fault.path:
        return _unknown(fault.path, model=model, value=value, source=source)
    place = place_at(model, fault.path, key=fault.key)
    last = fault.path[-1] if fault.path else ""
    failure = Failure(
        kind=fault.kind,
        context=fault.context,
        words=fault.words,
        name=last if isinstance(last, str) else "",
        value=str(last) if fault.key else _at(value, fault.path),
        text=None if fault.key else source.text_of((*source.prefix, *fault.path)),
        place=place,
        wanted=fault.wanted,
    )
    return sentence(failure)


def _unknown(path: Path, *, model: type[BaseModel], value: Any, source: Source) -> Said:
    """A field that does not belong where it stands: misspelt, at the wrong level, or unknown altogether."""
    *parent, last = path
    name = str(last)
    fields = place_at(model, tuple(parent)).fields
    here = [field for field in sorted(fields, key=lambda field: not fields[field].is_required()) if field != name]
    written = _at(value, tuple(parent))
    message = "unknown field"
    same = next((field for field in here if plain(field) == plain(name)), None)
    if not same and (hint := source.hint(path, value)):
        return message, hint
    if not same and name not in fields and (elsewhere := _elsewhere(name, path, model)):
        return f"{message} here", elsewhere
    meant = same or near(name, here, cutoff=_SHORT_CUTOFF if len(name) <= _SHORT else _CUTOFF)
    if meant and isinstance(written, dict) and meant in written:
        return message, f"leave it out; {meant} is there already"
    if meant:
        return message, f"write {meant}" if same else f"did you mean {meant}?"
    return message, f"leave it out; known here: {listed(here)}" if here else "leave it out"


def _elsewhere(name: str, path: Path, model: type[BaseModel]) -> str | None:
    """`epochs belongs to spec.trainer`; fields of status count only within status, which users do not write."""
    within_status = path[0] == "status"
    found = [
        (field, where)
        for field, where in homes(model).get(plain(name), ())
        if within_status or where.split(".")[0] != "status"
    ]
    if not found or name == _EVERYWHERE:
        return None
    field = found[0][0]
    places = sorted(
        {where or "the top of the document" for _, where in found}, key=lambda where: (where.count("."), where)
    )
    return f"{field} belongs to {' or '.join(places[:_MAX_HOMES])}"
