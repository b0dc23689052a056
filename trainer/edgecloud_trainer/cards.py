"""The card of a training's model: all that is needed to build it again, and to know its images."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import nn

from edgecloud.edge.card import ModelCard
from edgecloud.urls import public
from edgecloud_trainer.data import Dataset
from edgecloud_trainer.data.filesystem import is_url
from edgecloud_trainer.settings import Settings


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
        data=settings.trainer.data,
        seed=settings.trainer.seed,
        data_sha256=dataset.digest,
        job=environment.get("EDGECLOUD_JOB", ""),
        namespace=environment.get("EDGECLOUD_NAMESPACE", ""),
        job_uid=environment.get("EDGECLOUD_JOB_UID", ""),
    )


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
