"""report.json of an export: each converted model with size, accuracy, parity, latency, and whether it may be used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from edgecloud.api.base import Model
from edgecloud.api.types import Fraction
from edgecloud.edge.card import Format, ModelCard, RunCard, Sha256

NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Interval(Model):
    """A 95 % interval."""

    low: float
    high: float


class Parity(Model):
    """How close the converted model's logits are to the original's (torch, fp32) on the same real images."""

    images: Count = Field(description="Images compared.")
    agreement: Fraction = Field(description="Part of the images on which both name the same class.")
    max_difference: NonNegative = Field(description="Largest difference of two logits.")
    mean_difference: NonNegative = Field(description="Mean absolute difference of two logits.")
    relative_difference: NonNegative = Field(description="Norm of the difference over the norm of the original's.")


class Latency(Model):
    """Milliseconds from pixels to logits."""

    p50: NonNegative = Field(description="Half of the runs took at most this long.")
    p90: NonNegative = Field(description="Likewise, 90 %.")
    p99: NonNegative = Field(description="Likewise, 99 %.")
    p50_interval: Interval | None = Field(None, description="95 % interval of p50.")
    batch: Count = Field(1, description="Images in a run.")
    threads: Count = Field(1, description="Threads that the runtime may use.")
    runs: Count = Field(0, description="Runs that were timed.")


class Ratio(Model):
    """One model's p50 over another's, both run by turns in the same process."""

    against: Format
    p50: NonNegative
    interval: Interval
    faster: bool = Field(description="Whether the whole interval is below 1: else no speed-up is claimed.")
    batch: Count
    threads: Count


class Memory(Model):
    """Of a process that does nothing but load the model and run it, in bytes."""

    loaded: Count = Field(description="Resident after the model was loaded.")
    peak: Count = Field(description="Most that was resident.")


class Gate(Model):
    """What was asked of the model."""

    passed: bool
    max_accuracy_loss: NonNegative = Field(description="Percentage points that it may lose.")
    accuracy_loss: float = Field(description="Percentage points that it has lost against the original.")
    message: Annotated[str, Field(max_length=1024)] = ""

    @property
    def points(self) -> str:
        """The loss with two decimals; with more where it would read like the limit that it is above."""
        text = f"{self.accuracy_loss:.2f}"
        for decimals in range(3, 10):
            if self.passed or float(text) > self.max_accuracy_loss:
                break
            text = f"{self.accuracy_loss:.{decimals}f}"
        return text


class Machine(Model):
    """What it was measured on."""

    node: Annotated[str, Field(max_length=253)] = ""
    cpu: Annotated[str, Field(max_length=256)] = ""
    architecture: Annotated[str, Field(max_length=64)] = ""
    instructions: Annotated[tuple[Annotated[str, Field(max_length=32)], ...], Field(max_length=32)] = Field(
        (), description="Instruction sets that matter for this: avx2, avx512f, avx512_vnni, avx512_bf16, amx_int8, ..."
    )
    cpus: NonNegative = Field(0, description="CPUs that the process may use.")
    cpu_limit: NonNegative | None = Field(None, description="CPUs that its control group grants; none: no limit.")
    memory_limit: Count | None = Field(None, description="Bytes that its control group grants.")
    runtime: Annotated[str, Field(max_length=128)] = Field("", description="Such as onnxruntime 1.32.0.")


class Measured(Model):
    """A converted model as it was measured on one machine."""

    format: Format
    path: Annotated[str, Field(max_length=1024)] = Field(description="Its file, within the export's folder.")
    bytes: Count
    sha256: Sha256
    accuracy: Fraction
    accuracy_interval: Interval
    parity: Parity
    latency: Latency = Field(description="At batch 1 in one thread.")
    latencies: tuple[Latency, ...] = Field((), description="At batch 1 and 32, in one thread and in all.")
    ratios: tuple[Ratio, ...] = ()
    load_milliseconds: NonNegative = 0.0
    memory: Memory | None = None
    macs: Count | None = Field(None, description="Multiplications and additions for one image.")
    gate: Gate


def summary(measured: Measured, *, node: str = "") -> dict[str, Any]:
    """What status.exports and `edgecloud export -o json` hold of a converted model; times in milliseconds."""
    latency, parity = measured.latency, measured.parity
    return {
        "format": measured.format,
        "path": measured.path,
        "bytes": measured.bytes,
        "sha256": measured.sha256,
        "accuracy": round(measured.accuracy, 6),
        "parity": {
            "images": parity.images,
            "agreement": round(parity.agreement, 6),
            "maxDifference": round(parity.max_difference, 6),
        },
        "latency": {name: round(getattr(latency, name), 4) for name in ("p50", "p90", "p99")},
        "gate": "passed" if measured.gate.passed else "failed",
    } | ({"node": node} if node else {})


class Problem(Model):
    """A format that could not be written or measured."""

    format: Format
    message: Annotated[str, Field(max_length=2048)]


class Report(Model):
    """All of it."""

    version: Literal[1] = 1
    network: ModelCard
    run: RunCard
    mirror: bool = False
    original_accuracy: Fraction = Field(description="Of the original (torch, fp32), on the same images.")
    images: Count = Field(description="Test images that accuracy and parity were taken on.")
    calibration_images: Count = 0
    machine: Machine
    exports: tuple[Measured, ...] = ()
    problems: tuple[Problem, ...] = ()
    measured_at: Literal["here", "edge"] = "here"
