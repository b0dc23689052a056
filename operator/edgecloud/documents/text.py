"""From bytes to text that libyaml can take: bounds, encoding, characters, JSON's escapes, and where the lines are."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Final

from edgecloud.problems import Problem

MAX_BYTES: Final = 1024 * 1024
"""Size of a file. etcd takes no object above 1.5 MB, so a larger one could never be applied."""
MAX_TAG_DIRECTIVES: Final = 100
"""libyaml compares each %TAG with all before it: 70,000 of them, in 1 MiB, keep it busy for 12 seconds."""

_UTF8_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_BREAK: Final = re.compile("\r\n?|\n")
_TAG_DIRECTIVE: Final = re.compile(r"^%TAG\b", re.MULTILINE)
_PAIR: Final = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)", re.DOTALL)
"""An escape; with groups, two that are halves of one character."""
_SAVE_AS_UTF8: Final = "save the file as UTF-8"


class UnreadableError(Exception):
    """The file cannot be read any further; problem says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Lines:
    """Finds the line of a character. Lines end where editors end them (LF, CR LF, CR), not at U+0085 as in YAML 1.1."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in _BREAK.finditer(text))]
        self._text = text
        self._end = len(text.rstrip())

    def number(self, index: int) -> int:
        """Line of the character at `index`, from 1; the last one with content for an index at the end of the text."""
        return bisect_right(self._starts, min(index, self._end))

    def content(self, line: int) -> str:
        """Text of a line, without its end."""
        end = self._starts[line] if line < len(self._starts) else len(self._text)
        return self._text[self._starts[line - 1] : end].rstrip("\r\n")


def decode(data: bytes, file: str) -> str:
    """The text of a file.

    Raises:
        UnreadableError: too large, not UTF-8, or with characters that YAML does not allow.
    """

    def unreadable(line: int | None, message: str, remedy: str) -> UnreadableError:
        return UnreadableError(Problem(file=file, line=line, path="", message=message, remedy=remedy))

    if len(data) > MAX_BYTES:
        raise unreadable(None, *too_large())
    if data.startswith(_OTHER_BOMS):
        raise unreadable(1, "the file is UTF-16 or UTF-32, and Kubernetes reads UTF-8", _SAVE_AS_UTF8)
    if b"\x00" in data and data.count(b"\x00") * 3 > len(data):
        raise unreadable(1, "the file is binary, or UTF-16 or UTF-32, and Kubernetes reads UTF-8", _SAVE_AS_UTF8)
    try:
        text = data.removeprefix(_UTF8_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        line = len(_BREAK.findall(error.object[: error.start].decode("utf-8"))) + 1
        message = f"the byte 0x{wrong:02x} is not UTF-8; the file may be in another encoding, such as Latin-1"
        raise unreadable(line, message, _SAVE_AS_UTF8) from None
    if found := _FORBIDDEN.search(text):
        line = Lines(text).number(found.start())
        name = "a NUL byte" if found[0] == "\x00" else f"the control character U+{ord(found[0]):04X}"
        raise unreadable(line, f"{name} is not allowed in YAML", "remove it, or write it as an escape in double quotes")
    if len(_TAG_DIRECTIVE.findall(text)) > MAX_TAG_DIRECTIVES:
        raise unreadable(
            1, f"more than {MAX_TAG_DIRECTIVES} %TAG directives", "remove them: no tag of one's own means anything here"
        )
    return _whole_escapes(text)


def _whole_escapes(text: str) -> str:
    """JSON's escapes of a character beyond U+FFFF, two halves, as YAML's one; other text than JSON as it is.

    kubectl, too, reads JSON as such, and refuses these halves in YAML. The lines stay where they are.
    """
    if not text.lstrip().startswith("{") or not any(match[1] for match in _PAIR.finditer(text)):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _PAIR.sub(_whole, text)


def _whole(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    high, low = (int(half, 16) for half in match.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08X}"


def too_large() -> tuple[str, str]:
    """Message and remedy for a file above MAX_BYTES."""
    return (
        f"the file is larger than {MAX_BYTES // 1024} KiB, more than Kubernetes stores in one object",
        "bring large content with the image or a volume, or cut the file into several",
    )
