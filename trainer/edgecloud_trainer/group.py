"""The process group of a round: joining it, and making sure that all its ranks mean the same training."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from edgecloud_trainer.devices import Device
from edgecloud_trainer.reaching import reach
from edgecloud_trainer.settings import Settings

T = TypeVar("T")

log = logging.getLogger(__name__)

TIMEOUT: Final = datetime.timedelta(minutes=10)
"""For one exchange. A peer that dies resets its connections at once; this is for one that hangs."""
MEETING: Final = datetime.timedelta(days=1)
"""For all ranks to come: they prepare their data before, some may have to decode them, and a round that gave up on
those would begin their work anew. Whoever dies meanwhile is seen by its launcher."""
FAREWELL: Final = datetime.timedelta(seconds=10)
"""For the ranks that are refused to have read why."""


SHOWN: Final = 16
"""Characters of a digest that are compared and shown."""


class DisagreementError(RuntimeError):
    """The ranks don't mean the same training; another round may (exit code 75)."""


class MixtureError(RuntimeError):
    """The ranks see different data, or some compute on GPUs and some on CPUs; or their machines compute differently,
    and the result was asked to be exact."""


def join(settings: Settings, device: Device) -> Device:
    """Enter the group that the environment names; alone, there is none.

    Returns:
        the device, with the arithmetic that goes with the other ranks' in this round.

    Raises:
        MixtureError: some ranks compute on GPUs and some on CPUs; on every rank alike.
        UnreachableError: as `reach`.
    """
    if settings.world_size == 1:
        return device
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if settings.rank > 0:
        reach(address, port, rank=settings.rank, limit=MEETING.total_seconds())
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address,
        port,
        settings.world_size,
        is_master=settings.rank == 0,
        timeout=MEETING,
        wait_for_workers=True,
        multi_tenant=True,
    )
    _refuse_backends(store, settings, device)  # with all the time of the meeting, for some may still be on their way
    store.set_timeout(TIMEOUT)
    device = _scaling_alike(store, settings, device)
    dist.init_process_group(
        device.backend, store=store, rank=settings.rank, world_size=settings.world_size, timeout=TIMEOUT
    )
    return device


def _refuse_backends(
    store: dist.Store,  # type: ignore[name-defined]
    settings: Settings,
    device: Device,
) -> None:
    """Compare the ranks' backends: groups of different ones would wait for each other until their time is up."""
    ranks = range(settings.world_size)
    store.set(f"backend/{settings.rank}", device.backend)
    said = [value.decode() for value in store.multi_get([f"backend/{rank}" for rank in ranks])]
    if len(set(said)) == 1:
        return
    # The store ends with rank 0, which therefore goes last.
    store.set(f"refused/{settings.rank}", "")
    if settings.rank == 0:
        with contextlib.suppress(dist.DistError):
            store.wait([f"refused/{rank}" for rank in ranks], FAREWELL)
    backends = ", ".join(
        f"{backend} on rank{'s' if said.count(backend) > 1 else ''}"
        f" {', '.join(str(rank) for rank in ranks if said[rank] == backend)}"
        for backend in sorted(set(said))
    )
    raise MixtureError(
        f"the workers compute on different devices, and can't exchange anything (their backends: {backends}): write"
        " trainer.device: cpu, or ask for GPUs in every pool"
    )


def _scaling_alike(
    store: dist.Store,  # type: ignore[name-defined]
    settings: Settings,
    device: Device,
) -> Device:
    """With `precision: auto`, have all ranks take fp16 if it is the best of one: every GPU does it.

    Its gradients are scaled by what only those who compute in it know of, and can't be added to others' (bf16's and
    fp32's, which nobody scales, go together). With `sync: local` each rank adds up its own; a deterministic training
    takes no fp16, and refuses other mixtures.
    """
    spec = settings.trainer
    if spec.precision != "auto" or spec.deterministic or settings.local:
        return device
    store.set(f"scales/{settings.rank}", str(device.scales_loss))
    said = store.multi_get([f"scales/{rank}" for rank in range(settings.world_size)])
    if device.scales_loss or str(True).encode() not in said:
        return device
    log.info("precision: fp16, for the GPU of rank %d doesn't multiply in bf16", said.index(str(True).encode()))
    return replace(device, autocast=torch.float16)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def agree(settings: Settings, fingerprint: Mapping[str, str], *, data: str) -> None:
    """Compare round, configuration, data and machine with the other ranks.

    data: digest of the data set.

    Raises:
        DisagreementError: another round, world or configuration somewhere; on every rank alike.
        MixtureError: other images; in a deterministic training also another torch, device, instruction set or number
            of threads.
    """
    if settings.world_size == 1:
        return
    mine = {
        "round": settings.round,
        "world": settings.world_size,
        "config": settings.digest,
        "data": data[:SHOWN],
        **fingerprint,
    }
    everyone: list[dict[str, Any]] = [{}] * settings.world_size
    dist.all_gather_object(everyone, mine)
    for name in mine:
        values = [said.get(name) for said in everyone]
        if len(set(values)) == 1:
            continue
        text = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(values))
        if name in ("round", "world", "config"):
            raise DisagreementError(f"the ranks are not of one {name}: {text}")
        if name == "data":
            raise MixtureError(
                f"the workers see different images (digests: {text}): give all of them the same files for trainer.data,"
                " such as by a storage that all mount, and the same release of EdgeCloud, which decodes them"
            )
        if settings.trainer.deterministic:
            raise MixtureError(
                f"deterministic: true needs ranks that compute alike, and they differ in {name}: {text}; place the"
                " workers on like nodes, or leave deterministic out"
            )


