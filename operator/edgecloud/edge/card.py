"""What a model says of itself: its network and images, and, once it is converted, where it comes from."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from edgecloud.api.base import Model
from edgecloud.api.trainer import DataSpec

METADATA_KEY: Final = "edgecloud.card"
"""Under this key an ONNX file holds its ExportCard as JSON, among its metadata_props."""
PT2_FILE: Final = "edgecloud-card.json"
"""Under this name a .pt2 archive holds it, among its extra files."""
INPUT: Final = "images"
"""uint8 [N, C, H, W], any N: pixels as they were decoded. The model normalises them itself."""
OUTPUT: Final = "logits"
"""float32 [N, classes]."""
VERSION: Final = 1

Format = Literal["onnx", "onnx-int8", "pt2"]
Side = Annotated[int, Field(ge=1, le=65536)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelCard(Model):
    """A network and the images that it was trained on. Every checkpoint's state has one, under `card`."""

    version: Literal[1] = Field(VERSION, description="Version of this format.")
    model: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="trainer.model.")
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=100_000)] = Field(
        description="Names of the classes, in the order of the logits."
    )
    shape: tuple[Side, Side, Side] = Field(description="Channels, height and width of an image.")
    mean: tuple[float, ...] = Field(description="Of each channel, of the training pixels scaled to 0..1.")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="Likewise, the deviation.")
    mirror: bool = Field(False, description="Evaluated on each image and its mirror image together.")
    data: DataSpec = Field(
        description="trainer.data, paths in full; a converted model has a URL without user, password and query."
    )
    seed: int = Field(0, description="trainer.seed, which splits depend on.")
    data_sha256: Sha256 = Field(alias="dataSha256", description="Digest of the images, labels and classes.")
    job: Annotated[str, Field(max_length=253)] = Field("", description="Name of the job.")
    namespace: Annotated[str, Field(max_length=253)] = Field("", description="Its namespace.")
    job_uid: Annotated[str, Field(max_length=64)] = Field("", description="Its uid.")


class RunCard(Model):
    """The checkpoint that a converted model was made of."""

    step: Annotated[int, Field(ge=0)] = Field(description="Step that it was written after.")
    round: Annotated[int, Field(ge=0)] = Field(description="Round that wrote it.")
    weights_sha256: Sha256 = Field(alias="weightsSha256", description="Digest of its weights.")
    torch: Annotated[str, Field(max_length=64)] = Field(description="torch's version that it was written with.")


class ExportCard(Model):
    """A converted model, as its own file describes it."""

    version: Literal[1] = Field(VERSION, description="Version of this format.")
    format: Format = Field(description="What it was converted to.")
    mirror: bool = Field(
        False,
        description="Takes the mean of an image's and its mirror image's logits by itself; a file that an earlier "
        "release exported gives their sum, with the same classes in the same order.",
    )
    network: ModelCard = Field(description="Network and images.")
    run: RunCard = Field(description="Where the weights come from.")
