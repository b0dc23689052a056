"""What a rank needs before its round is known: data and model. A standby does this ahead of time, and takes no GPU."""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from typing import Final

import torch
from torch import nn

from edgecloud.api.rules import trainer_violations
from edgecloud_trainer import data, devices, models, seeding
from edgecloud_trainer.augment import too_small
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.devices import Device
from edgecloud_trainer.export.delivery import check_destination
from edgecloud_trainer.settings import Settings, SettingsError

log = logging.getLogger(__name__)

DETERMINISTIC_THREADS: Final = 1
"""Another number of intra-op threads gives other bits, and the number of CPUs for a rank changes with the workers."""
SAY_SECONDS: Final = 5.0
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 1 << 30


def make_ready(settings: Settings) -> tuple[Dataset, nn.Module]:
    """Data set and initialised model, on the CPU. A model of the user's may begin differently on each rank: see
    alike.py.

    In one thread and without CUDA: a standby is forked afterwards, which neither OpenMP's threads nor CUDA survive. And
    while it waits, the GPU's memory is for the rank that trains.

    Raises:
        GPUNotVisibleError, SettingsError, DataError, ModelError, DestinationError: as their modules say.
    """
    spec = settings.trainer
    # Here, where a standby keeps the error until it has a round to tell it in. A server has refused these, but not for
    # jobs that it stored before it knew the rule.
    for broken in trainer_violations(spec):
        raise SettingsError(f"{'.'.join(map(str, broken.path))}: {broken.message}: {broken.remedy}")
    if settings.export is not None and settings.export.destination is not None:
        check_destination(settings.export.destination)
    _keep_memory()
    devices.foresee(settings)
    torch.set_num_threads(1)
    if spec.deterministic:
        devices.use_deterministic(compiles=spec.compile)
    # A stray subnormal costs a CPU a hundred times a normal number's time.
    torch.set_flush_denormal(True)
    dataset = data.load(spec.data, seed=spec.seed, cache=settings.cache, on_progress=_Progress())
    channels, height, width = dataset.shape
    if problem := too_small(spec.data.augment, height, width):
        raise SettingsError(f"trainer.data.augment: {problem}")
    seeding.seed_all(spec.seed)
    model = models.build(spec.model, classes=len(dataset.classes), channels=channels, height=height, width=width)
    models.initialise(model, dataset.train.pixels, mean=dataset.mean, std=dataset.std)
    model = model.to(device="cpu", memory_format=devices.memory_format(settings))  # type: ignore[call-overload]
    give_back()
    return dataset, model


def take_device(settings: Settings, model: nn.Module) -> Device:
    """The device, to which it moves the model: once the round is known.

    Raises:
        GPUNotVisibleError, SettingsError: as `devices.choose`.
    """
    device = devices.choose(settings)
    if device.device.type != "cpu":  # there it is already
        model.to(device=device.device)
    return device


def use_threads(settings: Settings) -> None:
    """From now on as many intra-op threads as this rank has."""
    torch.set_num_threads(DETERMINISTIC_THREADS if settings.trainer.deterministic else settings.threads)


def _keep_memory() -> None:
    """Have malloc keep what it frees: each step asks for the same again.

    glibc gives large blocks back at once, and the kernel has to clear every page anew: a third of a step's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back() -> None:
    """To the kernel what this process has used and freed: malloc was told to keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class _Progress:
    """A line every few seconds while the data are being decoded."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= SAY_SECONDS:
            self._last = now
            what = f"{100 * done / total:.0f}%" if total else "another process is at it"
            log.info("preparing the data: %s", what)
            sys.stdout.flush()
