"""The device of a rank, and the arithmetic that it does well."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import torch

from edgecloud_trainer.settings import Settings, SettingsError

_UNKNOWN: Final = 255
"""Exit code of a child that could not count."""


class GPUNotVisibleError(RuntimeError):
    """A GPU was asked for, and there is none to be seen."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where and how a rank computes. autocast: the lower precision of forward and backward, or None for fp32."""

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format
    backend: str

    @property
    def scales_loss(self) -> bool:
        """fp16 gradients underflow unless the loss is scaled up."""
        return self.autocast is torch.float16


def on_gpu(settings: Settings) -> bool:
    wanted = settings.trainer.device
    return wanted == "cuda" or (wanted == "auto" and settings.gpus > 0)


def foresee(settings: Settings) -> None:
    """Refuse what `choose` will refuse, but leave CUDA alone, as a process that is to be forked has to.

    Raises:
        GPUNotVisibleError, SettingsError: as `choose`.
    """
    _refuse(settings, visible=_count_in_a_child() if on_gpu(settings) else 0)


def fit_after_a_fork(settings: Settings) -> bool:
    """Whether this process, a fork, can compute where it has to: not on a GPU if CUDA had begun before, as a user's
    model may have it do."""
    return not (on_gpu(settings) and getattr(torch._C, "_cuda_isInBadFork", lambda: False)())


def memory_format(settings: Settings) -> torch.memory_format:
    """Of images and convolutions, on any device."""
    return torch.contiguous_format if settings.trainer.channels_last is False else torch.channels_last


def choose(settings: Settings) -> Device:
    """The device for this rank; a GPU is this process's from now on, with some memory of it.

    Raises:
        GPUNotVisibleError: the job asks for GPUs and this process sees too few, or torch can't compute on its own. The
            CPU is never a silent way out.
        SettingsError: the precision doesn't go with the device, or the worker has more processes than GPUs.
    """
    cuda, spec = on_gpu(settings), settings.trainer
    _refuse(settings, visible=torch.cuda.device_count() if cuda else 0)
    if cuda:
        device = torch.device("cuda", settings.local_rank)
        _begin(device, settings.local_rank)
    else:
        device = torch.device("cpu")
    autocast = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16, "auto": _good(device)}[spec.precision]
    if spec.deterministic and autocast is torch.float16:
        autocast = None
    return Device(
        device=device,
        autocast=autocast,
        memory_format=memory_format(settings),
        backend="nccl" if cuda else "gloo",
    )


def _begin(device: torch.device, local_rank: int) -> None:
    """Have CUDA begin on a GPU, and compute there for once: that it is seen says nothing of driver and torch.

    Raises:
        GPUNotVisibleError: the driver is too old for this torch, torch has no code for this GPU, or the like.
    """
    try:
        torch.cuda.set_device(device)
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError as error:
        if "out of memory" in str(error):  # a torch.OutOfMemoryError, or CUDA's own: that has a name already
            raise
        said = str(error).strip().partition("\n")[0].rstrip(".:")
        raise GPUNotVisibleError(
            f"local rank {local_rank} sees its GPU and can't compute on it ({said}): put a newer driver on the node, or"
            f" take an image whose torch is built for that driver and GPU (this one's, for CUDA {torch.version.cuda}),"
            " or write trainer.device: cpu"
        ) from error


def check_enough(settings: Settings, seen: int) -> None:
    """See to it that there is a GPU for this rank alone.

    Args:
        settings: whose local rank it is, and what its worker asked for.
        seen: GPUs that this process sees.

    Raises:
        GPUNotVisibleError, SettingsError: see `choose`.
    """
    if settings.local_rank < seen:
        return
    # A node that gives fewer than were asked for may be mended; what was never asked for does not come.
    if seen > 0 and settings.whole_gpus <= settings.local_rank:
        raise SettingsError(
            f"processesPerWorker: {settings.local_world_size} processes in a worker need a GPU each, and see {seen}"
            " (of slices and shares one): lower processesPerWorker, or ask for more nvidia.com/gpu"
        )
    raise GPUNotVisibleError(
        f"local rank {settings.local_rank} needs a GPU and sees {seen}: look at the node's"
        " driver and device plugin, or write trainer.device: cpu"
    )


def _refuse(settings: Settings, *, visible: int | None) -> None:
    """visible: how many GPUs there are to be seen; None: nobody knows."""
    cuda = on_gpu(settings)
    if cuda and visible is not None:
        check_enough(settings, visible)
    if settings.trainer.precision == "fp16" and not cuda:
        raise SettingsError("trainer.precision: fp16 needs CUDA: write bf16, fp32 or auto")


def _count_in_a_child() -> int | None:
    """How many GPUs are to be seen; None if that can't be told. To be asked, CUDA may have to begin: not here."""
    child = os.fork()
    if child == 0:
        said = _UNKNOWN
        try:
            said = min(torch.cuda.device_count(), _UNKNOWN - 1)
        finally:
            os._exit(said)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if 0 <= code < _UNKNOWN else None


def _good(device: torch.device) -> torch.dtype | None:
    """bf16 where the hardware multiplies in it; emulated it is slower than fp32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu_has_bf16() else None


def cpu_has_bf16() -> bool:
    """Whether this CPU has AVX512_BF16 or AMX_BF16 (or Arm's like)."""
    capabilities = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "")()
    if "AVX512" not in capabilities and "SVE" not in capabilities:
        return False
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if callable(probe) else False


def use_deterministic(*, compiles: bool) -> None:
    """Have torch take deterministic algorithms from now on, and refuse an operation that has none.

    torch's own function imports the compiler to tell it (torch/__init__.py): a second of CPU time and 150 MiB in every
    process, for what hardly any of them compiles. If one does (a model of the user's may), the environment tells.
    """
    quietly = getattr(torch._C, "_set_deterministic_algorithms", None)
    if compiles or not callable(quietly):
        torch.use_deterministic_algorithms(mode=True)
    else:
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
        quietly(True, warn_only=False)
    torch.backends.cudnn.benchmark = False


def fingerprint(device: Device, threads: int) -> dict[str, str]:
    """What the bits of a result depend on beside the configuration."""
    kind = torch.cuda.get_device_name(device.device) if device.device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "device": kind,
        "isa": str(getattr(torch.backends.cpu, "get_cpu_capability", lambda: "")()),
        "threads": str(threads),
        "precision": str(device.autocast or torch.float32),
    }
