"""Labelled images: found, decoded once, split, and in memory or memory-mapped."""

from edgecloud_trainer.data.dataset import DataError, Dataset, Images
from edgecloud_trainer.data.loading import load

__all__ = ["DataError", "Dataset", "Images", "load"]
