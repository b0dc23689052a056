"""What the operator's log looks like: lines for people, or a JSON object on each line for a collector."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

Format = Literal["text", "json"]


class JsonFormatter(logging.Formatter):
    """One JSON object for each record, without line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def set_up_logging(form: Format, level: str) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf tells of every event that a handler took; what goes wrong is enough.
    kopf_level = logging.DEBUG if level.upper() == "DEBUG" else logging.WARNING
    logging.getLogger("kopf").setLevel(kopf_level)
    logging.getLogger("kopf._core.reactor.running").addFilter(_no_signals)


def _no_signals(record: logging.LogRecord) -> bool:
    """kopf runs in a thread, where signals are not its business; it need not warn of that."""
    return "OS signals are ignored" not in record.getMessage()
