"""The bounded scalars that the API's fields are made of: names, quantities, paths, counts."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema

MAX_WORKERS: Final = 1000
MAX_NAME: Final = 50
"""`<name>-worker-999` is a Pod's host name and so a DNS label of at most 63 characters, with three to spare."""

NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
QUANTITY_PATTERN: Final = (
    r"^[+]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]{1,3})?$"
)
FILE_PATTERN: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
MAX_FILE_NAME: Final = 128
ENV_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_.-]*$"


def _remedy(text: str) -> dict[str, Any]:
    """Words for whoever wrote a value that does not fit; they stay out of the CRD."""
    return {"remedy": text}


JobName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_NAME,
        pattern=NAME_PATTERN,
        json_schema_extra=_remedy(
            f"write at most {MAX_NAME} lower-case letters, digits and '-'; first a letter, last no '-'"
        ),
    ),
]
Label = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=LABEL_PATTERN,
        json_schema_extra=_remedy(
            "write at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
        ),
    ),
]
Subdomain = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        json_schema_extra=_remedy("write lower-case letters, digits, '-' and '.'"),
    ),
]
EnvName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=ENV_PATTERN,
        json_schema_extra=_remedy("write letters, digits and '_', not beginning with a digit"),
    ),
]
FileName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_FILE_NAME,
        pattern=FILE_PATTERN,
        json_schema_extra=_remedy("write a plain file name of letters, digits, '.', '_' and '-', without a folder"),
    ),
]
Image = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$",
        json_schema_extra=_remedy("write registry/repository:tag or registry/repository@sha256:digest"),
    ),
]
AbsolutePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        pattern=r"^/[^\x00]*$",
        json_schema_extra=_remedy("write an absolute path, beginning with '/'"),
    ),
]
ShortText = Annotated[str, Field(max_length=256)]
WITHOUT_NUL: Final = r"^[^\x00]*$"
"""What may be handed to a process: its arguments and environment end at a NUL."""
NUL_REMEDY: Final = _remedy("write it without the NUL character, which ends a text for every process")

_MOST: Final = 2**53
"""Of what is written without a unit: 8 PiB. A server keeps a larger bound as the nearest float that it can write."""

Quantity = Annotated[
    Annotated[
        str,
        Field(
            max_length=64,
            pattern=QUANTITY_PATTERN,
            json_schema_extra=_remedy("write a number with a unit, such as 500m, 2, 4Gi or 1500M"),
        ),
    ]
    | Annotated[int, Field(ge=0, le=_MOST)],
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "maxLength": 64,
            "minimum": 0,
            "maximum": _MOST,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""A Kubernetes quantity: what the API server takes for cpu, memory and extended resources, without negative ones."""

_UNITS: Final = {
    **{unit: Decimal(1000) ** power for power, unit in enumerate(["n", "u", "m", "", *"kMGTPE"], -3)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def amount(quantity: str | int) -> Decimal:
    """What a quantity comes to: 0.5 for 500m, 1024 for 1Ki, 2 for 2, "2.0" and "2e0"."""
    text = str(quantity)
    number = text.rstrip("KMGTPEnumki")
    return Decimal(number) * _UNITS[text[len(number) :]]


PassedThrough = Annotated[
    dict[str, Any],
    Field(max_length=100),
    WithJsonSchema({"type": "object", "maxProperties": 100, "x-kubernetes-preserve-unknown-fields": True}),
]
"""One of Kubernetes' own structures, handed on as it is and checked by the API server."""

Seconds = Annotated[int, Field(ge=1, le=10 * 365 * 24 * 3600)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Fraction = Annotated[float, Field(ge=0, le=1)]
