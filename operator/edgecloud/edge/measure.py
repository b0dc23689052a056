"""What the measuring Pod runs: `python -m edgecloud.edge.measure` measures an export's ONNX models on this machine.

    EDGECLOUD_EXPORT              the export's folder, or its URL
    EDGECLOUD_NODE                name of the node, for the report
    EDGECLOUD_MAX_ACCURACY_LOSS   percentage points that a model may lose; default: 1
    EDGECLOUD_LATENCY_SECONDS     for how long latency is measured; default: 20
    EDGECLOUD_TERMINATION_LOG     file for the result; default: /dev/termination-log

The result is one line of JSON, {"exports": [...]} or {"error": "..."}, on standard output and in the file. In a folder
that can be written to, report-edge.json is left as well.

Exit code: 0 measured, and all gates passed; 3 measured, and one has not; 2 it can't be measured, now or later; 75 it
may work another time (storage, network).
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from edgecloud.edge.fetching import FetchError, fetch, is_url, read
from edgecloud.edge.layout import EDGE_REPORT, MODELS, REFERENCE, REPORT
from edgecloud.edge.machine import describe
from edgecloud.edge.measuring import OPENERS, MeasureError, digest, measure
from edgecloud.edge.reference import MAX_FILE_BYTES
from edgecloud.edge.report import Measured, Report, summary
from edgecloud.edge.runtime import MAX_MODEL_BYTES

PASSED, UNUSABLE, GATE_FAILED, MAY_PASS = 0, 2, 3, 75
MAX_MESSAGE_BYTES: Final = 3584
"""The kubelet takes 4096 of a Pod."""
_MAX_REPORT_BYTES: Final = 32 * 1024**2
_MAX_ERROR: Final = 1000

log = logging.getLogger("edgecloud.measure")


class ConfigError(ValueError):
    """The environment doesn't say what to measure. The message names the variable."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the environment says."""

    export: str
    node: str
    max_accuracy_loss: float
    termination_log: Path

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Config:
        """From environment variables.

        Raises:
            ConfigError: one is missing, or has a value that can't be.
        """
        export = environment.get("EDGECLOUD_EXPORT", "")
        if not export:
            raise ConfigError("EDGECLOUD_EXPORT isn't set: write the export's folder or URL into it")
        text = environment.get("EDGECLOUD_MAX_ACCURACY_LOSS", "1")
        try:
            loss = float(text)
        except ValueError:
            loss = math.nan
        if not 0 <= loss <= 100:
            raise ConfigError(
                f"EDGECLOUD_MAX_ACCURACY_LOSS is {text[:64]!r}: percentage points from 0 to 100 are needed"
            )
        return cls(
            export=export,
            node=environment.get("EDGECLOUD_NODE", ""),
            max_accuracy_loss=loss,
            termination_log=_termination_log(environment),
        )


def _termination_log(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("EDGECLOUD_TERMINATION_LOG") or "/dev/termination-log")


def main() -> NoReturn:
    """Measure, say what was found, and end with the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    # As a container's first process it would not even be ended by the signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    code, message = _outcome(os.environ)
    text = json.dumps(message, separators=(",", ":"))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    try:
        _termination_log(os.environ).write_text(text)
    except OSError as error:
        log.warning("the result isn't in %s: %s", _termination_log(os.environ), error.strerror or error)
    sys.exit(code)


def _outcome(environment: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Exit code and message."""
    try:
        config = Config.read(environment)
        exports = _measured(config)
    except FetchError as error:
        return (MAY_PASS if error.passing else UNUSABLE), _error(error)
    except (ConfigError, MeasureError) as error:
        return UNUSABLE, _error(error)
    except OSError as error:
        return MAY_PASS, _error(error)
    passed = all(one.gate.passed for one in exports)
    return (PASSED if passed else GATE_FAILED), {"exports": [summary(one, node=config.node) for one in exports]}


def _error(error: Exception) -> dict[str, Any]:
    text = str(error)
    log.error("%s", text)
    return {"error": text[:_MAX_ERROR]}


def _measured(config: Config) -> Sequence[Measured]:
    with _folder(config.export) as folder:
        report = _report(folder)
        said = _models(folder, report)
        if is_url(config.export):
            for one in said:
                fetch(config.export, one.path, folder / one.path, most=MAX_MODEL_BYTES, sha256=one.sha256)
            fetch(config.export, REFERENCE, folder / REFERENCE, most=MAX_FILE_BYTES)
        else:
            _verify(folder, said)
        formats = [one.format for one in said]
        log.info("measuring %s from %s", ", ".join(formats), "a URL" if is_url(config.export) else folder)
        found = measure(
            folder,
            formats,
            max_accuracy_loss=config.max_accuracy_loss,
            on_progress=lambda what, part: log.info("%3.0f %% %s", 100 * part, what),
        )
        macs = {one.format: one.macs for one in said}  # only the export can count them
        found = [one.model_copy(update={"macs": macs[one.format]}) for one in found]
        for one in found:
            log.info(
                "%s", one.gate.message or f"{one.path} passes: {100 * one.accuracy:.2f} %, {one.latency.p50:.3f} ms"
            )
        if not is_url(config.export):
            _leave(folder / EDGE_REPORT, _edge_report(report, found, config.node))
        return found


@contextmanager
def _folder(export: str) -> Iterator[Path]:
    """The export's folder; of a URL an empty one with the report in it."""
    if not is_url(export):
        yield Path(export)
        return
    with tempfile.TemporaryDirectory(prefix="edgecloud-") as name:
        fetch(export, REPORT, Path(name) / REPORT, most=_MAX_REPORT_BYTES)
        yield Path(name)


def _report(folder: Path) -> Report:
    if not (folder / REPORT).exists():
        raise MeasureError(
            f"{folder} holds no {REPORT}: nothing was exported there (a worker image of an earlier release does not"
            " export); export again"
        )
    try:
        return Report.model_validate_json(read(folder / REPORT, _MAX_REPORT_BYTES), by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise MeasureError(f"{folder / REPORT} can't be used ({place}: {first['msg']}): export again") from None


def _models(folder: Path, report: Report) -> list[Measured]:
    """What the report says of the models that can be measured here, each once."""
    said = {one.format: one for one in report.exports if one.format in OPENERS}
    if not said:
        raise MeasureError(f"{folder / REPORT} tells of no ONNX model: export with --formats onnx,onnx-int8")
    for one in said.values():
        if one.path != MODELS[one.format]:  # whoever wrote the report isn't to choose the file
            raise MeasureError(f"{folder / REPORT}: the {one.format} model is to be {MODELS[one.format]}: export again")
    return list(said.values())


def _verify(folder: Path, said: Sequence[Measured]) -> None:
    """Refuse files that the report doesn't tell of."""
    for one in said:
        if (found := digest(folder / one.path)[1]) != one.sha256:
            raise MeasureError(
                f"{folder / one.path} is another file than {REPORT} tells of (sha256 {found}, not {one.sha256}): "
                "export again, and copy the whole folder",
                format=one.format,
            )


def _edge_report(report: Report, found: Sequence[Measured], node: str) -> Report:
    return report.model_copy(
        update={"exports": tuple(found), "problems": (), "machine": describe(node), "measured_at": "edge"}
    )


def _leave(path: Path, report: Report) -> None:
    """Write beside and rename. A folder that is mounted read-only goes without."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            beside.write_text(json.dumps(report.dump(), indent=2) + "\n", encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s isn't written: %s", path, error.strerror or error)


if __name__ == "__main__":
    main()
