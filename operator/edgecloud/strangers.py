"""The words of strangers, such as a worker's code, in what people read on a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """The same with a space for each character that a terminal would obey, line breaks included."""
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def plain_lines(text: str) -> str:
    """The same, but lines stay lines."""
    return "\n".join(map(plain, text.split("\n")))


def one_line(text: str, limit: int) -> str:
    """All of it in one line of so many characters at most, without the punctuation at its end."""
    said = " ".join(plain(text[: 4 * limit]).split())
    return (said if len(said) <= limit else said[: limit - 1] + "…").rstrip(" .;")
