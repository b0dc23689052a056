"""status.exports: what was said of converted models, if it is that and nothing else. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from edgecloud.api.base import Model
from edgecloud.api.types import Fraction
from edgecloud.edge.card import Format, Sha256

MAX_ENTRIES: Final = 16
"""As many as the schema of status.exports allows."""


def _printable(text: str) -> str:
    """A name without anything that a terminal would obey: events and tables show it."""
    if not text.isprintable():
        raise ValueError("it has characters that can't be printed")
    return text


_Milliseconds = Annotated[float, Field(ge=0, le=1e9)]
_Name = Annotated[str, AfterValidator(_printable)]


class _Parity(Model):
    images: Annotated[int, Field(ge=0, le=2**53)]
    agreement: Fraction
    max_difference: Annotated[float, Field(ge=0, le=1e300)]


class _Latency(Model):
    p50: _Milliseconds
    p90: _Milliseconds
    p99: _Milliseconds


class _Export(Model):
    format: Format
    path: Annotated[_Name, Field(min_length=1, max_length=1024)]
    bytes: Annotated[int, Field(ge=0, le=2**53)]
    sha256: Sha256
    accuracy: Fraction
    parity: _Parity
    latency: _Latency
    gate: Literal["passed", "failed"]
    node: Annotated[_Name, Field(max_length=253)] | None = None


def accepted(said: Any) -> tuple[dict[str, Any], ...] | None:
    """The entries of {"exports": [...]} as status.exports holds them; None for anything else.

    All or nothing: a worker, or a Pod that measures, is a program that may say what it likes, and of a list with one
    forged entry the others are worth no more.
    """
    entries = said.get("exports") if isinstance(said, dict) else None
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_ENTRIES:
        return None
    try:
        return tuple(_Export.parse(entry).dump() for entry in entries)
    except (ValidationError, ValueError):
        return None
