"""Labelled images: found, decoded once, split, and in memory or memory-mapped."""

from edgecloud_trainer.data.dataset import DataError, Dataset, Images, Pixels
from edgecloud_trainer.data.loading import load

__all__ = ["DataError", "Dataset", "Images", "Pixels", "load"]
