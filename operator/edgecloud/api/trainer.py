"""The built-in trainer's part of a spec: what is trained, on what, and how."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from edgecloud.api.base import Model

Positive = Annotated[float, Field(gt=0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Below1 = Annotated[float, Field(ge=0, lt=1)]

SETS: Final = ("digits", "cifar10", "cifar100", "mnist", "fashion-mnist", "kmnist", "svhn", "stl10", "usps")
"""Image sets that have a name."""


class DataSpec(Model):
    """The images, and how they are split."""

    name: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=64,
                pattern=r"^[A-Za-z0-9_-]+$",
                json_schema_extra={
                    "remedy": "write a set's name, such as digits or cifar10; a path or URL goes into source"
                },
            ),
        ]
        | None
    ) = Field(
        None,
        description=f"A named set: {', '.join(SETS[:-1])} or {SETS[-1]}; this or source.",
    )
    source: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None,
        description="Path or URL of a folder of images by class, tar, zip, IDX, CIFAR binary, numpy or prepared file;"
        " this or name.",
    )
    validation_fraction: Below1 = Field(0.0, description="Part of the training images held back for validation.")
    augment: Literal["none", "flip", "flip-crop", "flip-crop-cutout"] = Field(
        "none",
        description="none; flip: mirrored left and right; flip-crop: also shifted by up to four pixels; "
        "flip-crop-cutout: also with a grey square of a quarter of the side.",
    )


LEARNING_RATE: Final = 0.1
ADAMW_LEARNING_RATE: Final = 0.001


def _no_default(schema: dict[str, Any]) -> None:
    """Have the server fill in nothing: it would not look at the other fields."""
    del schema["default"]


class OptimizerSpec(Model):
    """How the weights are moved."""

    name: Literal["sgd", "adamw", "muon"] = Field("sgd", description="sgd, adamw or muon.")
    learning_rate: Positive = Field(
        LEARNING_RATE,
        description="Highest learning rate of the schedule; default: 0.1, with adamw 0.001.",
        json_schema_extra=_no_default,
    )
    momentum: Below1 = Field(0.9, description="Momentum of sgd and muon; first moment's decay of adamw.")
    nesterov: bool = Field(True, description="Nesterov's form of the momentum of sgd and muon; adamw has none.")
    weight_decay: NonNegative = Field(
        0.0005, description="Decay of weights, not of biases, norms and scales; with muon neither of the last layer."
    )
    gradient_clip_norm: Positive | None = Field(None, description="Gradients are scaled down to this norm.")

    @model_validator(mode="before")
    @classmethod
    def _own_rate(cls, value: Any) -> Any:
        """With the others' rate adamw learns nothing. It stands in the digest: no training goes on with another."""
        if (
            isinstance(value, dict)
            and value.get("name") == "adamw"
            and not {"learningRate", "learning_rate"} & set(value)
        ):
            return {**value, "learningRate": ADAMW_LEARNING_RATE}
        return value


class ScheduleSpec(Model):
    """How the learning rate goes over the training."""

    name: Literal["constant", "cosine", "triangular", "step"] = Field(
        "cosine",
        description="constant; cosine to 0; triangular: up, then down to 0; step: a tenth at 50 % and 75 % of what"
        " follows the warm-up.",
    )
    warmup_fraction: Below1 = Field(0.05, description="Part of all steps in which the rate rises from 0.")


class SyncSpec(Model):
    """How the ranks come together."""

    mode: Literal["every", "local"] = Field(
        "every",
        description="every: each step; local: each rank by itself for some steps, then the mean of what they learnt, in"
        " 8 bits. For slow links. The result then depends on the number of ranks, and a stop waits for an exchange.",
    )
    every_steps: Annotated[int, Field(ge=1, le=100000)] = Field(
        32, description="Steps between two exchanges in local mode."
    )
    outer_learning_rate: Positive = Field(
        0.7, description="Of the outer optimiser in local mode, which moves along the mean difference."
    )
    outer_momentum: Below1 = Field(0.6, description="Nesterov momentum of the outer optimiser in local mode.")


class TrainerSpec(Model):
    """Image classification by the built-in trainer."""

    model: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$",
            json_schema_extra={"remedy": "write a model's name, or module:function"},
        ),
    ] = Field(
        "edgenet",
        description="article-cnn, edgenet, a torchvision classification model by name, or module:function.",
    )
    data: DataSpec = Field(description="The images.")
    epochs: Annotated[int, Field(ge=1, le=100000)] = Field(10, description="Passes over the training images.")
    batch_size: Annotated[int, Field(ge=1, le=1048576)] = Field(
        128,
        description="Images in a step, over all workers together; models with batch norms may need two for each shard.",
    )
    shards: Annotated[int, Field(ge=1, le=1024)] = Field(
        12,
        description="Virtual shards that a batch is cut into; at least as many as there are ranks. Models with batch"
        " norms may need two images in each.",
    )
    optimizer: OptimizerSpec | None = Field(None, description="How the weights are moved.")
    schedule: ScheduleSpec | None = Field(None, description="How the learning rate goes.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Arithmetic of forward and backward; auto: what the device does well, and fp16 on all GPUs if one"
        " of them lacks bf16. fp16 needs CUDA.",
    )
    channels_last: bool | None = Field(None, description="Memory format; default: what the device does well.")
    compile: bool = Field(False, description="true: torch.compile.")
    label_smoothing: Below1 = Field(
        0.0, description="Part of the target that all classes share alike, the true one too, as PyTorch means it."
    )
    ema_decay: Below1 | None = Field(
        None,
        description="Decay of an exponential mean of the weights, for evaluation; it grows up to that, from 0.1, as"
        " (1 + step) / (10 + step), so that nothing is left of the untrained weights.",
    )
    sync: SyncSpec | None = Field(None, description="How the ranks come together.")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(0, description="Seed of weights, order and augmentation.")
    tensorboard: bool = Field(
        False, description="true: TensorBoard's files in results/tensorboard; needs the extra of that name."
    )
    sample_log: bool = Field(
        False, description="true: each rank writes the ids of the samples of every step into results/."
    )
    deterministic: bool = Field(
        False,
        description="true: the same weights to the last bit, whatever the workers' number and failures, and a model of"
        " which a step changes other buffers than BatchNorm's is refused; with sync.mode local whatever the failures,"
        " for one number of workers, and refused if a step changes buffers that no checkpoint holds.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: the GPUs asked for, else the CPU. A GPU asked for and not seen is a failure."
    )
