"""libyaml's complaints, said to whoever wrote the file."""

from __future__ import annotations

import re
from typing import Final

import yaml

from edgecloud.documents.text import Lines
from edgecloud.problems import Problem, clipped, quoted

MAX_DEPTH: Final = 64
"""Collections within each other; a Pod template, the deepest thing here, has about 15."""

_NO_BREAK: Final = "\u00a0"
_NO_BREAK_SAID: Final = (
    "a no-break space (U+00A0), which looks like a space and is none in YAML",
    "write a space in its place",
)
_GLUED: Final = re.compile(r" *(?:- )?(\w+):(?!//)([^\s:].*)")
"""A field without the space behind its colon; a URL is none."""
_TAB: Final = ("a tab where YAML wants spaces", "YAML indents with spaces; replace the tab")
_SENTENCES: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "mapping values are not allowed",
        "a `: ` where no key can stand",
        "indent the fields of one mapping alike, and put a text that holds `: ` into quotes",
    ),
    (
        "could not find expected ':'",
        "a line that is no `key: value`",
        "write a colon and a space behind the key, or indent the line below the text that it belongs to",
    ),
    (
        "did not find expected key",
        "something that is no field of the mapping around it",
        "indent the fields of one mapping alike, and put a text with quotes in its middle into quotes as a whole",
    ),
    (
        "did not find expected '-' indicator",
        "something that is no item of the list around it",
        "begin each item with `- `, all indented alike",
    ),
    (
        "block sequence entries are not allowed",
        "a `- ` where no list can begin",
        "put the list on the lines below its key, or the text into quotes",
    ),
    (
        "did not find expected <document start>",
        "something behind the end of the document",
        "begin another document with a line `---`",
    ),
    (
        "did not find expected node content",
        "a value is missing here, or a bracket or comma is too many",
        "check the brackets and commas, and put a text that holds them into quotes",
    ),
    (
        "unknown escape character",
        "an unknown escape in double quotes",
        r"write \\ for a backslash, or use single quotes",
    ),
    (
        "invalid Unicode character escape",
        "an escape that stands for no character",
        "write the character itself",
    ),
    (
        "did not find expected comment or line break",
        "something behind | or > that does not belong there",
        "begin the text on the next line",
    ),
    ("undefined tag handle", "a tag that has no meaning here", "leave the tag out, or put a text with ! into quotes"),
    ("a tag", "a tag that has no meaning here", "leave the tag out, or put a text with ! into quotes"),
    ("a directive", "a line that begins with % and is no directive of YAML", "remove it, or put the text into quotes"),
    ("incompatible YAML document", "a version of YAML that is not read here", "remove the %YAML line"),
    ("an anchor", "an & that begins no name", "put a text that begins with & into quotes"),
    ("an alias", "a * that begins no name", "put a text that begins with * into quotes"),
    (
        "maximum nesting depth",
        f"brackets or lists more than {MAX_DEPTH} deep",
        "write a flatter document",
    ),
)


def syntax_problem(error: yaml.YAMLError, *, lines: Lines, text: str, file: str) -> Problem:
    """The sentence for an error of libyaml (or of PyYAML's own parser)."""
    mark = getattr(error, "problem_mark", None)
    context_mark = getattr(error, "context_mark", None)
    index = mark.index if mark else None
    line = lines.number(index) if index is not None else None
    opened = lines.number(context_mark.index) if context_mark else line
    context = getattr(error, "context", None) or ""
    complaint = str(getattr(error, "problem", None) or error)

    if "unexpected end of stream" in complaint and opened is not None:
        line, said = opened, ("a quote that is opened here is never closed", "write the closing quote")
    elif "tab character" in complaint or (line is not None and _tab_indents(lines, {line, opened or line})):
        said = _TAB
    elif line is not None and (slip := _slip(lines, line, complaint)):
        line, said = slip
    elif "cannot start any token" in complaint and index is not None:
        said = _character(text[index : index + 1])
    elif match := re.search(r"expected ',' or '([\]}])'", complaint):
        opening = "[" if match[1] == "]" else "{"
        said = (
            f"the {opening} of line {opened} is not closed before this",
            f"write a comma or {match[1]} here, and put a text that holds brackets or commas into quotes",
        )
    else:
        said = next(
            ((message, remedy) for key, message, remedy in _SENTENCES if key in f"{context} {complaint}"),
            (f"this is no YAML: {clipped(complaint)}", "check indentation, quotes and brackets around this line"),
        )
    return Problem(file=file, line=line, path="", message=said[0], remedy=said[1])


def _slip(lines: Lines, line: int, complaint: str) -> tuple[int, tuple[str, str]] | None:
    """What makes a text of a line that was meant as a field, so that the field below it is one too many; its line."""
    if not any(words in complaint for words in ("mapping values are not allowed", "could not find expected ':'")):
        return None
    above = next((number for number in range(line - 1, 0, -1) if lines.content(number).strip()), line)
    for number in (above, line):
        content = lines.content(number)
        if _NO_BREAK in content[: len(content) - len(content.lstrip())] or f":{_NO_BREAK}" in content:
            return number, _NO_BREAK_SAID
        if number == above and (glued := _GLUED.match(content)):
            key, value = map(clipped, glued.groups())
            message = f"no space behind the colon of {key}, which makes a text of the line"
            return number, (message, f"write {key}: {value}")
    return None


def _tab_indents(lines: Lines, numbers: set[int]) -> bool:
    """Whether one of these lines is indented with a tab: YAML allows a tab here and there, but then it is to blame."""
    return any(re.match(r" *\t", lines.content(number)) for number in numbers)


def _character(character: str) -> tuple[str, str]:
    if character == "\t":
        return _TAB
    return f"{quoted(character)} cannot begin a value", "put the value into quotes"
