"""What a file of decoded images says of itself: its contents in numbers, and where they come from."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from edgecloud.api.base import Model
from edgecloud.edge.card import Sha256, Side
from edgecloud_trainer.data.dataset import Fault, Split

SCHEMA_VERSION: Final = 1
MAX_SKIPPED: Final = 1000
"""Files that were left out and are named; the others are counted."""
MAX_NAME: Final = 4096
"""Characters in an image's name."""
MAX_REASON: Final = 4 * MAX_NAME


def _utf8(text: Any) -> Any:
    """A mark in the place of each byte of a file's name that is no UTF-8; anything else stays as it is."""
    return text.encode(errors="replace").decode() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(_utf8)]
"""May come from the name of a file, which can be any bytes."""
Kind = Literal["folder", "tar", "zip", "idx", "cifar", "numpy", "named", "prepared"]
Count = Annotated[int, Field(ge=0, le=1 << 48)]


class Origin(Model):
    """Where the images were read from."""

    kind: Kind = Field(description="What it is.")
    location: Annotated[Text, Field(max_length=8192)] = Field(
        description="Path or URL as it was given, without a URL's secrets; or the name of a named set."
    )
    key: Annotated[str, Field(max_length=128)] = Field(
        description="Of names, sizes and times of its files, and of how they are read: another key, other images."
    )
    sha256: Sha256 | None = Field(None, description="Of the file, if it is a single one.")
    bytes: Count | None = Field(None, description="Likewise, its size.")


class Options(Model):
    """What it was prepared with."""

    resize: Annotated[str, Field(max_length=32)] | None = Field(None, description="Width x height.")
    skip_broken: bool = Field(False, description="Whether broken files were left out.")
    follow_links: bool = Field(False, description="Whether links out of the folder were followed.")
    split: dict[Split, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict, description="Part of the training images that was held back for each split."
    )
    seed: int = Field(0, description="Of the splits.")


class Counts(Model):
    """How many images a split has."""

    images: Annotated[int, Field(ge=1, le=1 << 48)]
    per_class: tuple[Count, ...] = Field(description="In the order of the classes.")


class Left(Model):
    """A file that was left out."""

    name: Annotated[Text, Field(max_length=MAX_NAME)]
    reason: Annotated[Text, Field(max_length=MAX_REASON)]


class Manifest(Model):
    """It stands in the file, and beside it as JSON for people."""

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="Version of this format.")
    edgecloud: Annotated[str, Field(max_length=64)] = Field(description="Version that wrote it.")
    name: Annotated[Text, Field(max_length=MAX_NAME)] = Field(description="Of the data set.")
    classes: Annotated[tuple[Annotated[str, Field(max_length=MAX_NAME)], ...], Field(min_length=2, max_length=100_000)]
    shape: tuple[Annotated[int, Field(ge=1, le=3)], Side, Side] = Field(description="Channels, height and width.")
    splits: dict[Split, Counts]
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        description="Of each channel, of the training pixels scaled to 0..1."
    )
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(description="Likewise, the deviation; 1 if it is 0.")
    sha256: Sha256 = Field(description="Of classes, pixels and labels of all splits.")
    names_sha256: Sha256 | None = Field(None, description="Of the images' names, if they have any.")
    source: Origin
    options: Options = Field(default_factory=Options)
    skipped: Annotated[tuple[Left, ...], Field(max_length=MAX_SKIPPED)] = Field(
        (), description="The first files that were left out, and why."
    )
    skipped_count: Count = Field(0, description="Files that were left out, in all.")
    derived_from: Sha256 | None = Field(
        None, description="sha256 of the prepared file with other splits that it was made of."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if "train" not in self.splits:
            raise ValueError("it has no training images")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError("mean and std don't have the channels that the images have")
        for split, counts in self.splits.items():
            if len(counts.per_class) != len(self.classes) or sum(counts.per_class) != counts.images:
                raise ValueError(f"the counts of {split} don't add up")
        return self

    def faults(self) -> tuple[Fault, ...]:
        """The files that were left out and are named."""
        return tuple(Fault(left.name, left.reason) for left in self.skipped)


class Provenance(Model):
    """What the writer of a file can't see in the images."""

    name: str
    source: Origin
    options: Options = Field(default_factory=Options)
    derived_from: Sha256 | None = None
