"""`python -m edgecloud_trainer.export CHECKPOINT`: the last stage of a job. A line for each thing that is done.

Exit codes: 0 converted, measured, and copied to its destination; 3 converted and measured, but a gate failed or a
format can't be made, and nothing was copied; 2 there is nothing that can be exported; 75 may work next time. The last
line says why.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from edgecloud.api.spec import ExportSpec
from edgecloud.edge.layout import MODELS, PAGE, REFERENCE, REPORT, SCHEMA
from edgecloud.uncollected import uncollected
from edgecloud_trainer.export.errors import DONE, GATE_FAILED, SAID, TRANSIENT, UNUSABLE, ExportError


def main() -> int:
    """Export; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    said = _arguments()
    with uncollected():
        import edgecloud_trainer.export.making  # noqa: F401 - all of it
        from edgecloud_trainer import data, models
        from edgecloud_trainer.export.delivery import DeliveryError, DestinationError
        from edgecloud_trainer.restoring import RestoreError

    try:
        return _work(said)
    except (RestoreError, ExportError, models.ModelError, data.DataError, DestinationError) as error:
        _say(str(error))
        return TRANSIENT if isinstance(error, data.DataError) and error.passing else UNUSABLE
    except (DeliveryError, OSError) as error:
        _say(str(error))
        return TRANSIENT


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgecloud_trainer.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder of one checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of the export")
    parser.add_argument("--cache", type=Path, required=True, help="folder of decoded images")
    parser.add_argument("--spec", required=True, help="spec.export as JSON")
    parser.add_argument("--threads", type=int, default=0, help="the larger number of threads to measure with")
    parser.add_argument("--node", default="", help="name of the node, for the report")
    return parser.parse_args()


def _work(said: argparse.Namespace) -> int:
    from edgecloud_trainer.export.delivery import deliver
    from edgecloud_trainer.export.gates import JOB, complaints
    from edgecloud_trainer.export.making import Options, export
    from edgecloud_trainer.export.material import own_images
    from edgecloud_trainer.export.standing import answers, read_report, whole
    from edgecloud_trainer.restoring import restore

    spec = ExportSpec.parse(json.loads(said.spec))
    restored = restore(said.checkpoint)
    images = own_images(restored.card, said.cache, lambda done, total: None)
    options = Options(
        formats=tuple(dict.fromkeys(spec.formats)),
        max_accuracy_loss=spec.max_accuracy_loss,
        calibration_images=min(spec.calibration_images, len(images.train)),
        threads=said.threads,
        node=said.node,
    )
    report = read_report(said.out)
    if (
        report is not None
        and whole(said.out, report)
        and answers(
            report,
            run=restored.run,
            formats=options.formats,
            max_accuracy_loss=options.max_accuracy_loss,
            calibration_images=options.calibration_images,
            mirror=options.mirror,
        )
    ):
        _say(f"{said.out} holds this export already")
    else:
        report = export(restored, images, said.out, options, knobs=JOB, on_progress=_Lines())
    failed = complaints(report, JOB)
    if spec.destination is not None and not failed:  # what is there already may be good
        names = [*(MODELS[one.format] for one in report.exports), REFERENCE, PAGE, SCHEMA, REPORT]
        deliver(said.out, names, spec.destination, lambda name: _say(f"copying {name}"))
    _say("; ".join(failed) if failed else "every format may be used")
    return GATE_FAILED if failed else DONE


class _Lines:
    """A line for each thing that is done."""

    def __init__(self) -> None:
        self._what = ""

    def __call__(self, what: str, part: float) -> None:
        if what != self._what:
            self._what = what
            _say(f"{100 * part:3.0f} % {what}")


def _say(text: str) -> None:
    sys.stdout.write(f"{SAID}{' '.join(text.split())}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
