"""The free-form parts of a report: what could not be stored in a status is refused at the door."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgecloud.protocol import ProgressReport


def report(text: str) -> ProgressReport:
    return ProgressReport.model_validate_json(
        f'{{"step": 1, "reportedAt": 1.0, "evaluation": {text}}}', by_alias=True, by_name=False
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"accuracy": NaN}', "not finite"),
        ('{"accuracy": [1, -Infinity]}', "not finite"),
        ('{"correct": 1' + "0" * 400 + "}", "2 \\*\\* 53"),
        ('{"a": ' + "[" * 20 + "]" * 20 + "}", "nested deeper"),
        ("[1]", "valid dictionary|object"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        report(text)


def test_taken() -> None:
    said: dict[str, Any] = {"accuracy": 0.5, "perClass": {"cat": [1, 2.5, None, True, "x"]}}
    assert report('{"accuracy": 0.5, "perClass": {"cat": [1, 2.5, null, true, "x"]}}').evaluation == said
