"""What a scalar means: read as kubectl (sigs.k8s.io/yaml) reads it, so that a file means one thing everywhere.

They are YAML 1.1's, as go-yaml has them, and differ from PyYAML's resolver where that would surprise a user of kubectl:
`1e-3` is a number, `y` a boolean, `1:30` no number in base 60, and a date stays text. As in kubectl's JSON, a number
without a fraction is an integer (`4.0` is 4, `1e3` is 1000), and one too large for a float is text.
"""

from __future__ import annotations

import math
import re
from typing import Final

MAX_DIGITS: Final = 500
"""Digits of an integer; no field takes so many. Python refuses to print more than 4,300, or 640 where it is set so."""

Scalar = str | int | float | bool | None

_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER: Final = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_EXACT: Final = 1e21
"""Go writes a whole float below this as an integer into JSON."""

_CORE: Final = "tag:yaml.org,2002:"
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


class ScalarError(ValueError):
    """A scalar that stands for no value of JSON. The two arguments are message and remedy."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy


def scalar(text: str, *, tag: str | None, plain: bool) -> Scalar:
    """The value of a scalar.

    text: its content. tag: as written (None or "!" where there is none). plain: neither quoted nor a block.

    Raises:
        ScalarError: NaN and infinities, numbers out of bounds, tags of no JSON type, texts that do not fit their tag.
    """
    if tag is None or tag == "!":
        return _plain(text) if plain and tag is None else text
    kind = tag.removeprefix(_CORE)
    if kind == "str":
        return text
    if kind not in _TYPES:
        raise ScalarError("a tag that has no meaning here", "leave the tag out, and put text into quotes")
    value = _plain(text)
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ScalarError(f"a value that is not of its tag's type, {kind}", "leave the tag out")
    return value


def collection_tag(tag: str | None, kind: str) -> bool:
    """Whether a tag may stand at a collection: none, or the one it has anyway (`map`, `seq`)."""
    return tag is None or tag in ("!", _CORE + kind)


def _plain(text: str) -> Scalar:
    if text in _WORDS:
        value = _WORDS[text]
        if isinstance(value, float):
            raise ScalarError(f"{text} is no number that JSON and Kubernetes can hold", "write a finite number")
        return value
    if text[0] not in "+-.0123456789":
        return text
    number = text.replace("_", "") if text[0] != "." else text
    if _INTEGER.fullmatch(number):
        return _integer(number)
    if _FLOAT.fullmatch(number):
        return _float(text, number)
    return text


def _integer(number: str) -> int:
    if len(number) > MAX_DIGITS:
        raise ScalarError(f"a number of {len(number)} digits", "write a smaller number, or put text into quotes")
    sign = -1 if number[0] == "-" else 1
    digits = number.lstrip("+-").lower()
    for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)):
        if digits.startswith(prefix) and digits != "0":
            return sign * int(digits.removeprefix(prefix), base)
    return sign * int(digits)


def _float(text: str, number: str) -> int | float | str:
    value = float(number)
    if math.isinf(value):
        return text  # 83e05196 is the short form of a commit more often than a number
    return int(value) if value.is_integer() and abs(value) < _EXACT else value
