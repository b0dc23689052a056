"""What every model of the API and of the worker protocol has in common: strict, frozen, camelCase, nothing unknown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A frozen value with Kubernetes' spelling of its fields on the outside and Python's on the inside."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        ser_json_inf_nan="null",
    )

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Check plain data (what a YAML or JSON document holds).

        The way is over JSON text, whose strict mode knows lists, numbers and times as JSON does: a list is a tuple,
        a string is a time, but "3" is no number and 1.5 no integer.

        Raises:
            pydantic.ValidationError: with one entry for each field that is wrong.
        """
        return cls.model_validate_json(json.dumps(value), by_alias=True, by_name=False)

    @classmethod
    def hint(cls, path: tuple[str | int, ...], document: Any) -> str | None:
        """What to write instead of an unknown field at a path of a document; None where there is more to guess."""
        return None

    def dump(self) -> dict[str, Any]:
        """Plain data again, in camelCase, without the fields that are not set (None)."""
        data: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return data


def utc(moment: datetime) -> str:
    """Kubernetes' form of a time: whole seconds, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


def _in_utc(moment: datetime) -> datetime:
    """The same moment in UTC: one that UTC's calendar does not hold could be read, but never written."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("this time is before the year 1 or after the year 9999") from None


Time = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    PlainSerializer(utc, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A moment, to the second, as `2026-01-31T12:00:00Z`. A zone has to be named: the time is another without it."""
