"""What the operator's log looks like: lines for people, or a JSON object on each line for a collector."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from edgecloud_operator.subject import Subject, subject

Format = Literal["text", "json"]
_ATTEMPT: Final = re.compile(r"Request attempt #([0-9]{1,9}) failed; will retry:")


class JsonFormatter(logging.Formatter):
    """One JSON object for each record, without line breaks; job, round and worker where it is about them."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if about := subject():
            said |= {"job": about.job, "round": about.round}
            if about.worker is not None:
                said["worker"] = about.worker
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            said["stack"] = record.stack_info
        return _visible(json.dumps(said, ensure_ascii=False), _json_escape)


class TextFormatter(logging.Formatter):
    """A line for each record, [job round worker] before its message; a traceback's lines are set off below it.

    What a user wrote can't look like another record: nothing in a record breaks its line but a traceback.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        about = subject()
        record.message = (f"[{_named(about)}] " if about else "") + record.message
        return _visible(super().formatMessage(record), _text_escape)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _set_off(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return _set_off(super().formatStack(stack_info))


def _named(about: Subject) -> str:
    worker = f" worker {about.worker}" if about.worker is not None else ""
    return f"{about.job} round {about.round}{worker}"


def _set_off(text: str) -> str:
    return "\n".join(f"    | {_visible(line, _text_escape)}" for line in text.split("\n"))


def _visible(text: str, escape: Callable[[str], str]) -> str:
    """The text with all that breaks a line, moves a cursor or turns the writing round spelt out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else escape(char) for char in text)


def _text_escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1]


def set_up_logging(form: Format, level: str) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    hush_kopf(level)


def hush_kopf(level: str) -> None:
    """kopf tells of every event that a handler took; what goes wrong is enough."""
    kopf_level = logging.DEBUG if level.upper() == "DEBUG" else logging.WARNING
    logging.getLogger("kopf").setLevel(kopf_level)
    logging.getLogger("kopf._core.reactor.running").addFilter(_no_signals)
    logging.getLogger("kopf._cogs.clients.watching").addFilter(_ever_rarer)


def _no_signals(record: logging.LogRecord) -> bool:
    """kopf runs in a thread, where signals are not its business; it need not warn of that."""
    return "OS signals are ignored" not in record.getMessage()


def _ever_rarer(record: logging.LogRecord) -> bool:
    """kopf tells of every attempt at a request, and for ever where a namespace is gone or an API server away: the 1st,
    2nd, 4th, 8th and so on say as much."""
    found = _ATTEMPT.match(record.getMessage())
    return found is None or int(found[1]).bit_count() == 1