def refuse_other_data(written: str | None, data: str, settings: Settings, *, held_back: Sequence[str] = ()) -> None:
    """Compare the data that a checkpoint was trained on (None: not noted) with those at hand; warn if that is enough.

    held_back: splits at hand that were drawn from the training images. Of other images others are drawn, so that those
    the checkpoint was trained on would be among them, and its accuracy be that of images it knows.

    Raises:
        MixtureError: they are others, and splits were held back, or the result was asked to be exact.
    """
    if written is None or written == data:
        return
    text = (
        f"the checkpoint was trained on other images ({written[:SHOWN]}) than those at hand ({data[:SHOWN]}), or"
        " another release of EdgeCloud read them otherwise"
    )
    if settings.trainer.deterministic:
        raise MixtureError(
            f"deterministic: true can't go on: {text}; put the first ones back, or begin anew under another name"
        )
    if held_back:
        raise MixtureError(
            f"{text}, and {' and '.join(held_back)} images are held back from these by lot: many of them have been"
            " trained on; put the first images back, begin anew (edgecloud run --fresh, or a job with another name), or"
            " give the set test/, and val/ if need be, of its own"
        )
    log.warning("%s; going on with those at hand", text)


def refuse_mixture(written: Mapping[str, str], fingerprint: Mapping[str, str]) -> None:
    """Compare the machine that wrote a checkpoint of a deterministic training with this one.

    Raises:
        MixtureError: it computes differently, so that the result would be neither's.
    """
    differing = [name for name in fingerprint if written.get(name) != fingerprint[name]]
    if differing:
        text = ", ".join(f"{name} {written.get(name)} there and {fingerprint[name]} here" for name in differing)
        raise MixtureError(
            f"deterministic: true can't go on from a checkpoint of a machine that computes differently: {text}; place"
            " the workers on nodes like the first ones, or begin anew under another name"
        )


def broadcast_object(value: Any, settings: Settings, *, source: int = 0) -> Any:
    """One rank's value, on every rank."""
    if settings.world_size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def gather_objects(value: Any, settings: Settings) -> list[Any]:
    """Every rank's value, in the order of ranks, on every rank."""
    if settings.world_size == 1:
        return [value]
    values: list[Any] = [None] * settings.world_size
    dist.all_gather_object(values, value)
    return values


def together(work: Callable[[], T], settings: Settings, *, here: bool | None = None) -> T | None:
    """Have some ranks do something that may fail, while the others wait; None on the others.

    here: whether this rank is one of them; rank 0 alone where nothing is said.

    Raises:
        Exception: what the first of them raised, on every rank alike.
    """
    result, problem = None, None
    if settings.rank == 0 if here is None else here:
        try:
            result = work()
        except Exception as error:
            problem = error
    for found in gather_objects(problem, settings):
        if found is not None:
            raise found
    return result


def holder(rank_of: Any | None, settings: Settings) -> int | None:
    """The rank that holds the largest value (anything that can be compared); the first of equals; None if none does."""
    values = gather_objects(rank_of, settings)
    held = [rank for rank, value in enumerate(values) if value is not None]
    return max(held, key=lambda rank: (values[rank], -rank)) if held else None


def broadcast_tensors(
    tensors: Mapping[str, Tensor] | None, settings: Settings, device: Device, *, source: int = 0
) -> dict[str, Tensor]:
    """One rank's tensors, on every rank, on the CPU; the others give None."""
    if settings.world_size == 1:
        return dict(tensors or {})
    shapes = None if tensors is None else [(name, tuple(t.shape), t.dtype) for name, t in tensors.items()]
    received: dict[str, Tensor] = {}
    for name, shape, dtype in broadcast_object(shapes, settings, source=source):
        own = None if tensors is None else tensors[name]
        box = torch.empty(shape, dtype=dtype) if own is None else own.contiguous()
        box = box.to(device.device)
        dist.broadcast(box.reshape(-1).view(torch.uint8), src=source)  # as bytes: not every backend knows every type
        received[name] = box.cpu()
    return received


def gather_float(value: float, settings: Settings, device: Device) -> list[float]:
    """Every rank's value, in the order of ranks."""
    if settings.world_size == 1:
        return [value]
    box = torch.zeros(settings.world_size, dtype=torch.float64, device=device.device)
    box[settings.rank] = value
    dist.all_reduce(box)
    values: list[float] = box.tolist()
    return values
