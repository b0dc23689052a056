"""The training from its first step, or its checkpoint, to its evaluation."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from edgecloud import worker
from edgecloud.launcher.progress import fitted
from edgecloud_trainer import group, results, state
from edgecloud_trainer.alike import Unexchanged, agree_on_ordinary, begin_alike
from edgecloud_trainer.cards import model_card
from edgecloud_trainer.checkpoints import (
    AsyncSaver,
    CheckpointError,
    CheckpointStore,
    Saved,
    layout,
)
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.devices import Device, fingerprint
from edgecloud_trainer.evaluation import Evaluation, evaluate
from edgecloud_trainer.export.delivery import try_destination
from edgecloud_trainer.performance import Stopwatch
from edgecloud_trainer.records import VALIDATION, Records
from edgecloud_trainer.reduction import Wishes
from edgecloud_trainer.settings import Settings
from edgecloud_trainer.shards import even, rebalanced
from edgecloud_trainer.steps import Outcome, Stepper

log = logging.getLogger(__name__)

REBALANCE_STEPS: Final = 50
"""How often the ranks compare their speeds."""
MAY_PASS: Final = ("ENOSPC", "EDQUOT")
"""What the storage may refuse at the start without ending the training: there may be room by the time that counts."""
CLOSE_SECONDS: Final = 4.0
"""For a checkpoint that is being written when another rank dies: it would be lost with this process. The storage may
hang, and the next round waits."""


class StoppedError(Exception):
    """All ranks have stopped at the same step, with a checkpoint (exit code 143)."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A training's end."""

    evaluation: Mapping[str, Any]
    performance: Mapping[str, Any]
    total_steps: int
    to_export: Path | None = None
    """The checkpoint after the last step, on the one rank that is to export it; None on all others."""


