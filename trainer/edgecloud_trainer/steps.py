"""One training step: this rank's shards forward and backward, the exchange, the update."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecloud_trainer import norm, optimizers, order, ordinary, seeding, trial
from edgecloud_trainer.augment import Augmenter, sent, to_input
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.devices import Device
from edgecloud_trainer.ema import Ema
from edgecloud_trainer.hashing import key_of
from edgecloud_trainer.order import batch_ids, shard_bounds, steps_per_epoch
from edgecloud_trainer.outer import OuterSync
from edgecloud_trainer.reduction import NONE, ExactReduction, FastReduction, Part, Totals, Wishes, settle
from edgecloud_trainer.schedule import factor
from edgecloud_trainer.settings import Settings
from edgecloud_trainer.shards import Assignment, own
from edgecloud_trainer.taps import IdleTaps

_NOT_FINITE: Final = (
    "the loss, a gradient, a weight or a running statistic is not finite: lower optimizer.learningRate, set"
    " optimizer.gradientClipNorm, or write precision: fp32"
)

_SCALING: Final = ("scale", "_growth_tracker")
"""What of a scaler's state changes: the loss's scale, and for how many steps it has been good."""
LEAST_SCALE: Final = 2.0**-24
"""fp16's smallest number. With the loss scaled by no more than it, what comes back from the logits, less than 1 each,
has vanished already: gradients that still are not finite never will be, and no step has moved a weight for long."""


class NonFiniteError(ArithmeticError):
    """The loss, a gradient, a weight or a running statistic is NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step came to. loss: mean over the batch; seconds: of this rank; shard_seconds: for one of its shards.

    With `sync: local` loss and accuracy are of this rank's part of the batch.
    """

    loss: float
    accuracy: float
    samples: int
    wishes: Wishes
    data_seconds: float
    wait_seconds: float
    seconds: float
    shard_seconds: float


class Stepper:
    """Holds the model, its optimisers and the exchange, and does steps."""

    def __init__(self, settings: Settings, device: Device, dataset: Dataset, model: nn.Module) -> None:
        """Puts the model's batch norms by shard in their places, and tries it in training mode.

        Raises:
            SettingsError, ModelError: the model can't be trained so, as `trial.check` and `check_state` say.
        """
        spec = settings.trainer
        self.settings = settings
        self.device = device
        self.dataset = dataset
        self.model = model
        if hasattr(model, "test_time_mirror"):
            setattr(model, "test_time_mirror", spec.data.augment != "none")  # noqa: B010 - a module takes any attribute
        trial.check_state(spec.model, model)
        self.norms = norm.convert(model)
        self.optimizers = optimizers.build(model, settings.optimizer, classes=len(dataset.classes))
        self.ordinary = ordinary.names(model)
        """The names of its values that have to be finite; by this rank's model as it began, or see `use_ordinary`."""
        self.ema = Ema(model, spec.ema_decay, ordinary=self.ordinary) if spec.ema_decay is not None else None
        self.steps_per_epoch = steps_per_epoch(len(dataset.train.labels), spec.batch_size)
        self.total_steps = spec.epochs * self.steps_per_epoch
        self.batch = min(spec.batch_size, len(dataset.train.labels))
        self.bounds = shard_bounds(self.batch, spec.shards)
        taps = IdleTaps()
        trial.check(settings, device, dataset, model, bounds=self.bounds, autocast=lambda: self._watched(taps))
        self._idle_taps = taps if taps.found and device.device.type == "cpu" else None
        """None as a rule: it takes a call of Python for each operation of a backward."""
        self._forward: Callable[[Tensor], Tensor] = torch.compile(model) if spec.compile else model
        self._augmenter = Augmenter(spec.data.augment, spec.seed)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        named = model.named_parameters(remove_duplicate=False)
        own = norm.weighty_counts(model) if settings.local else set()
        self.exchanged = frozenset({name for name, p in named if p.requires_grad} | norm.buffer_names(model) - own)
        """What a step's exchange moves alike on all ranks, by the names of the model's state dict: the parameters that
        are trained, and the batch norms' running statistics."""
        ranks = self._ranks = 1 if settings.local else settings.world_size  # that add up their gradients
        self._exact = ExactReduction(self._parameters, ranks, spec.shards) if spec.deterministic else None
        self._fast = None if spec.deterministic else FastReduction(self._parameters, ranks)
        self.outer = (
            OuterSync(model, settings.sync, world_size=settings.world_size, ordinary=self.ordinary)
            if settings.local
            else None
        )
        self._divisor = self.batch
        self.on_shards: Callable[[int, Sequence[tuple[int, np.ndarray]]], None] | None = None
        """Told of each step and this rank's (shard, sample ids) before the exchange: each step that counts was told."""
        self.scaler = torch.amp.GradScaler(device.device.type, enabled=device.scales_loss)
        """Its state belongs into a checkpoint: begun anew, it would skip steps until it has found its scale again."""

    def step(self, number: int, assignment: Assignment, wishes: Wishes = NONE) -> Outcome:
        """Do step `number` (from 0). wishes: what this rank wants after it; the outcome has what any rank wants.

        Raises:
            NonFiniteError: on every rank alike, with the weights as they were before the step.
        """
        began = time.perf_counter()
        spec, settings = self.settings.trainer, self.settings
        epoch, ids = batch_ids(spec.seed, number, len(self.dataset.train.labels), self.batch)
        mine = [(shard, ids[slice(*self.bounds[shard])]) for shard in own(assignment, settings.rank)]
        if self.on_shards is not None:
            self.on_shards(number, mine)
        if self.outer is not None:
            self._divisor = sum(len(shard_ids) for _, shard_ids in mine)
        self.model.train()
        optimizers.set_learning_rate(self.optimizers, factor(settings.schedule, number, self.total_steps))
        data_seconds, compute_began = 0.0, time.perf_counter()
        if self._exact is not None:
            for shard, shard_ids in mine:
                data_seconds += self._pass(number, epoch, [(shard, shard_ids)], exact=self._exact)
            settle(self.device.device, self._ranks)
            computed = time.perf_counter()
            totals = self._exact.finish(wishes)
        else:
            assert self._fast is not None
            part, data_seconds = self._part(number, epoch, mine, wishes)
            settle(self.device.device, self._ranks)
            computed = time.perf_counter()
            totals = self._fast.finish(part)
        self._update(totals, number)
        outcome = Outcome(
            loss=totals.loss_sum / max(1, totals.samples),
            accuracy=totals.correct / max(1, totals.samples),
            samples=totals.samples,
            wishes=totals.wishes,
            data_seconds=data_seconds,
            wait_seconds=totals.wait_seconds,
            seconds=time.perf_counter() - began,
            shard_seconds=(computed - compute_began) / max(1, len(mine)),
        )
        return outcome if self.outer is None else self._come_together(self.outer, number, outcome, wishes)

    def validation_due(self, done: int) -> bool:
        """Whether there are validation images, and it is time to look at them after `done` steps."""
        return self.dataset.validation is not None and order.validation_due(
            done,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self.total_steps,
            every=1 if self.outer is None else self.settings.sync.every_steps,
        )

    def _come_together(self, outer: OuterSync, number: int, outcome: Outcome, wishes: Wishes) -> Outcome:
        """`sync: local`: exchange weights if it is time, and say what the step came to with that."""
        own = replace(outcome, samples=self.batch, wishes=NONE, wait_seconds=0.0)
        if not outer.due(number, self.total_steps):
            return own
        settings, began = self.settings, time.perf_counter()
        scaling = self.scaler.state_dict()
        exchanged = outer.exchange(
            share=outcome.samples / self.batch,
            seed=mixed(settings.trainer.seed, number, settings.trainer.shards + settings.rank),
            wishes=wishes,
            scaling=[scaling[name] for name in _SCALING] if scaling else None,
        )
        if not exchanged.finite or exchanged.scaling[0] < LEAST_SCALE:
            raise NonFiniteError(_NOT_FINITE)
        if scaling:
            # A checkpoint holds rank 0's.
            self.scaler.load_state_dict(scaling | dict(zip(_SCALING, exchanged.scaling, strict=True)))
        for optimizer in self.optimizers:
            optimizer.state.clear()
        if self.ema is not None:
            self.ema.update(self.model, number, steps=outer.steps_since(number))
        return replace(
            own,
            wishes=exchanged.wishes,
            wait_seconds=exchanged.wait_seconds,
            seconds=outcome.seconds + time.perf_counter() - began,
        )

    def _pass(
        self, number: int, epoch: int, shards: Sequence[tuple[int, np.ndarray]], *, exact: ExactReduction
    ) -> float:
        part, data_seconds = self._part(number, epoch, shards, NONE)
        exact.take(part)
        return data_seconds

    def _part(
        self, number: int, epoch: int, shards: Sequence[tuple[int, np.ndarray]], wishes: Wishes
    ) -> tuple[Part, float]:
        """Forward and backward over some shards at once; gradients, of the batch's mean loss, land in .grad."""
        ids = np.concatenate([shard_ids for _, shard_ids in shards])
        for parameter in self._parameters:
            parameter.grad = None
        norm.set_sizes(self.model, [len(shard_ids) for _, shard_ids in shards if len(shard_ids)])
        # Dropout and the like: the same numbers for a shard, whoever computes it.
        seeding.seed_all(mixed(self.settings.trainer.seed, number, shards[0][0]))
        if len(ids) == 0:
            zero = torch.zeros((), device=self.device.device)
            self.scaler.scale(zero)  # with which it knows its scale: others' gradients are to be divided by it
            moments = norm.gathered(self.norms, device=self.device.device)
            seen = norm.seen(self.norms)
            nothing = Part(loss_sum=zero, correct=zero.long(), samples=0, wishes=wishes, moments=moments, seen=seen)
            return nothing, 0.0
        data_began = time.perf_counter()
        images, labels = self._images(ids, epoch)
        data_seconds = time.perf_counter() - data_began
        with self.autocast():
            logits = self._forward(images)
        logits = logits.float()
        loss = functional.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=self.settings.trainer.label_smoothing
        )
        with self._idle_taps or contextlib.nullcontext():
            self.scaler.scale(loss / self._divisor).backward()  # type: ignore[no-untyped-call]
        part = Part(
            loss_sum=loss.detach(),
            correct=(logits.detach().argmax(1) == labels).sum(),
            samples=len(ids),
            wishes=wishes,
            moments=norm.gathered(self.norms, device=self.device.device),
            seen=norm.seen(self.norms),
        )
        return part, data_seconds

    def _images(self, ids: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        train = self.dataset.train
        images = to_input(
            self._augmenter.augment(train.pixels[ids], ids, epoch),
            self.dataset.mean,
            self.dataset.std,
            dtype=torch.float32,
            memory_format=self.device.memory_format,
            device=self.device.device,
        )
        return images, sent(np.ascontiguousarray(train.labels[ids]), self.device.device)

    def check_weights(self) -> None:
        """Look at what a checkpoint would hold: a loss can be finite, and the gradients that move the weights not.

        Raises:
            NonFiniteError: some weight, running statistic or mean of them is not finite, and was at the beginning.
        """
        states = [self.model.state_dict()] + ([self.ema.state] if self.ema is not None else [])
        finite = [
            torch.isfinite(value).all().to(self.device.device)
            for state in states
            for name, value in state.items()
            if name in self.ordinary
        ]
        if finite and not bool(torch.stack(finite).all()):
            raise NonFiniteError(_NOT_FINITE)

    def use_ordinary(self, names: frozenset[str]) -> None:
        """Go by these, which all ranks have agreed on."""
        self.ordinary = names
        if self.ema is not None:
            self.ema.ordinary = names
        if self.outer is not None:
            self.outer.use_buffers(names)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Forward in the lower precision, where the device does it well."""
        if self.device.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.device.type, dtype=self.device.autocast)

    @contextlib.contextmanager
    def _watched(self, taps: IdleTaps) -> Iterator[None]:
        with self.autocast(), taps:
            yield

    def _update(self, totals: Totals, number: int) -> None:
        """Move the weights, with which step `number` is done. Every rank does the same to the same numbers."""
        # Not finite is the loss itself; a gradient that is only scaled too high is the scaler's matter, as long as some
        # scale may help. It is looked at here, when the totals have been waited for: a GPU has nothing else to do.
        # With `sync: local` it is this rank's own, and all hear of it in the exchange.
        if not totals.finite or (self.outer is None and self.scaler.get_scale() < LEAST_SCALE):
            raise NonFiniteError(_NOT_FINITE)
        # A scaler refuses an optimiser that has nothing to do, as on a rank by itself of which no shard has an image.
        moving = [one for one in self.optimizers if any(p.grad is not None for p in optimizers.parameters(one))]
        for optimizer in moving:
            self.scaler.unscale_(optimizer)
        clip = self.settings.optimizer.gradient_clip_norm
        if clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, clip)
        for optimizer in moving:
            self.scaler.step(optimizer)
        if moving:
            self.scaler.update()
        norm.take_up(self.norms, totals.moments, totals.seen)
        if self.ema is not None and self.outer is None:
            self.ema.update(self.model, number)


def mixed(seed: int, step: int, shard: int) -> int:
    """A 63-bit number for (seed, step, shard)."""
    return key_of(seed, step, shard) >> 1
