"""`python -m edgecloud_trainer.train`: one rank of a TrainingJob with `spec.trainer`.

The launcher starts it, with torchrun's environment and EDGECLOUD_TRAINER. With `--standby` it makes everything ready
that doesn't depend on the round (torch, the data, the model) and waits for its round.

With spec.export, rank 0 then has the network exported; the other ranks end.

Exit codes: 0 done, 1 failed, 2 wrong configuration, or an export that must not be used, 75 may work in another round,
143 stopped at a checkpoint.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from edgecloud.uncollected import uncollected

if TYPE_CHECKING:
    from torch import nn

    from edgecloud_trainer.data import Dataset
    from edgecloud_trainer.settings import Settings
    from edgecloud_trainer.training import Finished

T = TypeVar("T")

FAILED: Final = 1
BAD_CONFIGURATION: Final = 2
TRANSIENT: Final = 75
PREEMPTED: Final = 143

log = logging.getLogger("edgecloud_trainer")


def main(arguments: list[str] | None = None) -> int:
    """Run one rank; its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    waits = "--standby" in (sys.argv[1:] if arguments is None else arguments)
    with uncollected():
        from edgecloud_trainer import data, devices, group, models, ready, settings, standby, steps, title, training
        from edgecloud_trainer.checkpoints import CheckpointError, CheckpointMismatchError, SupersededError
        from edgecloud_trainer.export import delivery, stage
        from edgecloud_trainer.reaching import UnreachableError
    gc.freeze()  # nor later: heirs share that memory for as long as nobody writes to it

    try:
        said = settings.read()
        made, problem = _attempt(lambda: ready.make_ready(said))
        if waits:
            environment = standby.wait(heirs=made is not None, fit=lambda: devices.fit_after_a_fork(said))
            if environment is None:
                return 0  # the launcher has gone, or has no round for us
            os.environ.update(environment)
            said = settings.read()
            if problem is not None and _may_have_passed(problem):
                made, problem = _attempt(lambda: ready.make_ready(said))
        if made is None:
            assert problem is not None
            raise problem  # only now: a standby knows where to say it when it has a round
        title.set_title(f"rank-{said.rank}")
        finished = _trained(said, *made)
        if said.export is not None and finished.to_export is not None:
            made = None
            stage.run_stage(said, said.export, finished.to_export, finished.total_steps)
    except (
        settings.SettingsError,
        data.DataError,
        models.ModelError,
        CheckpointMismatchError,
        group.MixtureError,
        delivery.DestinationError,
    ) as error:
        if isinstance(error, data.DataError) and error.passing:
            return _end(FAILED, "ProgramError", str(error))
        return _end(BAD_CONFIGURATION, "BadConfiguration", str(error))
    except devices.GPUNotVisibleError as error:
        return _end(FAILED, "GPUNotVisible", str(error))
    except steps.NonFiniteError as error:
        return _end(FAILED, "NonFinite", str(error))
    except SupersededError as error:
        return _end(TRANSIENT, "Transient", str(error), seenRound=error.seen)
    except (group.DisagreementError, UnreachableError) as error:
        return _end(TRANSIENT, "Transient", str(error))
    except CheckpointError as error:
        return _end(FAILED, "ProgramError", str(error))
    except stage.ExportFailedError as error:
        return _end(BAD_CONFIGURATION, "ExportFailed", str(error))
    except stage.ExportBrokenError as error:
        return _end(FAILED, "ProgramError", str(error))
    except (training.StoppedError, stage.ExportStoppedError) as stopped:
        log.info("%s", stopped)
        return PREEMPTED
    return 0


def _trained(said: Settings, dataset: Dataset, model: nn.Module) -> Finished:
    """The training from where it stands to its end."""
    from edgecloud_trainer import ending, group, ready, steps, training

    device = ready.take_device(said, model)
    ready.use_threads(said)
    device = group.join(said, device)  # first, for it tells the arithmetic that the model is tried in
    stepper = steps.Stepper(said, device, dataset, model)
    try:
        course = training.Training(said, device, dataset, stepper)
        with ending.watched(course) if ending.deaf(device, said.world_size) else contextlib.nullcontext():
            finished = course.run()
    except training.StoppedError:  # by all ranks at once
        group.leave()
        raise
    # Not where a rank fails, which may be one alone: NCCL has it wait here for the others, and they wait for it in an
    # exchange, before it could say why. They notice when its process ends.
    group.leave()
    return finished


def _attempt(work: Callable[[], T]) -> tuple[T, None] | tuple[None, Exception]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _may_have_passed(problem: Exception) -> bool:
    """Whether what a standby met may be over by the time it has a round."""
    from edgecloud_trainer.data import DataError
    from edgecloud_trainer.models import trying

    return problem.passing if isinstance(problem, DataError) else trying.may_pass(problem)


def _end(code: int, reason: str, message: str, **more: int) -> int:
    """Say why in the log, and to the launcher, which has it shown in status.lastFailure."""
    log.error("%s: %s", reason, message)
    note = os.environ.get("EDGECLOUD_FAILURE_FILE")
    if note:
        Path(note).write_text(json.dumps({"reason": reason, "message": message[:1900], **more}), encoding="utf-8")
    return code


def ended(work: Callable[[], int] = main) -> int:
    """Its exit code; that of what it raises is FAILED. A user's sys.exit() is an end that we don't know, whatever it
    says: with 0, what is half trained would be done."""
    try:
        return work()
    except (Exception, SystemExit):
        log.exception("failed")
        return FAILED


if __name__ == "__main__":
    code = ended()
    # Past Python's farewell: it joins threads and frees what the kernel frees anyway, while the others wait for us.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
