"""One forward in training mode before the first step: what works in evaluation only fails here with a sentence.

And one backward, where that may fail for a reason of its own. In the first step it would be a traceback, and the job
would be tried anew until no restart is left. Afterwards the model's parameters, their gradients, buffers, and
attributes of plain types are as they were, and so are torch's random numbers; what else a forward moves (a list, or
other libraries' random numbers, which each step seeds) stays moved. Every rank comes to the same, as far as its model
does what the configuration says. Before that: whether a checkpoint could hold the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from edgecloud_trainer import norm
from edgecloud_trainer.checkpoints import checked
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.devices import Device
from edgecloud_trainer.models import ModelError, trying
from edgecloud_trainer.settings import Settings, SettingsError

FEW: Final = 2
"""Images of a shard that tell as much as all of them, in no time."""

_PLAIN: Final = (bool, int, float, str, NoneType)
"""What a module's attributes may be that a forward can only replace: its mode, what it counts, what it will look up."""

_NOT_DETERMINISTIC: Final = "does not have a deterministic implementation"


class _Wrong(NamedTuple):
    what: str
    """As the model's predicate."""
    remedy: str


def check(
    settings: Settings,
    device: Device,
    dataset: Dataset,
    model: nn.Module,
    *,
    bounds: Sequence[tuple[int, int]],
    autocast: Callable[[], contextlib.AbstractContextManager[Any]],
) -> None:
    """Have the model make logits of a few black images, as it will in the steps.

    Args:
        model: with its batch norms converted.
        bounds: of the shards in a batch, as `order.shard_bounds` gives them.
        autocast: makes the context of a forward.

    Raises:
        SettingsError: there are shards of one image, and the model takes two at least.
        ModelError: it fails in training mode, normalises what is of no shard, or makes something else there.
        OSError, MemoryError, RuntimeError: the model's own, where another try may work.
    """
    # A rank has all its shards in one forward, in the fast mode.
    together = not settings.trainer.deterministic and settings.trainer.shards > settings.world_size

    def wrong(images: int) -> _Wrong | None:
        """What is wrong with shards of so many images."""
        sizes = [images] * (2 if together else 1)
        black = torch.zeros(sum(sizes), *dataset.shape, dtype=torch.float32)
        black = black.to(device.device, memory_format=device.memory_format)
        try:
            # With gradients, whether any is computed or not: a model may ask for some on its way.
            with _as_it_was(model, device), torch.enable_grad():
                model.train()
                norm.set_sizes(model, sizes)
                statistics = norm.statistics(model)
                with autocast():
                    logits = model(black)
                after = norm.statistics(model)
                moved = sorted(name for name, value in statistics.items() if not torch.equal(value, after[name]))
                if backwards(settings, device) and isinstance(logits, Tensor) and logits.requires_grad:
                    logits.float().sum().backward()  # type: ignore[no-untyped-call]
        except norm.RowsError:
            raise  # says what to do
        except (Exception, SystemExit) as error:  # the user's or torchvision's code may raise anything
            if _NOT_DETERMINISTIC in str(error):
                which = trying.in_a_line(error).partition(", but ")[0]
                return _Wrong(
                    f"can't be trained with deterministic: true here ({which})",
                    "write trainer.deterministic: false, or take another model such as edgenet",
                )
            if trying.may_pass(error):
                raise
            return _Wrong(
                f"fails in training mode on shards of {trying.images(images)} ({trying.in_a_line(error)})",
                "correct it, or take another model such as edgenet",
            )
        if moved:
            return _Wrong(
                f"normalises in training mode by itself, not by shard, and moves {moved[0]}",
                "have the BatchNorm's forward call super().forward, or torch.nn.functional.batch_norm with its"
                " running_mean",
            )
        instead = trying.made_instead(logits, sum(sizes), len(dataset.classes))
        if instead is not None:
            return _Wrong(
                f"{instead} in training mode",
                f"one tensor of logits {[sum(sizes), len(dataset.classes)]} is needed, as in evaluation mode; switch"
                " off what it makes beside, such as by aux_logits=False",
            )
        if not logits.requires_grad:
            return _Wrong("makes logits without a gradient in training mode", "take out what cuts them off from it")
        return None

    smallest = min(end - start for start, end in bounds if end > start)
    found = wrong(min(smallest, FEW))
    if found is None:
        return
    # A model may want more than a few. And whether one image is too little, two tell.
    more = max(smallest, FEW)
    still = found if more == min(smallest, FEW) else wrong(more)
    if still is not None:
        raise ModelError(f"{settings.trainer.model} {still.what}: {still.remedy}")
    if smallest == 1:
        batch, shards = bounds[-1][1], len(bounds)
        raise SettingsError(
            f"trainer.shards: a batch of {batch} in {shards} shards leaves shards of one image, and"
            f" {settings.trainer.model} takes two at least: it {found.what};"
            f" {_remedy(batch, shards, ranks=settings.world_size, images=len(dataset.train.labels))}"
        )


def check_state(name: str, model: nn.Module) -> None:
    """Whether a checkpoint can hold the model. The first one would find out, and all up to there be lost.

    Raises:
        ModelError: it can't; the message names the value.
    """
    state = model.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"{name} can't be kept in a checkpoint: {key} is a {type(value).__name__}, and a tensor is needed: have"
                " get_extra_state return one, or keep what it holds in buffers (register_buffer)"
            )
    try:
        checked(state, ())
    except ValueError as error:
        raise ModelError(f"{name} can't be kept in a checkpoint: {error}") from None


def backwards(settings: Settings, device: Device) -> bool:
    """Whether a backward may fail that a forward can't tell of: some have no deterministic form on a GPU, such as that
    of the pooling in alexnet and vgg."""
    return settings.trainer.deterministic and device.device.type == "cuda"


def _remedy(batch: int, shards: int, *, ranks: int, images: int) -> str:
    """What makes shards of two images or more, and still one for each rank."""
    fewer = [f"shards: {batch // 2} or less"] if batch // 2 >= ranks else []
    larger = [f"batchSize: {2 * shards} or more"] if images >= 2 * shards else []
    return "write " + ", or ".join([*fewer, *larger]) if fewer or larger else "give it more images"


@contextlib.contextmanager
def _as_it_was(model: nn.Module, device: Device) -> Iterator[None]:
    """Put back modes, counters and the like, parameters, gradients, buffers, moments and torch's random numbers."""
    plain = [(m, {k: v for k, v in vars(m).items() if isinstance(v, _PLAIN)}) for m in model.modules()]
    # Parameters too: a forward may move a codebook, or keep weights within bounds. For now nothing else is as large.
    kept = [
        (module, name, tensor, tensor.detach().clone())
        for module in model.modules()
        for named in (module.named_parameters, module.named_buffers)
        for name, tensor in named(recurse=False, remove_duplicate=False)
    ]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    with torch.random.fork_rng([device.device] if device.device.type == "cuda" else []):
        try:
            yield
        finally:
            norm.set_sizes(model, ())
            for module, values in plain:
                vars(module).update(values)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            with torch.no_grad():
                for module, name, tensor, value in kept:
                    if getattr(module, name) is not tensor:
                        setattr(module, name, tensor)
                    if not torch.equal(tensor, value):
                        tensor.copy_(value)
