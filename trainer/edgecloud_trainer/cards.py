"""The card of a training's model: all that is needed to build it again, and to know its images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import nn

from edgecloud.api.trainer import DataSpec
from edgecloud.edge.card import ModelCard
from edgecloud.urls import public
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.data.filesystem import is_url
from edgecloud_trainer.data.locate import expanded
from edgecloud_trainer.settings import Settings

_LONGEST: Final = 1024
"""Characters of a source."""


def model_card(
    settings: Settings, dataset: Dataset, model: nn.Module, environment: Mapping[str, str] = os.environ
) -> ModelCard:
    """The card of the model that a training process holds."""
    return ModelCard(
        model=settings.trainer.model,
        classes=dataset.classes,
        shape=dataset.shape,
        mean=dataset.mean,
        std=dataset.std,
        mirror=bool(getattr(model, "test_time_mirror", False)),
        data=from_anywhere(settings.trainer.data),
        seed=settings.trainer.seed,
        data_sha256=dataset.digest,
        job=environment.get("EDGECLOUD_JOB", ""),
        namespace=environment.get("EDGECLOUD_NAMESPACE", ""),
        job_uid=environment.get("EDGECLOUD_JOB_UID", ""),
    )


def from_anywhere(data: DataSpec) -> DataSpec:
    """The same images for whoever asks for them from another folder: with the whole path.

    In the card alone: a training goes on by what its job says.
    """
    path = local_path(data)
    whole = os.path.abspath(path) if path is not None else ""  # noqa: PTH100 - links stay as they are
    if not whole or len(whole) > _LONGEST or not whole.isprintable():
        return data  # what a card can't hold
    return data.model_copy(update={"source": whole})


def local_path(data: DataSpec) -> Path | None:
    """Where images are that are on this machine; None for a set's name, and for a URL."""
    source = data.source
    if source is not None and source.startswith(("file://", "local://")):
        source = source.partition("://")[2]
    return None if source is None or is_url(source) else expanded(source)


def published(card: ModelCard) -> ModelCard:
    """The card as a converted model and its report hold it, which go anywhere: its images' URL without secrets."""
    source = card.data.source
    if source is None or not is_url(source):
        return card
    try:
        shown = public(source)
    except ValueError:  # no images were ever there
        shown = f"{source.partition('://')[0]}://"
    return card.model_copy(update={"data": card.data.model_copy(update={"source": shown})})