class Training:
    """One rank's course through a training."""

    def __init__(self, settings: Settings, device: Device, dataset: Dataset, stepper: Stepper) -> None:
        self.settings = settings
        self._device = device
        self._dataset = dataset
        self._stepper = stepper
        self._unexchanged = Unexchanged(stepper)
        self._stop_signal = False
        self._saves = settings.rank == 0 or (settings.own_storage and settings.local_rank == 0)
        self._store = CheckpointStore(
            settings.checkpoints,
            round=settings.round,
            keep=settings.storage.keep_checkpoints,
            digest=settings.digest,
            digests=settings.digests,
        )
        self._saver = AsyncSaver(self._store, on_error=self._save_failed, on_saved=self._saved)
        self._saved_at = time.monotonic()
        self._saved_step = 0
        self._watch = Stopwatch()
        self.done = 0
        """Steps of this round. A rank that makes none any more may stand in an exchange."""
        self._fingerprint = fingerprint(device, torch.get_num_threads())
        self._card = model_card(settings, dataset, stepper.model).dump()
        self._records: Records | None = None

    def run(self) -> Finished:
        """Train to the end.

        Raises:
            StoppedError: asked to stop; a checkpoint is written.
            NonFiniteError, CheckpointError, SupersededError, DestinationError, ModelError: as their modules say; on
                every rank alike.
        """
        settings = self.settings
        signal.signal(signal.SIGTERM, self._asked)
        group.agree(settings, self._fingerprint, data=self._dataset.digest)
        done = group.together(self._store.done, settings, here=self._saves)
        finished = next((one for one in group.gather_objects(done, settings) if one is not None), None)
        if finished is not None:
            log.info("an earlier round has finished this training")
            return self._publish(
                Finished(
                    evaluation=finished["evaluation"],
                    performance=finished["performance"],
                    total_steps=self._stepper.total_steps,
                    to_export=self._found_again(),
                )
            )
        group.together(self._probe, settings, here=self._saves)
        start = self._restore()
        if start == 0 and settings.export is not None and settings.export.destination is not None:
            # Not later: then it was good once, may be so again, and the export is tried again.
            group.together(partial(try_destination, settings.export.destination), settings)
        try:
            self._train(start)
            return self._finish()
        finally:
            self._close()

    def give_up(self) -> None:
        """From another thread, while the training's stands: let a checkpoint be finished, if it can be in time."""
        self._saver.idle(CLOSE_SECONDS)

    def _close(self) -> None:
        self._saver.close(CLOSE_SECONDS)
        if self._records is not None:
            self._records.close()

    def _asked(self, _number: int, _frame: object) -> None:
        self._stop_signal = True

    # -- steps

    def _train(self, start: int) -> None:
        stepper, settings = self._stepper, self.settings
        assignment = even(settings.trainer.shards, settings.world_size)
        records = self._records = Records(settings, self._watch, start=start)
        if settings.trainer.sample_log:
            stepper.on_shards = records.write_samples
        shard_seconds: list[float] = []
        self._validate_late(start, records)
        self._unexchanged.remember()
        for number in range(start, stepper.total_steps):
            done = number + 1
            wishes = Wishes(stop=self._stop_signal or worker.should_stop(), save=settings.rank == 0 and self._due(done))
            outcome = stepper.step(number, assignment, wishes)
            self.done += 1
            if number == start:
                self._unexchanged.look()
            if stepper.outer is not None and stepper.outer.due(number, stepper.total_steps):
                self._unexchanged.bring_together()
            self._watch.add(
                samples=outcome.samples,
                seconds=outcome.seconds,
                data_seconds=outcome.data_seconds,
                wait_seconds=outcome.wait_seconds,
            )
            shard_seconds.append(outcome.shard_seconds)
            self._report(done, outcome)
            records.write(step=done, loss=outcome.loss, accuracy=outcome.accuracy)
            if done < stepper.total_steps:
                if outcome.wishes.stop:
                    self._stop_here(done)
                if outcome.wishes.save:
                    self._save(done)
            if done % REBALANCE_STEPS == 0 and settings.world_size > 1 and not settings.local:
                median = sorted(shard_seconds)[len(shard_seconds) // 2]
                shard_seconds.clear()
                assignment = rebalanced(assignment, group.gather_float(median, settings, self._device))
            if settings.rank == 0 and done % stepper.steps_per_epoch == 0:
                self._say_epoch(done, outcome)
            if stepper.validation_due(done):
                self._validate(done, records)

    def _report(self, done: int, outcome: Outcome) -> None:
        stepper = self._stepper
        worker.report(
            step=done,
            total_steps=stepper.total_steps,
            epoch=done / stepper.steps_per_epoch,
            loss=outcome.loss,
            samples_per_second=self._watch.samples_per_second,
            train_accuracy=outcome.accuracy,
        )

    def _say_epoch(self, done: int, outcome: Outcome) -> None:
        epoch, speed = done // self._stepper.steps_per_epoch, self._watch.samples_per_second
        log.info(
            "epoch %d/%d  loss %.4f  accuracy %.1f%%  %s images/s",
            epoch,
            self.settings.trainer.epochs,
            outcome.loss,
            100 * outcome.accuracy,
            "?" if speed is None else f"{speed:,.0f}",
        )

    def _validate_late(self, start: int, records: Records) -> None:
        """What is due at a step comes after its checkpoint: after a stop, and after a crash meanwhile, it is missing.

        Rank 0 has metrics.jsonl, and so it knows; where that is lost, it is looked at again.
        """
        if not self._stepper.validation_due(start):
            return
        if not group.broadcast_object(records.knows_validation(start), self.settings):
            self._validate(start, records)

    def _validate(self, done: int, records: Records) -> None:
        images = self._dataset.validation
        assert images is not None
        self._unexchanged.bring_together()
        evaluation = self._evaluate(images)
        worker.report(step=done, total_steps=self._stepper.total_steps, accuracy=evaluation.accuracy)
        records.write(step=done, **{VALIDATION: evaluation.accuracy})

    # -- checkpoints

    def _probe(self) -> None:
        try:
            self._store.probe()
        except CheckpointError as error:
            if error.kind not in MAY_PASS:
                raise
            self._save_failed(error)

    def _due(self, done: int) -> bool:
        storage = self.settings.storage
        if (
            storage.checkpoint_interval_steps is not None
            and done - self._saved_step >= storage.checkpoint_interval_steps
        ):
            return True
        return time.monotonic() - self._saved_at >= storage.checkpoint_interval_seconds

    def _state(self, done: int) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
        if self._records is not None:
            self._records.flush()
        tensors, rest, weights = state.held(self._stepper)
        ours = {
            "step": done,
            "fingerprint": self._fingerprint,
            "data": self._dataset.digest,
            "card": self._card,
        }
        return tensors, ours | rest, weights

    def _save(self, done: int) -> None:
        self._make_copies_alike()
        # What isn't saved is no trouble: other ranks' own buffers, in whose place rank 0's are evaluated.
        group.together(self._stepper.check_weights, self.settings, here=self._saves)
        if not self._saves:
            return
        tensors, rest, weights = self._state(done)
        self._saver.submit(done, tensors, rest, weights=weights)
        self._saved_at, self._saved_step = time.monotonic(), done

    def _make_copies_alike(self) -> None:
        if self.settings.own_storage:
            self._unexchanged.bring_together()

    def _saved(self, saved: Saved) -> None:
        if self.settings.rank > 0:
            return  # a copy
        worker.report(step=saved.step, checkpoint_step=saved.step)
        worker.publish(checkpoint={"step": saved.step, "path": saved.path.name, "weightsSha256": saved.weights_sha256})

    def _save_failed(self, error: CheckpointError) -> None:
        log.warning("no checkpoint: %s", error)

    def _stop_here(self, done: int) -> None:
        self._make_copies_alike()
        # Nobody leaves before the checkpoint is there; if it can't be written, all of them fail.
        group.together(lambda: self._save_now(done), self.settings, here=self._saves)
        raise StoppedError(f"stopped after step {done}")

    def _save_now(self, done: int) -> None:
        self._stepper.check_weights()
        tensors, rest, weights = self._state(done)
        self._saver.save_final(done, tensors, rest, weights=weights)

    def _restore(self) -> int:
        """Go on from the newest checkpoint that verifies; who holds it sends it, and the others need no storage."""
        settings = self.settings
        agree_on_ordinary(self._stepper)
        loaded = group.together(self._store.choose, settings, here=self._saves)
        for line in self._store.rejected:
            log.warning("checkpoint passed over: %s", line)
        source = group.holder(None if loaded is None else (loaded.round, loaded.step), settings)
        if source is None:
            begin_alike(self._stepper)
            return 0
        if settings.rank != source:
            loaded = None
        found = group.broadcast_object(None if loaded is None else loaded.state, settings, source=source)
        group.refuse_other_data(found.get("data"), self._dataset.digest, settings, held_back=self._dataset.held_back)
        if settings.trainer.deterministic:
            group.refuse_mixture(found.get("fingerprint", {}), self._fingerprint)
        tensors = group.broadcast_tensors(
            None if loaded is None else loaded.tensors, settings, self._device, source=source
        )
        state.take_up(self._stepper, tensors, found)
        step = int(found["step"])
        self._saved_step = step
        log.info("going on after step %d", step)
        return step

    # -- the end

    def _evaluate(self, images: Any) -> Evaluation:
        stepper, settings = self._stepper, self.settings
        return evaluate(
            stepper.model,
            images,
            self._dataset,
            self._device,
            rank=settings.rank,
            world_size=settings.world_size,
            state=stepper.ema.state if stepper.ema is not None else None,
            autocast=stepper.autocast,
        )

    def _finish(self) -> Finished:
        """Final checkpoint, evaluation on the test images, results, and the mark that it is done."""
        settings, stepper = self.settings, self._stepper
        performance = self._watch.to_json(world_size=settings.world_size, threads=settings.threads)
        self._unexchanged.bring_together()
        group.together(lambda: self._save_now(stepper.total_steps), settings, here=self._saves)
        evaluation = self._evaluate(self._dataset.test)
        if self._records is not None:
            self._records.end(step=stepper.total_steps, test_accuracy=evaluation.accuracy)
        exports = settings.export is not None and settings.rank == 0
        finished = Finished(
            evaluation=evaluation.to_json(),
            performance=performance,
            total_steps=stepper.total_steps,
            to_export=layout.finished(settings.checkpoints, stepper.total_steps) if exports else None,
        )
        group.together(lambda: self._write_results(finished, evaluation), settings)
        # What the status can hold; with many classes all of it would be megabytes, and is in results/ anyway.
        mark = {"evaluation": fitted(finished.evaluation), "performance": finished.performance}
        group.together(lambda: self._store.mark_done(mark), settings, here=self._saves)
        return self._publish(finished)

    def _found_again(self) -> Path | None:
        """The checkpoint after the last step of a training that an earlier round has finished, if it is to be exported.

        Raises:
            CheckpointError: no rank holds it any more.
        """
        settings, total = self.settings, self._stepper.total_steps
        if settings.export is None:
            return None
        loaded = group.together(self._store.choose, settings, here=self._saves)
        last = loaded if loaded is not None and loaded.step == total else None
        holder = group.holder(None if last is None else (last.round, last.step), settings)
        if holder is None:
            raise CheckpointError(
                f"the training is complete, but its last checkpoint (step {total}) can't be exported: it is gone or"
                " damaged",
                "keep checkpoints in a claim (spec.storage.claimName), and train again under another name",
            )
        return last.path if last is not None and settings.rank == holder else None

    def _write_results(self, finished: Finished, evaluation: Evaluation) -> None:
        if finished.evaluation["loss"] is None:
            log.warning("the loss on the test images is not finite, for some logits are not: evaluation.json has null")
        folder = self.settings.results
        folder.mkdir(parents=True, exist_ok=True)
        results.write_json(folder / "evaluation.json", finished.evaluation)
        results.write_json(folder / "performance.json", finished.performance)
        results.draw_curves(results.read_metrics(folder), folder / "curves.png")
        results.draw_confusion(evaluation, folder / "confusion.png")

    def _publish(self, finished: Finished) -> Finished:
        if self.settings.rank == 0:
            worker.report(
                step=self._stepper.total_steps,
                total_steps=self._stepper.total_steps,
                accuracy=finished.evaluation["accuracy"],
            )
            worker.publish(evaluation=finished.evaluation, performance=finished.performance)
        return finished
